"""Clean a refusal's text before its words are searched: names go, boilerplate goes, and frames say whom it is about.

A mailbox may be called `quota-exceeded`, a mail server `antispam`, a domain `dmarc.test`: a name says nothing about a
refusal. In its place stands a mark that says whose name it was. Linear time on whatever a stranger wrote.
"""

import re
from collections.abc import Sequence
from dataclasses import dataclass
from enum import StrEnum

MAX_CHARACTERS = 4000

# The marks. No word of any table matches them.
OWN, OTHER, HOST, IP, LIST = "‹own›", "‹other›", "‹host›", "‹ip›", "‹list›"


class About(StrEnum):
    """Whom a refusal is about, as far as its frame tells."""

    RECIPIENT = "recipient"
    SENDER = "sender"
    US = "us"  # our address, host name or session
    MESSAGE = "message"
    UNKNOWN = "unknown"


@dataclass(frozen=True, slots=True)
class Cleaned:
    """A refusal without names. `speaks_of_another`: what does not exist is named, and is not the recipient."""

    text: str
    about: About
    speaks_of_another: bool
    names_recipient: bool

    @property
    def has_words(self) -> bool:
        """Whether anything but codes and names is left."""
        return _WORD.search(self.text) is not None


_WORD = re.compile(r"[^\W\d_]{3}")
_URL = re.compile(r"\b(?:https?|ftp)://\S{1,500}|\bwww\.\S{1,300}|\bmailto:", re.IGNORECASE)
_ADDRESS = re.compile(
    r"(?P<local>\"[^\"\n]{1,64}\"|[^\s<>@\"'()\[\],;:=|]{1,120})@(?P<domain>[\w-]{1,63}(?:\.[\w-]{1,63}){0,10})"
)
_IPV4 = re.compile(r"(?<![\w.])\[?(?:\d{1,3}\.){3}\d{1,3}\]?(?![\w.]*\d)")
_IPV6 = re.compile(r"\[?\b(?:IPv6:)?(?:[0-9a-f]{1,4}:){2,7}(?::|[0-9a-f]{1,4})[0-9a-f:]{0,30}\]?", re.IGNORECASE)
# One case throughout: `RESOLVER.ADR.RecipientNotFound` and `unknown.Please` are no host names.
_HOST = re.compile(
    r"(?<![\w.@-])(?:(?:[a-z0-9_](?:[a-z0-9_-]{0,61}[a-z0-9])?\.){1,10}(?:[a-z]{2,18}|xn--[a-z0-9-]{2,59})"
    r"|(?:[A-Z0-9](?:[A-Z0-9-]{0,61}[A-Z0-9])?\.){1,10}[A-Z]{2,18})(?![\w-]|\.\w)"
)
# Exchange's codes, all in capitals.
_NO_HOST = re.compile(r"(?:RESOLVER|QUEUE|STOREDRV|TRANSPORT|SMTPSEND|ROUTING|AGENT|CONTENT|DNS)\.")
_LIST_OPERATORS = (
    *("spamhaus.org", "spamhaus.net", "spamcop.net", "barracudacentral.org", "sorbs.net", "uceprotect.net"),
    *("abuseat.org", "abusix.zone", "invaluement.com", "mailspike.net", "senderscore.com", "senderbase.org"),
)

# `X rejected: why` of Postfix: what follows is about X.
_FRAME = re.compile(
    r"\b(?P<what>recipient address|sender address|client host|helo command|ehlo command|data command|end-of-data|"
    r"relay address) rejected:",
    re.IGNORECASE,
)
_FRAMES = {
    "recipient address": About.RECIPIENT,
    "sender address": About.SENDER,
    "client host": About.US,
    "helo command": About.US,
    "ehlo command": About.US,
}
# What the refusal answered, as the MTA that tells of it writes.
_ANSWERED = re.compile(
    r"(?:in (?:reply|response) to (?:the )?|after |response to |>>> ?)(?P<verb>mail(?: from)?|helo|ehlo)\b",
    re.IGNORECASE,
)
_LAST_VERB = re.compile(r"(?:after |>>> ?)(?P<verb>mail from|rcpt to|data|mail|rcpt|helo|ehlo)\b", re.IGNORECASE)
_BOILERPLATE = re.compile(
    r"(?:this is )?a copy of (?:the|your) message,? including all the headers[^.\n]{0,60}"
    r"|copy of the message, including all the headers[^.\n]{0,60}"
    r"|(?:the )?(?:delivery|message|mail) to the following "
    r"(?:recipients?|recipient\(s\)|address(?:es)?|address\(es\)) (?:has |have |was |were )?"
    r"(?:failed|delayed|unsuccessful)(?: permanently)?"
    r"|the following (?:recipients?|recipient\(s\)|address(?:es)?|address\(es\)) "
    r"(?:failed|had \w{1,20} \w{1,20} errors)"
    r"|(?:your|the) (?:message|mail) (?:did not reach|could not be delivered to|cannot be delivered to)[^.:\n]{0,80}"
    r"|requested (?:mail )?action (?:not taken|aborted|was not taken)(?: or delayed)?:?"
    r"|transcript of session follows|remote host said:?|return(?:ed|ing)? (?:it |mail |message )?to (?:the )?sender"
    r"|(?:please )?(?:notify|inform|contact|tell) the sender|the sender (?:has been|was|will be) (?:notified|informed)"
    r"|message (?:header|text|body) follows|reporting-mta|rfc ?822;|\bx-[a-z-]{3,40}:"
    r"|(?:ask|contact) (?:your|the) (?:postmaster|administrator)[^.\n]{0,60}"
    r"|please (?:check|verify|double-?check)[^.\n]{0,60}(?:address|recipient|spelling)[^.\n]{0,30}"
    r"|try(?: double-?)?checking the recipient's email address[^.\n]{0,60}",
    re.IGNORECASE,
)
# Who sent: whatever is said of them is not about the recipient.
_SENDER = re.compile(
    r"\bsenders?(?:'s)?\b|\bsending (?:domain|address|mailbox|user|account)|\boriginator\b|\benvelope[- ]from\b"
    r"|\b(?:return|reverse)[- ]?path\b|\bmail ?from\b(?! (?:your|this|our)\b)"
    r"|\bfrom[: -]{1,2}(?:address|domain|header)\b"
    r"|\bbounce address|\bsubmitter\b|\babsender|expéditeur|remitente|remetente|mittente|\bafzender|отправител"
    r"|发件人|寄件人|寄件者|發件人|送信者|差出人|送信元|avsändare|\bafsender|avsender|nadawc|odes[íi]latel|gönderen"
    r"|보낸 ?사람|발신|lähettäjä",
    re.IGNORECASE,
)
_US = re.compile(
    r"\byour (?:ip|host|hostname|server|network|domain|helo|ehlo|address|access|mail server|isp)\b|\bclient host\b"
    rf"|{IP}[^.\n]{{0,30}}\b(?:block|list|denied|rejected(?! the recipient)|banned|not allowed|no ptr|has sent|exceed)"
    r"|\bhelo\b|\behlo\b",
    re.IGNORECASE,
)
_NOT_THERE = (
    r"(?:does not|doesn.t|do not|don.t|did not|is not|isn.t|was not|wasn.t|not |un(?:known|rout)|invalid|no longer|"
    r"non-?exist|can ?not|can.t|could ?n.t|could not|has no|no (?:a|mx|such))"
)
_ANOTHER = re.compile(
    rf"(?:{OTHER}[^\w‹]{{0,6}}|{HOST}['\")\]>]{{0,2}} )"
    rf"(?:(?:domain|user|address|account|host|mailbox)[^\w‹]{{1,3}})?{_NOT_THERE}"
    rf"|(?:no such|unknown|invalid|unrout\w{{1,10}}|bad|non-?existent|not found|not known|named?|any host|no mx for)"
    rf"(?: \w{{1,15}}){{0,3}}[^\w‹]{{1,4}}(?:of |for |in |at )?[^\w‹]{{0,3}}(?:{OTHER}|{HOST})",
    re.IGNORECASE,
)


def clean(text: str, recipients: Sequence[str]) -> Cleaned:
    """`recipients` are the addresses that mean the refused one; none where nobody knows."""
    known = [each.lower() for each in recipients if "@" in each]
    marked = _without_names(text[:MAX_CHARACTERS], known)
    about, rest = _unframed(_BOILERPLATE.sub(" ", marked))
    if about is About.UNKNOWN:
        about = _about(rest)
    return Cleaned(
        text=rest,
        about=about,
        speaks_of_another=bool(known) and _ANOTHER.search(rest) is not None,
        names_recipient=OWN in rest or not known,
    )


def _without_names(text: str, known: Sequence[str]) -> str:
    local_parts = {each.rpartition("@")[0] for each in known}
    domains = {each.rpartition("@")[2] for each in known}

    def address(found: re.Match[str]) -> str:
        is_own = found["domain"].lower() in domains or found["local"].lower().lstrip("<") in local_parts
        return OWN if is_own or not known else OTHER

    def host(found: re.Match[str]) -> str:
        name = found.group().lower()
        if name in domains:
            return OWN
        if any(name == each or name.endswith("." + each) for each in _LIST_OPERATORS):
            return LIST
        return found.group() if _NO_HOST.match(found.group()) else HOST

    text = _ADDRESS.sub(address, _URL.sub(" ", text))
    return _HOST.sub(host, _IPV6.sub(IP, _IPV4.sub(IP, text)))


def _unframed(text: str) -> tuple[About, str]:
    """Whom the frame is about, and what stands behind it together with the codes before it."""
    frames = list(_FRAME.finditer(text))
    if not frames:
        return About.UNKNOWN, text
    last = frames[-1]
    framed = [_FRAMES.get(frame["what"].lower(), About.MESSAGE) for frame in frames]
    about = next((each for each in framed if each is not About.RECIPIENT), About.RECIPIENT)
    before = " ".join(re.findall(r"(?<![\d.])[45]\d\d(?![\d.])|[245]\.\d{1,3}\.\d{1,3}", text[: last.start()]))
    own = f" {OWN}" if OWN in text[: last.start()] else ""
    rest = text[last.end() :]
    if about is About.RECIPIENT and _SENDER.search(rest):
        about = About.SENDER
    return about, f"{before}{own} {rest}"


def _about(text: str) -> About:
    verbs = [found["verb"].lower() for found in _LAST_VERB.finditer(text)]
    if _ANSWERED.search(text) and (not verbs or not verbs[-1].startswith(("rcpt", "data"))):
        return About.SENDER
    if _SENDER.search(text):
        return About.SENDER
    return About.US if _US.search(text) else About.UNKNOWN

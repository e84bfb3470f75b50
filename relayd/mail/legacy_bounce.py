"""Read bounces that are written for human eyes alone: qmail, older Exim, sendmail, Domino, Exchange, many gateways.

No list of systems: who failed is told from where addresses stand and from the message that is returned, why from the
lines about it.
"""

import re
from collections.abc import Sequence
from dataclasses import dataclass

from relayd.mail import auto_reply, bounce_phrases
from relayd.mail.delivery_report import enhanced_in
from relayd.mail.loose_header import LooseHeader
from relayd.mail.recipient_text import ADDRESS, AT_ITS_BEGIN, NOT_A_PERSON, OTHER, REPLY, RecipientText, key_of, lowered
from relayd.mail.report import Action, Original, ReportedRecipient
from relayd.mail.returned_message import addresses_in

MAX_FAILED = 100

ENOUGH = 3  # points that make an address a failed one by itself

_LABEL = re.compile(
    r"(?:recipient|address|deliver|mailbox|user|account|\bto\b|failed|empfänger|adresse|postfach|"
    r"destinat[aá]r|dirección|"
    r"endereço|indirizzo|casella|ontvanger|geadresseerde|получател|адрес|收件人|地址|宛先|受信者|用户|邮箱|수신)",
    re.IGNORECASE,
)
# One that nobody takes for `450 MB`.
_FULL_REPLY = re.compile(r"(?<![\d.:/@-])[45][0-5]\d[ \-]#?[45]\.\d{1,3}\.\d")
# Above what a person answers. A program writes rulers, too, with other words.
_QUOTATION = re.compile(
    r"(?:On|Am|Le|El|Il|Op|Em|Den|W dniu|Dne) .{6,200} (?:wrote|schrieb.{0,60}|a écrit|escribió|ha scritto|"
    r"schreef.{0,60}|escreveu|skrev.{0,60}|napisał\w*|napsal\w*)\s?:\s*\Z",
)


@dataclass(frozen=True, slots=True)
class Writer:
    """Who sends the report, as far as its header tells."""

    address: str
    name: str
    to: tuple[str, ...]
    subject: str


def writer(header: LooseHeader) -> Writer:
    """From the top of the report."""
    sender = header.decoded("from", 400)
    addresses = addresses_in([header.first("from")])
    return Writer(
        address=addresses[0] if addresses else "",
        name=sender.partition("<")[0] if "<" in sender else sender,
        to=addresses_in([*header.all("to"), *header.all("delivered-to"), *header.all("x-original-to")]),
        subject=header.decoded("subject"),
    )


def is_daemon(who: Writer) -> bool:
    """Whether a program writes bounces under that name."""
    local_part = who.address.partition("@")[0]
    return bool(bounce_phrases.DAEMON_LOCAL_PART.match(local_part) or bounce_phrases.DAEMON_NAME.search(who.name))


def is_machine(header: LooseHeader, who: Writer) -> bool:
    """Whether the header says that no person wrote this."""
    submitted = header.first("auto-submitted").strip().lower()
    is_from_nobody = header.first("return-path").replace(" ", "") == "<>"
    local_part = who.address.partition("@")[0]
    return bool(
        is_from_nobody
        or (submitted and not submitted.startswith("no"))
        or bounce_phrases.MACHINE_LOCAL_PART.match(local_part)
    )


def announces(who: Writer) -> bool:
    """Whether the subject is that of a bounce; that of an answer to one is not."""
    return bounce_phrases.SUBJECT.search(who.subject) is not None and not auto_reply.answers(who.subject)


def is_bounce(header: LooseHeader, who: Writer, said: str, returns_message: bool) -> bool:
    """Whether this is a bounce at all: two witnesses of its writer, subject, words, and the message it returns.

    A person who answers may quote a bounce, the message, and its words; what is quoted is no witness.
    """
    if header.first("x-failed-recipients"):
        return True
    return_path = header.first("return-path").replace(" ", "")
    by_machine = is_machine(header, who)
    is_answer = bool(header.first("in-reply-to") or header.first("references")) and not by_machine
    own = _unquoted(said[:20_000])
    speaks = bounce_phrases.BODY.search(own) is not None
    quotes_reply = _FULL_REPLY.search(own) is not None
    is_daemons_alone = bounce_phrases.DAEMON_ALONE.match(who.address.partition("@")[0]) is not None
    is_persons = auto_reply.answers(who.subject) or not (is_daemons_alone or announces(who))
    if is_daemon(who) and not (is_answer and is_persons):
        # Whatever the language, the reply of a server is a server's. What comes to port 25 has no Return-Path yet.
        is_servers = quotes_reply and return_path in ("", "<>") and not header.first("list-id")
        return speaks or announces(who) or returns_message or is_servers
    if is_answer:
        return is_daemons_alone and (speaks or quotes_reply)
    if announces(who):
        has_reply = REPLY.search(own) is not None
        return (speaks and (by_machine or returns_message or has_reply)) or (
            returns_message and by_machine and has_reply
        )
    # A subject in words that nobody has listed: the returned message and a reply of a server are witness enough.
    return returns_message and by_machine and quotes_reply and not auto_reply.answers(who.subject)


def _unquoted(said: str) -> str:
    """Without what a person quotes: lines marked so, and all below `… wrote:` or a ruler over the message."""
    lines = []
    for line in said.split("\n"):
        if _QUOTATION.match(line):
            break
        if not line.startswith((">", "|")) or line.startswith(">>>"):
            lines.append(line)
    return "\n".join(lines)


def is_delay(who: Writer, said: str) -> bool:
    """Whether the report speaks of mail that still waits."""
    said = said[:20_000]
    if bounce_phrases.DELAY_BODY.search(said):
        return not bounce_phrases.GIVEN_UP.search(_without_conditions(said))
    return bool(bounce_phrases.DELAY_SUBJECT.search(who.subject)) and not bounce_phrases.GIVEN_UP.search(said)


def failed(
    header: LooseHeader, who: Writer, text: RecipientText, original: Original, action: Action
) -> list[ReportedRecipient]:
    """Who failed, and why, as well as it can be told; one without an address where not even that can."""
    lines = text.lines
    named = {each.lower() for each in addresses_in(header.all("x-failed-recipients"))}
    points = _points(text, named, who, original)
    best = max(points.values(), default=0)
    chosen = [each for each, score in points.items() if score >= ENOUGH or (score == best and best > 0)]
    if named:
        chosen = [each for each in points if each.lower() in named] or addresses_of(header)
    elif any(points[each] >= ENOUGH + 2 for each in chosen):
        # Where some are sure, the doubtful ones are somebody else, but for those that stand in the same list.
        sure = {each for each in chosen if points[each] >= ENOUGH + 2}
        shapes = _shapes(lines, chosen)
        lists = {shape for each in sure for shape in shapes[each]}
        # An address with nothing around it may be a signature's: it needs a reply beside it, too.
        listed = [each for each in chosen if shapes[each] & (lists if points[each] > ENOUGH else lists - {"@"})]
        chosen = [each for each in chosen if each in sure or each in listed]
    if not chosen:
        chosen = _of_the_original(text.said, original)
    senders = lowered([who.address, original.sender or "", original.return_path or "", *who.to])
    everyone = lowered(chosen)
    return [_reported(each, text, everyone, senders, action) for each in chosen[:MAX_FAILED]] or [
        _reported("", text, frozenset(), senders, action)
    ]


def addresses_of(header: LooseHeader) -> list[str]:
    """X-Failed-Recipients, as Exim and Gmail write it."""
    return list(addresses_in(header.all("x-failed-recipients")))


def _points(text: RecipientText, named: set[str], who: Writer, original: Original) -> dict[str, int]:
    wrote = {each.lower() for each in (who.address, original.sender or "", original.return_path or "")}
    if original.sender is None:
        wrote |= {each.lower() for each in who.to}
    to = {each.lower() for each in original.recipients} - wrote
    points: dict[str, int] = {}
    spelled: dict[str, str] = {}
    for index, line in enumerate(text.lines):
        if not text.spans(index):
            continue
        is_labelled, is_other = _LABEL.search(line) is not None, OTHER.search(line) is not None
        near = any(text.has_reply(each) for each in range(index, min(index + 3, len(text.lines))))
        for found in ADDRESS.finditer(line):
            address, key = found.group().strip(".'-`"), key_of(found)
            local_part, _, domain = key.rpartition("@")
            if key in wrote or not local_part or ("." not in domain and key not in to):
                continue
            if (NOT_A_PERSON.match(local_part) or _is_message_id(line, found)) and key not in to | named:
                continue
            spelled.setdefault(key, address)
            begins = AT_ITS_BEGIN.match(line[: found.start()]) is not None
            score = 1 + 2 * begins + is_labelled + near + 4 * (key in to) + 6 * (key in named)
            if is_other and key not in to | named:
                score -= 3
            points[key] = max(points.get(key, -9), score)
    return {spelled[key]: score for key, score in points.items()}


def _shapes(lines: Sequence[str], addresses: Sequence[str]) -> dict[str, set[str]]:
    """What stands around each of the addresses where one has a line to itself: `<@>:`."""
    shapes: dict[str, set[str]] = {each: set() for each in addresses}
    for line in lines:
        found = ADDRESS.search(line)
        if found is None or (address := found.group().strip(".'-`")) not in shapes:
            continue
        shape = line.replace(address, "@", 1).strip()
        if not any(each.isalnum() for each in shape):
            shapes[address].add(shape)
    return shapes


def _is_message_id(line: str, found: re.Match[str]) -> bool:
    before = line[: found.start()].lower()
    return "message-id" in before or "messageid" in before or "message id" in before or " id <" in before[-5:]


def _of_the_original(said: str, original: Original) -> list[str]:
    """Recipients of the message itself: the one whose name stands in the text, or the only one."""
    others = [each for each in original.recipients if each not in (original.sender, original.return_path)]
    if len(others) == 1:
        return others
    low = said.lower()
    return [each for each in others[:MAX_FAILED] if re.search(rf"\b{re.escape(each.partition('@')[0].lower())}\b", low)]


def _reported(
    address: str, text: RecipientText, everyone: frozenset[str], senders: frozenset[str], action: Action
) -> ReportedRecipient:
    own = lowered([address])
    diagnostic = text.diagnostic(own, everyone - own, senders)
    return ReportedRecipient(address, None, action, enhanced_in(diagnostic), diagnostic)


def _without_conditions(said: str) -> str:
    """Without what happens if it fails in the end: `if it cannot be delivered for 5 days it will be returned`."""
    return re.sub(
        r"(?i)\b(?:if|until|unless|after|should|when|wenn|falls|si|se|als|если)\b[^.\n]{0,200}(?:\n[^.\n]{1,200})?",
        " ",
        said,
    )

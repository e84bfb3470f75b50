"""Say what a refusal means: hard or soft, of what kind, and whether it suppresses the recipient's address. Pure.

This is the only place that decides. The SMTP transaction, the reader of reports and `relayd upstream verdict` ask it.

Hard: the address, or its domain, is no good, and nothing sent there will arrive. Soft: this message, this sender or
this moment was not. **Only a refusal that says that this recipient does not exist suppresses its address**: a permanent
one, about the recipient, in whose words nothing speaks of anything else. A wrong suppression costs an innocent reader
90 days of mail, and a missing one costs another bounce, so every doubt is decided against it.

What is trusted, in this order: a code that leaves no doubt, the words of the reply, a code that is used for more than
one thing, the words of the report. Words are searched only after names are gone from the text (`bounce_text`).
"""

import re
from dataclasses import dataclass
from functools import cache

from relayd.rules import bounce_words
from relayd.rules.bounce_category import BounceKind, Category
from relayd.rules.bounce_text import About, Cleaned, clean
from relayd.rules.bounce_words import expression
from relayd.rules.outcome import Stage

HARD = frozenset(
    {Category.NO_SUCH_USER, Category.INACTIVE, Category.DOMAIN_NOT_FOUND, Category.RELAYING, Category.LOOP}
)


@dataclass(frozen=True, slots=True)
class Refusal:
    """What is known of one recipient's refusal.

    `text` is the reply, or what stands for it in a report. `code` is its first number where `text` does not hold it,
    `status` the report's own enhanced code. `stage` is None where nobody knows it. `recipients` are the addresses that
    mean this recipient: ours, and the one behind a forward. `explanation` is what a report says to its reader.
    """

    text: str
    code: int | None = None
    status: str | None = None
    stage: Stage | None = None
    recipients: tuple[str, ...] = ()
    explanation: str = ""


@dataclass(frozen=True, slots=True)
class BounceClass:
    """`status` is the enhanced code that decided, if one. `suppresses`: the recipient does not exist."""

    kind: BounceKind
    category: Category
    status: str | None
    suppresses: bool = False

    def __str__(self) -> str:
        return f"{self.kind}, {self.category}"


# By subject and detail. A code that systems use for more than one thing is not here, or is below.
_FIRM = {
    "1.1": Category.NO_SUCH_USER,
    "1.2": Category.DOMAIN_NOT_FOUND,
    "1.3": Category.NO_SUCH_USER,
    "1.4": Category.NO_SUCH_USER,
    "1.6": Category.NO_SUCH_USER,
    "1.10": Category.NO_SUCH_USER,
    "1.351": Category.NO_SUCH_USER,
    "1.7": Category.AUTH,
    "1.8": Category.AUTH,
    "1.90": Category.RATE_LIMITED,
    "2.2": Category.MAILBOX_FULL,
    "2.3": Category.TOO_LARGE,
    "2.121": Category.RATE_LIMITED,
    "2.122": Category.RATE_LIMITED,
    "3.4": Category.TOO_LARGE,
    "3.1": Category.MAILBOX_FULL,
    "4.6": Category.LOOP,
    "4.14": Category.LOOP,
    "4.7": Category.UNREACHABLE,
    "4.300": Category.UNREACHABLE,
    "4.310": Category.DOMAIN_NOT_FOUND,
    "4.312": Category.DOMAIN_NOT_FOUND,
    "4.316": Category.UNREACHABLE,
    "4.317": Category.UNREACHABLE,
    "6.1": Category.CONTENT,
    "6.2": Category.CONTENT,
    "6.3": Category.CONTENT,
    "6.6": Category.CONTENT,
    "6.7": Category.CONTENT,
    "7.2": Category.SPAM_OR_POLICY,
    "7.5": Category.AUTH,
    "7.7": Category.CONTENT,
    "7.8": Category.AUTH,
    "7.9": Category.AUTH,
    "7.20": Category.AUTH,
    "7.21": Category.AUTH,
    "7.22": Category.AUTH,
    "7.23": Category.AUTH,
    "7.24": Category.AUTH,
    "7.25": Category.AUTH,
    "7.26": Category.AUTH,
    "7.27": Category.AUTH,
    "7.28": Category.BLOCKED,
    "7.29": Category.AUTH,
    "7.30": Category.AUTH,
    "7.54": Category.RELAYING,
    "7.64": Category.RELAYING,
    "7.124": Category.SPAM_OR_POLICY,
    "7.133": Category.SPAM_OR_POLICY,
    "7.134": Category.SPAM_OR_POLICY,
    "7.136": Category.SPAM_OR_POLICY,
    "7.501": Category.BLOCKED,
    "7.502": Category.BLOCKED,
    "7.503": Category.BLOCKED,
    "7.509": Category.AUTH,
    "7.511": Category.BLOCKED,
    "7.515": Category.AUTH,
    "7.705": Category.BLOCKED,
    "7.708": Category.BLOCKED,
    "7.750": Category.BLOCKED,
}
# What a code means where no word says more.
_VAGUE = {
    "1.0": Category.NO_SUCH_USER,
    "1.5": Category.UNKNOWN,
    "1.9": Category.UNKNOWN,
    "2.0": Category.UNKNOWN,
    "2.1": Category.INACTIVE,
    "2.4": Category.NO_SUCH_USER,
    "3.0": Category.UNREACHABLE,
    "3.2": Category.UNREACHABLE,
    "3.3": Category.CONTENT,
    "3.5": Category.UNREACHABLE,
    "4.0": Category.UNREACHABLE,
    "4.1": Category.UNREACHABLE,
    "4.2": Category.UNREACHABLE,
    "4.3": Category.UNREACHABLE,
    "4.4": Category.DOMAIN_NOT_FOUND,
    "4.5": Category.RATE_LIMITED,
    "5.1": Category.CONTENT,
    "5.2": Category.CONTENT,
    "5.3": Category.RATE_LIMITED,
    "5.4": Category.CONTENT,
    "6.0": Category.CONTENT,
    "7.0": Category.SPAM_OR_POLICY,
    "7.1": Category.SPAM_OR_POLICY,
    "7.3": Category.SPAM_OR_POLICY,
    "7.4": Category.SPAM_OR_POLICY,
    "7.6": Category.SPAM_OR_POLICY,
}
# What the subject of a code means that no table has (RFC 3463 3); those of addresses and mailboxes say too little.
_BY_SUBJECT = {
    "3": Category.UNREACHABLE,
    "4": Category.UNREACHABLE,
    "6": Category.CONTENT,
    "7": Category.SPAM_OR_POLICY,
}
_BY_CODE = {
    "421": Category.UNREACHABLE,
    "450": Category.UNKNOWN,
    "452": Category.MAILBOX_FULL,
    "523": Category.TOO_LARGE,
    "530": Category.AUTH,
    "535": Category.AUTH,
    "551": Category.NO_SUCH_USER,
    "552": Category.MAILBOX_FULL,
    "553": Category.NO_SUCH_USER,
    "556": Category.DOMAIN_NOT_FOUND,
    "571": Category.SPAM_OR_POLICY,
}


# Codes that say by themselves that the recipient, or its domain, does not exist (RFC 3463 3.2, RFC 7505).
_NOT_THERE = frozenset({"1.1", "1.2", "1.3", "1.6", "1.10"})


@cache
def _table() -> tuple[tuple[Category, re.Pattern[str]], ...]:
    """The words. One that is more particular comes before one that is less. Compiled when a bounce is first read."""
    return (
        (Category.DOMAIN_NOT_FOUND, _no_route()),
        (Category.UNREACHABLE, expression(bounce_words.TEMPORARY)),
        (Category.TOO_LARGE, expression(bounce_words.TOO_LARGE)),
        (Category.MAILBOX_FULL, expression(bounce_words.MAILBOX_FULL)),
        (Category.RATE_LIMITED, expression(bounce_words.RATE_LIMITED)),
        (Category.RELAYING, expression(bounce_words.RELAYING)),
        (Category.AUTH, expression(bounce_words.AUTH)),
        (Category.BLOCKED, expression(bounce_words.BLOCKED)),
        (Category.SPAM_OR_POLICY, expression(bounce_words.SPAM_OR_POLICY)),
        (Category.LOOP, expression(bounce_words.LOOP)),
        (Category.INACTIVE, expression(bounce_words.INACTIVE)),
        (Category.DOMAIN_NOT_FOUND, expression(bounce_words.DOMAIN_NOT_FOUND)),
        (Category.NO_SUCH_USER, _no_such_user()),
        (Category.NO_SUCH_USER, expression(bounce_words.ADDRESS_REFUSED)),
        (Category.UNREACHABLE, expression(bounce_words.UNREACHABLE)),
        (Category.CONTENT, expression(bounce_words.CONTENT)),
        (Category.SPAM_OR_POLICY, expression(bounce_words.REFUSED)),
    )


@cache
def _no_route() -> re.Pattern[str]:
    return expression(bounce_words.NO_ROUTE)


@cache
def _no_such_user() -> re.Pattern[str]:
    return expression(bounce_words.NO_SUCH_USER)


_ENHANCED = re.compile(r"(?<![\d./v])([245])\.(\d{1,3}\.\d{1,3})(?![\d]|\.\d)")
_CODE = re.compile(r"(?<![\d.:/@-])([45][0-7]\d)(?=[ \-#]|\Z)")
_FINAL = re.compile(r"permanent|permanente|endgültig|définiti|fatal|final|failed permanently", re.IGNORECASE)
# An MTA writes these for any 550 of a server that gives no code of its own.
_DERIVED = frozenset({"1.1", "2.0", "2.1", "5.0", "5.1", "5.2", "5.4", "6.1", "1.2", "7.1", "1.0", "3.4", "2.2"})
# About the recipient itself, as far as words go; a code that speaks of something else is believed before them.
_ABOUT_RECIPIENT = frozenset({Category.NO_SUCH_USER, Category.DOMAIN_NOT_FOUND, Category.INACTIVE, Category.RELAYING})


def classify(refusal: Refusal) -> BounceClass:
    """Hard or soft, the category, and whether the recipient's address is suppressed."""
    cleaned = clean(refusal.text, refusal.recipients)
    told = _told_code(cleaned.text)
    code = str(refusal.code) if refusal.code else _first_code(cleaned.text)
    by = told if told and not _says_nothing(told) else refusal.status or told
    # Who is named as not there, and is not the recipient, is the sender most likely.
    is_of_sender = refusal.stage is Stage.MAIL or cleaned.speaks_of_another
    about = About.SENDER if is_of_sender else cleaned.about
    words = _by_words(cleaned.text)
    category = _category(by, told, code, words, about, refusal.explanation)
    is_hard = _is_hard(category, by, code, cleaned.text, refusal.explanation)
    if not is_hard:
        return BounceClass(BounceKind.SOFT, category, by)
    return BounceClass(BounceKind.HARD, category, by, _suppresses(category, by, told, code, words, about, cleaned))


def _category(
    by: str | None, told: str | None, code: str | None, words: Category | None, about: About, explanation: str
) -> Category:
    detail = (by or "").partition(".")[2]
    firm = _FIRM.get(detail) or _of_a_range(detail)
    if about in (About.SENDER, About.US):
        said = [each for each in (firm, words) if each is not None and each not in HARD]
        return said[0] if said else Category.AUTH
    if firm is not None and firm not in HARD and words in _ABOUT_RECIPIENT and by == told:
        return firm  # the server's own 5.2.2, whatever its words say beside
    if words is not None and (firm is None or by != told or firm is Category.NO_SUCH_USER or detail in _DERIVED):
        return words
    if firm is not None:
        return firm
    vague = _VAGUE.get(detail) or _BY_SUBJECT.get(detail.partition(".")[0])
    if vague is not None and vague is not Category.UNKNOWN:
        # Whoever explains a vague code to a reader knows better.
        return (_by_words(clean(explanation, ()).text) if detail in ("1.0", "7.1", "7.0") else None) or vague
    return _BY_CODE.get(code or "") or _by_words(clean(explanation, ()).text) or Category.UNKNOWN


def _suppresses(
    category: Category,
    by: str | None,
    told: str | None,
    code: str | None,
    words: Category | None,
    about: About,
    cleaned: Cleaned,
) -> bool:
    """Whether a permanent refusal says that this recipient does not exist."""
    if about not in (About.RECIPIENT, About.UNKNOWN):
        return False
    detail = (by or "").partition(".")[2]
    if category is Category.NO_SUCH_USER:
        if code == "551" and detail not in _NOT_THERE:  # RFC 5321 3.4: the recipient exists elsewhere
            return False
        if words is Category.NO_SUCH_USER:
            return _no_such_user().search(cleaned.text) is not None or (by == told and detail in _NOT_THERE)
        # A code alone. A report's own is often made of a bare 550, so its reply must not say anything beside.
        return detail in _NOT_THERE and (by == told or not cleaned.has_words)
    if category is Category.DOMAIN_NOT_FOUND:
        is_told = detail in _NOT_THERE or about is About.RECIPIENT or cleaned.names_recipient
        return is_told or _no_route().search(cleaned.text) is not None
    return False


def _by_words(text: str) -> Category | None:
    return next((category for category, words in _table() if words.search(text)), None)


def _of_a_range(detail: str) -> Category | None:
    """Microsoft numbers its block lists from 5.7.606 to 5.7.649."""
    subject, _, number = detail.partition(".")
    if subject == "7" and number.isdigit() and 600 <= int(number) < 650:
        return Category.BLOCKED
    return None


def _first_code(text: str) -> str | None:
    found = _CODE.search(text)
    return found.group(1) if found else None


def _told_code(text: str) -> str | None:
    """The enhanced code in a reply that says most."""
    found = [f"{match[1]}.{match[2]}" for match in _ENHANCED.finditer(text)]
    return next((each for each in found if not _says_nothing(each)), found[0] if found else None)


def _says_nothing(status: str) -> bool:
    return status.endswith(".0.0")


def _is_hard(category: Category, by: str | None, code: str | None, text: str, explanation: str) -> bool:
    digit = by[0] if by and not _says_nothing(by) else code[0] if code else by[0] if by else ""
    if code and code[0] == "4":
        return False
    if category in HARD:
        return digit != "4"
    if category is not Category.UNKNOWN:
        return False
    return digit == "5" or (not digit and bool(_FINAL.search(text) or _FINAL.search(explanation)))

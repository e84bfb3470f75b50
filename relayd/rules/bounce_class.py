"""Say what a bounce means: hard or soft, and of what kind. Data, read from top to bottom; the first match counts.

Hard: the address, or its domain, is no good, and nothing sent there will arrive. Soft: this message, this sender or
this moment was not. What is trusted, in this order: an enhanced code that the refusing server wrote into its reply,
the words of that reply, the report's own status, the reply's code, the words of the report.
"""

import re
from dataclasses import dataclass
from functools import cache

from relayd.rules import bounce_words
from relayd.rules.bounce_category import BounceKind, Category
from relayd.rules.bounce_words import expression

HARD = frozenset(
    {Category.NO_SUCH_USER, Category.INACTIVE, Category.DOMAIN_NOT_FOUND, Category.RELAYING, Category.LOOP}
)


@dataclass(frozen=True, slots=True)
class BounceClass:
    """`status` is the enhanced code that it was told by, if one."""

    kind: BounceKind
    category: Category
    status: str | None

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
    "1.8": Category.BLOCKED,
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
    "1.7": Category.SPAM_OR_POLICY,
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


@cache
def _table() -> tuple[tuple[Category, re.Pattern[str]], ...]:
    """The words. One that is more particular comes before one that is less. Compiled when a bounce is first read."""
    return (
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
        (Category.NO_SUCH_USER, expression(bounce_words.NO_SUCH_USER)),
        (Category.UNREACHABLE, expression(bounce_words.UNREACHABLE)),
        (Category.CONTENT, expression(bounce_words.CONTENT)),
        (Category.SPAM_OR_POLICY, expression(bounce_words.REFUSED)),
    )


_ENHANCED = re.compile(r"(?<![\d./v])([245])\.(\d{1,3}\.\d{1,3})(?![\d]|\.\d)")
_CODE = re.compile(r"(?<![\d.:/@-])([45][0-7]\d)(?=[ \-#]|\Z)")
_NULL_MX = re.compile(r"null ?mx", re.IGNORECASE)
_FINAL = re.compile(r"permanent|permanente|endgültig|définiti|fatal|final|failed permanently", re.IGNORECASE)
# An MTA writes these for any 550 of a server that gives no code of its own.
_DERIVED = frozenset({"1.1", "2.0", "2.1", "5.0", "5.1", "5.2", "5.4", "6.1", "1.2", "7.1", "1.0", "3.4", "2.2"})
# Refusals that come with a code made for an unknown user.
_STRONGER = frozenset({Category.MAILBOX_FULL, Category.TOO_LARGE, Category.BLOCKED, Category.AUTH})


def classify(status: str | None, diagnostic: str, explanation: str = "") -> BounceClass:
    """The class of a failed recipient: its status, the reply or reason told, and what the report says to a reader."""
    told = _told_code(diagnostic)
    if _NULL_MX.search(diagnostic):
        # RFC 7505 gives it 5.1.10, which Microsoft gives to users who do not exist.
        return BounceClass(BounceKind.HARD, Category.DOMAIN_NOT_FOUND, told or status)
    code = _CODE.search(diagnostic)
    category, by = _category(status, told, code.group(1) if code else None, diagnostic, explanation)
    is_hard = _is_hard(category, by, code, diagnostic, explanation)
    return BounceClass(BounceKind.HARD if is_hard else BounceKind.SOFT, category, by)


def _category(
    status: str | None, told: str | None, code: str | None, diagnostic: str, explanation: str
) -> tuple[Category, str | None]:
    words = _by_words(diagnostic)
    by = told if told and not _says_nothing(told) else status or told
    detail = (by or "").partition(".")[2]
    firm = _FIRM.get(detail) or _of_a_range(detail)
    if firm is not None and (by == told or words is None or detail not in _DERIVED):
        # `5.1.1 … mailbox full` is a code of habit and a word of meaning.
        return (words if firm is Category.NO_SUCH_USER and words in _STRONGER else firm), by
    if words is not None:
        return words, by
    vague = _VAGUE.get(detail) or _BY_SUBJECT.get(detail.partition(".")[0])
    if vague is not None and vague is not Category.UNKNOWN:
        # Whoever explains a vague code to a reader knows better.
        return (_by_words(explanation) if detail in ("1.0", "7.1", "7.0") else None) or vague, by
    return _BY_CODE.get(code or "") or _by_words(explanation) or Category.UNKNOWN, by


def _by_words(text: str) -> Category | None:
    text = text[:4000]
    return next((category for category, words in _table() if words.search(text)), None)


def _of_a_range(detail: str) -> Category | None:
    """Microsoft numbers its block lists from 5.7.606 to 5.7.649."""
    subject, _, number = detail.partition(".")
    if subject == "7" and number.isdigit() and 600 <= int(number) < 650:
        return Category.BLOCKED
    return None


def _told_code(diagnostic: str) -> str | None:
    """The enhanced code in a reply that says most."""
    found = [f"{match[1]}.{match[2]}" for match in _ENHANCED.finditer(diagnostic)]
    return next((each for each in found if not _says_nothing(each)), found[0] if found else None)


def _says_nothing(status: str) -> bool:
    return status.endswith(".0.0")


def _is_hard(category: Category, by: str | None, code: re.Match[str] | None, diagnostic: str, explanation: str) -> bool:
    digit = by[0] if by and not _says_nothing(by) else code.group(1)[0] if code else by[0] if by else ""
    if category in HARD:
        return digit != "4"
    if category is not Category.UNKNOWN:
        return False
    return digit == "5" or (not digit and bool(_FINAL.search(diagnostic) or _FINAL.search(explanation)))

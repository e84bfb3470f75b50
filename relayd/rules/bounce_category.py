"""The words for why a sent message came back. They stand apart from what finds them out, which is slow to load."""

from enum import StrEnum


class BounceKind(StrEnum):
    """email_queue.bounce_type."""

    HARD = "hard"
    SOFT = "soft"


class Category(StrEnum):
    """What kind of bounce."""

    NO_SUCH_USER = "no_such_user"
    INACTIVE = "inactive"
    DOMAIN_NOT_FOUND = "domain_not_found"
    RELAYING = "relaying"
    LOOP = "loop"
    MAILBOX_FULL = "mailbox_full"
    TOO_LARGE = "too_large"
    RATE_LIMITED = "rate_limited"
    AUTH = "auth"
    BLOCKED = "blocked"
    SPAM_OR_POLICY = "spam_or_policy"
    CONTENT = "content"
    UNREACHABLE = "unreachable"
    DELAYED = "delayed"
    UNKNOWN = "unknown"

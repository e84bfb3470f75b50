"""Which route a recipient's mail takes, and which share of a weighted list. Pure, and the same at every look."""

from collections.abc import Iterable, Sequence
from dataclasses import dataclass
from uuid import UUID

from relayd.mail.address import Address


@dataclass(frozen=True, slots=True)
class Choice:
    """An upstream of a list. `weight` None: of a list in order."""

    upstream_id: UUID
    weight: int | None


@dataclass(frozen=True, slots=True)
class RouteRule:
    """A route: what is None matches everything; its upstreams, the first one first."""

    id: UUID
    mailbox_id: UUID | None
    recipient_domain: str | None
    header_from: str | None
    choices: tuple[Choice, ...]


def route_for(rules: Iterable[RouteRule], *, mailbox_id: UUID, author: Address, recipient: Address) -> RouteRule | None:
    """The first of these rules, which are in their order, that the recipient's mail fits."""
    return next((rule for rule in rules if _fits(rule, mailbox_id, author, recipient)), None)


def share_of(queue_id: UUID, choices: Sequence[Choice]) -> UUID | None:
    """The upstream whose share of a weighted list a message falls into; None: the first one, or a list in order.

    The queue id alone decides, so that a message stays whole and a later look finds it where it is.
    """
    total = sum(choice.weight or 0 for choice in choices)
    if not total:
        return None
    # The end of a UUIDv7 is random.
    place = int.from_bytes(queue_id.bytes[-7:]) % total
    for choice in choices:
        place -= choice.weight or 0
        if place < 0:
            return None if choice is choices[0] else choice.upstream_id
    raise AssertionError("the places of a list are its weights")


def domain_matches(pattern: str, domain: str) -> bool:
    """`example.com` is that domain alone, `*.example.com` all below it."""
    if pattern.startswith("*."):
        return domain.endswith(pattern[1:])
    return domain == pattern


def _fits(rule: RouteRule, mailbox_id: UUID, author: Address, recipient: Address) -> bool:
    if rule.mailbox_id not in (None, mailbox_id):
        return False
    if rule.recipient_domain is not None and not domain_matches(rule.recipient_domain, recipient.ascii_domain.lower()):
        return False
    if rule.header_from is None:
        return True
    if "@" in rule.header_from:
        return author.key == rule.header_from
    return domain_matches(rule.header_from, author.ascii_domain.lower())

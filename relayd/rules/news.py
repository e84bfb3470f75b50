"""What a submitter is told of a recipient, and whether it wants to be (RFC 3461 4.1). Pure."""

from dataclasses import dataclass
from datetime import datetime
from enum import StrEnum
from uuid import UUID

from relayd.mail.address import Address
from relayd.rules.budget import LIMIT_REASONS
from relayd.rules.explain import Verdict, Where
from relayd.rules.facts import Facts
from relayd.rules.settlement import Settlement
from relayd.rules.states import Status

# RFC 3463 3.5: delivery time expired; congestion, which is what a limit looks like from outside.
EXPIRED = "4.4.7"
CONGESTED = "4.4.5"


class Action(StrEnum):
    """RFC 3464 2.3.3, those that a relay has to say."""

    FAILED = "failed"
    DELAYED = "delayed"
    RELAYED = "relayed"


# What NOTIFY calls each of them.
_KEYWORDS = {Action.FAILED: "FAILURE", Action.DELAYED: "DELAY", Action.RELAYED: "SUCCESS"}


@dataclass(frozen=True, slots=True)
class News:
    """What happened to one entry. `status` is enhanced (`5.1.1`), `diagnostic` a reply, code first, or a reason.

    `because` and `expected_at` go with a delay: why it waits, in words fit for its sender, and when it is to leave.
    """

    entry_id: UUID
    queue_id: UUID
    recipient: Address
    action: Action
    status: str
    diagnostic: str | None
    because: str | None = None
    expected_at: datetime | None = None
    retried_until: datetime | None = None


def is_wanted(action: Action, notify: str | None) -> bool:
    """Whether NOTIFY asks for it. Of who says nothing RFC 3461 5.2 wants failures told; delays are told as well."""
    if notify is None:
        return action is not Action.RELAYED
    return _KEYWORDS[action] in notify.split(",")


def of_settlement(entry_id: UUID, queue_id: UUID, recipient: Address, settlement: Settlement) -> News:
    """What is to be told of an entry that has ended."""
    cause = settlement.cause
    diagnostic = " ".join(part for part in (str(cause.code or ""), cause.text) if part)
    if settlement.status is Status.SENT:
        return News(entry_id, queue_id, recipient, Action.RELAYED, "2.0.0", diagnostic or None)
    if cause.enhanced and cause.enhanced.startswith("5"):
        status = cause.enhanced
    else:
        status = EXPIRED if settlement.reason.startswith("given up") else "5.0.0"
    return News(entry_id, queue_id, recipient, Action.FAILED, status, diagnostic or None)


def of_delay(
    entry_id: UUID,
    queue_id: UUID,
    recipient: Address,
    verdict: Verdict,
    facts: Facts,
    *,
    enhanced: str | None,
    diagnostic: str | None,
    retried_until: datetime | None,
) -> News:
    """What is to be told of an entry that waits; `enhanced` and `diagnostic` are of its latest attempt."""
    waits_for_time = verdict.where in (Where.LIMITED, Where.BLOCKED)
    is_known = facts.limits.estimate.is_known and not facts.entry.ahead_is_capped
    if enhanced and enhanced.startswith("4") and not waits_for_time:
        status = enhanced
    else:
        status = CONGESTED if waits_for_time else "4.0.0"
    return News(
        entry_id,
        queue_id,
        recipient,
        Action.DELAYED,
        status,
        diagnostic,
        because=_because(verdict, facts),
        expected_at=verdict.goes_at if waits_for_time and is_known else None,
        retried_until=retried_until,
    )


def _because(verdict: Verdict, facts: Facts) -> str:
    """Short and generic: names of upstreams and figures of limits are the operator's."""
    match verdict.where:
        case Where.LIMITED:
            reason = facts.lane.blocked_reason
            return f"It waits for the {reason if reason in LIMIT_REASONS else 'sending limit'} to free."
        case Where.BLOCKED:
            return "The next mail system has asked to wait."
        case Where.STOPPED:
            return "Sending is stopped for the time being."
        case _ if facts.entry.retry_count:
            return "It could not be delivered yet and is tried again."
        case _:
            return "It waits for its turn."

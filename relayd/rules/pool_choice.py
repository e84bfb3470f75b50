"""Which mailbox of a pool sends: one that may, with budget room, the best health, the least used share. Pure."""

from collections.abc import Mapping, Sequence
from dataclasses import dataclass

# Coarse: of two whose rates hardly differ the less used one sends.
SPAM_STEP = 0.001
BOUNCE_STEP = 0.02


@dataclass(frozen=True, slots=True)
class Standing:
    """How one member stands in one of its lanes. Units are recipients; rates None: nothing is known."""

    lane_id: int
    may_send: bool  # neither held nor blocked, and its upstream takes mail
    left: int | None  # what the tightest of its budgets leaves; None: unlimited
    limit: int | None  # of the budget that is used most
    used_share: float  # of that budget
    waiting: int  # entries in the lane
    spam_rate: float | None
    bounce_rate: float | None


def best(standings: Sequence[Standing], *, units: int, taken: Mapping[int, int]) -> int | None:
    """The index of the member that sends a message of so many recipients; None if there is no member.

    `taken` are units given to lanes since the standings were read. Where nobody may send or has room, the message
    waits with whoever has the least ahead of it.
    """
    ranked = [(_rank(standing, units, taken.get(standing.lane_id, 0)), at) for at, standing in enumerate(standings)]
    return min(ranked)[1] if ranked else None


def room(standing: Standing, taken: int = 0) -> int | None:
    """What it could send now beside all that waits in its lane; None: unlimited."""
    return None if standing.left is None else standing.left - standing.waiting - taken


def _rank(standing: Standing, units: int, taken: int) -> tuple[bool, bool, tuple[int, int], float, int]:
    left = room(standing, taken)
    is_full = left is not None and left < units
    share = standing.used_share
    if standing.limit is not None:
        share += (standing.waiting + taken) / max(standing.limit, 1)
    health = (0, 0) if is_full else _health(standing)
    return not standing.may_send, is_full, health, share, standing.waiting + taken


def _health(standing: Standing) -> tuple[int, int]:
    return int((standing.spam_rate or 0.0) / SPAM_STEP), int((standing.bounce_rate or 0.0) / BOUNCE_STEP)

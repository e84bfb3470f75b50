"""Decide when a deferred entry is tried again. Pure; the clock and the dice are passed in."""

from dataclasses import dataclass
from datetime import datetime, timedelta


@dataclass(frozen=True, slots=True)
class RetryPolicy:
    """Exponential: first delay, doubled after each attempt up to a longest one, given up after a while."""

    first_delay_seconds: float = 60
    longest_delay_seconds: float = 4 * 3600
    give_up_after_seconds: float = 5 * 86400
    jitter: float = 0.2  # of the delay, to either side
    max_retries: int = 50


def next_attempt_at(
    policy: RetryPolicy,
    *,
    attempts_spent: int,
    first_attempt_at: datetime,
    max_retries: int,
    now: datetime,
    dice: float,
) -> datetime | None:
    """When to try again after `attempts_spent` (>= 1) attempts; None to give up.

    Age counts from the first attempt, not from submission: waiting behind a limit must never turn mail into a
    bounce. `dice` is uniform in [0, 1).
    """
    if attempts_spent > max_retries:
        return None
    delay = min(policy.first_delay_seconds * 2.0 ** min(attempts_spent - 1, 32), policy.longest_delay_seconds)
    # Jitter, so that what failed together is not tried together.
    delay *= 1 + policy.jitter * (2 * dice - 1)
    at = now + timedelta(seconds=delay)
    if at > first_attempt_at + timedelta(seconds=policy.give_up_after_seconds):
        return None
    return at

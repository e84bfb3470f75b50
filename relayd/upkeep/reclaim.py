"""Take back claims whose holder is gone. What was never started is untried; what was started is in doubt."""

from collections.abc import Awaitable, Callable, Sequence

from relayd.rules.doubt import Way
from relayd.rules.outcome import Cause, Outcome, Postponed, Scope, Stage, Uncertain
from relayd.rules.relay_events import ClaimsInDoubt, ClaimsReturned, RelayEvent
from relayd.store.leases import LapsedClaim, lapsed
from relayd.store.pool import Database

BATCH = 500

Settle = Callable[[Sequence[tuple[LapsedClaim, Outcome]]], Awaitable[None]]


async def reclaim(
    database: Database,
    settle: Settle,
    *,
    emit: Callable[[RelayEvent], None],
    dead: Sequence[str] = (),
    living: Sequence[str] = (),
) -> int:
    """Settle every lapsed claim; `dead` and `living` are LIKE patterns over claimants. Returns how many there were."""
    total = 0
    while True:
        async with database.connection() as connection:
            claims = await lapsed(connection, dead=dead, living=living, limit=BATCH)
        if not claims:
            return total
        outcomes = [(claim, _outcome(claim)) for claim in claims]
        doubtful = sum(isinstance(outcome, Uncertain) for _, outcome in outcomes)
        if doubtful:
            emit(ClaimsInDoubt(doubtful))
        if doubtful < len(claims):
            emit(ClaimsReturned(len(claims) - doubtful, "holder died"))
        await settle(outcomes)
        total += len(claims)
        if len(claims) < BATCH:
            return total


def _outcome(claim: LapsedClaim) -> Outcome:
    if claim.started_at is None:
        text = f"not tried: {claim.claimed_by} is gone; it had claimed this and not begun"
        return Postponed(Scope.MESSAGE, Cause(Stage.LOCAL, text), 0)
    if claim.look_by is Way.REFERENCE and claim.reference is None:
        # What such an upstream has is sent only after its name was kept.
        text = f"not sent: {claim.claimed_by} is gone; it had begun and not yet handed anything over"
        return Postponed(Scope.MESSAGE, Cause(Stage.LOCAL, text), 0)
    text = f"{claim.claimed_by} is gone; it began at {claim.started_at:%Y-%m-%d %H:%M:%S} UTC and left no outcome"
    return Uncertain(Cause(Stage.DOT, text))

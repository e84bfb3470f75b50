"""Breakers: whether an upstream is used at all. One row an upstream, shared by all workers and nodes.

A breaker's row is locked before entries and lanes, in a transaction of its own: nobody waits for one with a lane held.
"""

from collections.abc import Sequence
from dataclasses import dataclass
from datetime import datetime
from uuid import UUID

from relayd.rules.breaker import BreakerState, BreakerTerms
from relayd.store.connection import Connection


@dataclass(frozen=True, slots=True)
class Breaker:
    """Of an upstream whose latest attempt failed. `due_in_seconds`: until a probe may begin; None: never by itself."""

    upstream_id: UUID
    state: BreakerState
    due_in_seconds: float | None


@dataclass(frozen=True, slots=True)
class Noted:
    """What a worker's attempts came to. `trailing`: failures since the last success; `reason`: of the latest one.

    How long ago: None if there was none.
    """

    attempts: int
    failures: int
    trailing: int
    succeeded_seconds_ago: float | None
    failed_seconds_ago: float | None
    reason: str | None


@dataclass(frozen=True, slots=True)
class Shown:
    """A breaker as an operator sees it; `retry_at` None where only somebody closes it.

    `last_failure` stays after a success; `consecutive_failures` is 0 then.
    """

    state: BreakerState
    reason: str | None
    opened_at: datetime | None
    retry_at: datetime | None
    consecutive_failures: int = 0
    last_failure: str | None = None
    last_failed_at: datetime | None = None


# Those whose upstream failed at its latest attempt: few. Index: none, a row an upstream that has ever failed.
FAILING = """
SELECT upstream_id, state,
       CASE state WHEN 'open' THEN CASE WHEN retry_at <> 'infinity' THEN extract(epoch FROM retry_at - relayd_now()) END
                  WHEN 'half_open' THEN extract(epoch FROM probing_until - relayd_now()) END::float8 AS due_in_seconds
  FROM upstream_breakers WHERE state <> 'closed' OR consecutive_failures > 0
"""

# $1 upstream, $2 attempts, $3 failed ones, $4 seconds after which what was counted is forgotten, $5 how many attempts
# are remembered, $6 failures since the last success, $7 seconds since that success, $8 the latest failure, $9 seconds
# since it. A worker tells of its successes late: one from before another worker's failure ends no row of failures.
# Index: upstream_breakers_pkey.
NOTE = """
INSERT INTO upstream_breakers AS b (upstream_id, client_id, counted_at, attempts, failures, consecutive_failures,
                                    last_failure, last_failed_at)
SELECT u.id, u.client_id, relayd_now(), $2, $3, $6, $8, relayd_now() - make_interval(secs => $9)
  FROM email_configurations u WHERE u.id = $1
ON CONFLICT (upstream_id) DO UPDATE
   SET consecutive_failures = EXCLUDED.consecutive_failures
         + CASE WHEN b.last_failed_at >= relayd_now() - make_interval(secs => $7) OR $7::float8 IS NULL
                THEN b.consecutive_failures ELSE 0 END,
       last_failure = COALESCE(EXCLUDED.last_failure, b.last_failure),
       last_failed_at = GREATEST(EXCLUDED.last_failed_at, b.last_failed_at),
       (counted_at, attempts, failures) = (
     SELECT EXCLUDED.counted_at, EXCLUDED.attempts + kept * b.attempts, EXCLUDED.failures + kept * b.failures
       FROM (SELECT CASE WHEN EXCLUDED.counted_at > b.counted_at + make_interval(secs => $4) OR b.attempts = 0 THEN 0
                         ELSE LEAST(1, GREATEST($5::float8 - EXCLUDED.attempts, 0) / b.attempts) END AS kept) part)
 WHERE b.state = 'closed'
"""

# $1 upstream, $2 reason, $3 failures that are too much, in a row or with $4 their share of the latest, $5 seconds.
# Index: upstream_breakers_pkey.
OPEN = """
UPDATE upstream_breakers
   SET state = 'open', reason = $2, opened_at = relayd_now(), retry_at = relayd_now() + make_interval(secs => $5),
       failed_probes = 0, attempts = 0, failures = 0
 WHERE upstream_id = $1 AND state = 'closed'
   AND (consecutive_failures >= $3::float8
        OR (failures >= $3::float8 - 0.001 AND failures >= $4::float8 * attempts))
RETURNING retry_at
"""

# At once, whatever was counted. $1 upstream, $2 reason, $3 seconds. Index: upstream_breakers_pkey.
TRIP = """
WITH clock AS (SELECT relayd_now() AS now)
INSERT INTO upstream_breakers AS b (upstream_id, client_id, state, reason, opened_at, retry_at, consecutive_failures,
                                    last_failure, last_failed_at)
SELECT u.id, u.client_id, 'open', $2, now, now + make_interval(secs => $3), 1, $2, now
  FROM email_configurations u, clock WHERE u.id = $1
ON CONFLICT (upstream_id) DO UPDATE
   SET state = 'open', reason = $2, opened_at = EXCLUDED.opened_at, retry_at = EXCLUDED.retry_at, failed_probes = 0,
       attempts = 0, failures = 0, consecutive_failures = b.consecutive_failures + 1, last_failure = $2,
       last_failed_at = EXCLUDED.last_failed_at
 WHERE b.state = 'closed'
RETURNING retry_at
"""

# An operator's word, with no end but another word of theirs. Index: upstream_breakers_pkey.
HOLD_OPEN = """
INSERT INTO upstream_breakers AS b (upstream_id, client_id, state, reason, opened_at, retry_at)
SELECT u.id, u.client_id, 'open', $2, relayd_now(), 'infinity' FROM email_configurations u WHERE u.id = $1
ON CONFLICT (upstream_id) DO UPDATE
   SET state = 'open', reason = $2, opened_at = COALESCE(b.opened_at, EXCLUDED.opened_at), retry_at = 'infinity',
       probing_by = NULL, probing_until = NULL
"""
CLOSE = """
UPDATE upstream_breakers
   SET state = 'closed', reason = NULL, opened_at = NULL, retry_at = NULL, probing_by = NULL, probing_until = NULL,
       failed_probes = 0, attempts = 0, failures = 0, consecutive_failures = 0
 WHERE upstream_id = $1 AND state <> 'closed' AND ($2::text IS NULL OR probing_by = $2)
RETURNING upstream_id
"""

# The probe failed: open again, for $4 seconds or twice as long as before, from $5 up to $6.
# $1 upstream, $2 the probing claim, $3 reason. Index: upstream_breakers_pkey.
REOPEN = """
UPDATE upstream_breakers
   SET state = 'open', reason = $3, probing_by = NULL, probing_until = NULL, failed_probes = failed_probes + 1,
       consecutive_failures = consecutive_failures + 1, last_failure = $3, last_failed_at = relayd_now(),
       retry_at = relayd_now() + make_interval(
         secs => COALESCE($4::float8, LEAST($5::float8 * 2 ^ LEAST(failed_probes + 1, 20), $6::float8)))
 WHERE upstream_id = $1 AND state = 'half_open' AND probing_by = $2
RETURNING retry_at
"""

# The probe never tried: another may, at once. $1 the probing claims, as LIKE patterns.
RELEASE = """
UPDATE upstream_breakers
   SET state = 'open', probing_by = NULL, probing_until = NULL, retry_at = LEAST(retry_at, relayd_now())
 WHERE state = 'half_open' AND probing_by LIKE ANY($1::text[])
"""

# Probes that will end no more: nothing of the claim is in flight, or its lease has run out; or the node is gone ($1:
# claims, as LIKE patterns). An attempt tells of its probe before it is settled. Index: email_queue_in_flight.
RELEASE_LOST = """
UPDATE upstream_breakers b
   SET state = 'open', probing_by = NULL, probing_until = NULL, retry_at = LEAST(b.retry_at, relayd_now())
 WHERE b.state = 'half_open'
   AND (b.probing_by LIKE ANY($1::text[])
        OR NOT EXISTS (SELECT FROM email_queue q
                        WHERE q.status = 'sending' AND q.claimed_by = b.probing_by
                          AND q.lease_expires_at > relayd_now()))
RETURNING b.upstream_id
"""

# Wins the probe if there is mail to make it with: a lane with something due that is at this upstream, would rather be,
# or has nowhere else to go. Waits for nobody. $1 upstream, $2 the claim that is to follow, $3 seconds that it may take.
# Indexes: upstream_breakers_pkey, mailbox_lanes_runnable, mailbox_lanes_away, mailbox_upstreams_upstream,
# mail_route_upstreams_upstream, mailbox_lanes_pkey.
BEGIN_PROBE = """
WITH clock AS MATERIALIZED (SELECT relayd_now() AS now),
breaker AS MATERIALIZED (
  SELECT b.upstream_id FROM upstream_breakers b, clock
   WHERE b.upstream_id = $1
     AND CASE b.state WHEN 'open' THEN b.retry_at <= clock.now ELSE b.probing_until <= clock.now END
     FOR NO KEY UPDATE OF b SKIP LOCKED),
candidate AS MATERIALIZED (
  (SELECT l.id FROM breaker, clock, mailbox_lanes l
    WHERE l.upstream_id = $1 AND NOT l.held AND l.runnable_at <= clock.now ORDER BY l.runnable_at LIMIT 20)
  UNION ALL
  (SELECT l.id FROM breaker, clock, mailbox_lanes l
    WHERE l.preferred_id = $1 AND l.preferred_id <> l.upstream_id AND NOT l.held AND l.runnable_at <= clock.now
    ORDER BY l.due_at LIMIT 20)
  UNION ALL
  (SELECT l.id FROM breaker, clock, mailbox_lanes l
    WHERE EXISTS (SELECT FROM upstream_breakers o WHERE o.upstream_id <> $1 AND o.state <> 'closed')
      AND l.id = ANY(relayd_lanes_of_upstream($1)) AND NOT l.held AND l.runnable_at <= clock.now AND l.upstream_id <> $1
      AND EXISTS (SELECT FROM relayd_ways(ARRAY[l.id]) w
                    JOIN relayd_ways(ARRAY[l.id]) is_at ON is_at.upstream_id = l.upstream_id
                   WHERE w.upstream_id = $1 AND w.is_allowed
                     AND (w.place < is_at.place OR NOT is_at.is_usable))
    LIMIT 20)),
lane AS MATERIALIZED (
  SELECT l.id, l.mailbox_id, l.class FROM mailbox_lanes l
   WHERE l.id IN (SELECT id FROM candidate) AND NOT l.held
   ORDER BY l.due_at LIMIT 1 FOR NO KEY UPDATE OF l SKIP LOCKED),
begun AS (
  UPDATE upstream_breakers b
     SET state = 'half_open', probing_by = $2, probing_until = clock.now + make_interval(secs => $3)
    FROM breaker, lane, clock WHERE b.upstream_id = breaker.upstream_id)
UPDATE mailbox_lanes l
   SET upstream_id = $1, budget_ids = relayd_budgets_of(l.mailbox_id, l.class, $1),
       blocked_until = '-infinity', blocked_reason = NULL, blocked_by = NULL
  FROM lane WHERE l.id = lane.id
RETURNING l.id
"""

# Index: upstream_breakers_pkey.
SHOW = """
SELECT state, reason, opened_at, NULLIF(retry_at, 'infinity') AS retry_at, consecutive_failures, last_failure,
       last_failed_at
  FROM upstream_breakers WHERE upstream_id = $1
"""


async def failing(connection: Connection) -> list[Breaker]:
    """Those of upstreams that failed at their latest attempt, and those that keep mail from their upstream."""
    rows = await connection.fetch(FAILING)
    return [Breaker(row["upstream_id"], BreakerState(row["state"]), row["due_in_seconds"]) for row in rows]


async def note(connection: Connection, upstream_id: UUID, noted: Noted, terms: BreakerTerms) -> datetime | None:
    """Count what came of attempts; if that opens the breaker, returns when it is tried next. In a transaction."""
    reason = None if noted.reason is None else noted.reason[:1000]
    await connection.execute(
        NOTE,
        upstream_id,
        noted.attempts,
        noted.failures,
        terms.window_seconds,
        terms.remembered,
        noted.trailing,
        noted.succeeded_seconds_ago,
        reason,
        noted.failed_seconds_ago,
    )
    if reason is None:
        return None
    opened: datetime | None = await connection.fetchval(
        OPEN, upstream_id, reason, terms.failures, terms.rate, terms.open_seconds
    )
    return opened


async def trip(connection: Connection, upstream_id: UUID, reason: str, seconds: float) -> datetime | None:
    """Open it at once; returns when it is tried next, None if it was not closed."""
    opened: datetime | None = await connection.fetchval(TRIP, upstream_id, reason[:1000], seconds)
    return opened


async def begin_probe(connection: Connection, upstream_id: UUID, claimant: str, seconds: float) -> int | None:
    """Make the next claim of this name the upstream's one probe, and give it a lane to take from; None if another has
    the probe, or there is nothing to try with. In the transaction of the claim, and roll back if it takes nothing.
    """
    lane_id: int | None = await connection.fetchval(BEGIN_PROBE, upstream_id, claimant, seconds)
    return lane_id


async def close(connection: Connection, upstream_id: UUID, *, probing_by: str | None = None) -> bool:
    """Use it again: since that probe succeeded, or, None, because somebody says so. Whether that changed anything."""
    return await connection.fetchval(CLOSE, upstream_id, probing_by) is not None


async def reopen(
    connection: Connection,
    upstream_id: UUID,
    probing_by: str,
    reason: str,
    *,
    hold_seconds: float | None,
    terms: BreakerTerms,
) -> datetime | None:
    """That probe failed; returns when the next may be, None if it was not the probe any more."""
    opened: datetime | None = await connection.fetchval(
        REOPEN, upstream_id, probing_by, reason[:1000], hold_seconds, terms.open_seconds, terms.open_longest_seconds
    )
    return opened


async def release(connection: Connection, probing_by: Sequence[str]) -> None:
    """These claims (LIKE patterns) will not try after all."""
    await connection.execute(RELEASE, list(probing_by))


async def release_lost(connection: Connection, dead: Sequence[str]) -> int:
    """Let another probe begin where nobody will tell of the one under way; returns how many. `dead`: claims (LIKE
    patterns) of nodes that are gone.
    """
    return len(await connection.fetch(RELEASE_LOST, list(dead)))


async def hold_open(connection: Connection, upstream_id: UUID, reason: str) -> None:
    """Keep all mail from it until somebody closes it."""
    await connection.execute(HOLD_OPEN, upstream_id, reason[:1000])


async def show(connection: Connection, upstream_id: UUID) -> Shown:
    """As it stands."""
    row = await connection.fetchrow(SHOW, upstream_id)
    if row is None:
        return Shown(BreakerState.CLOSED, None, None, None)
    return Shown(**{**dict(row), "state": BreakerState(row["state"])})

"""Write what attempts came to: the entries' new states, their log rows, budget and lanes. One transaction a batch.

Most batches hold nothing but deliveries. They change neither budget nor lanes, and are one statement.
"""

from collections.abc import Iterator, Sequence
from dataclasses import dataclass
from datetime import datetime
from uuid import UUID

import asyncpg

from relayd.rules.settlement import Settlement
from relayd.rules.states import Status
from relayd.store import budget, lanes, steering, taught_quota, windows

Connection = asyncpg.Connection | asyncpg.pool.PoolConnectionProxy


@dataclass(frozen=True, slots=True)
class Result:
    """What one attempt made of one entry."""

    entry_id: UUID
    fence: int
    claimed_by: str
    provider: str
    settlement: Settlement
    only_if_unstarted: bool = False  # who settles it is not its holder, and saw no start
    only_if_unreferenced: bool = False  # as that, and saw no reference


# Applied while the claim is ours, or when it was taken back but no newer attempt has begun (a late result: it wins only
# if it is final). Everything is logged, applied or not. An entry that holds a unit of a calendar window which has
# turned is reported instead of settled: what ends in the new window has to be counted there first. So is, where the
# statement stands alone ($18), one of a rolling window, which has to learn when to free the unit, and a result that
# overtakes a newer claim, whose units have to be returned with it. Indexes: email_queue_pkey, budgets_pkey.
SETTLE = """
WITH clock AS MATERIALIZED (SELECT relayd_now() AS now),
given AS MATERIALIZED (
  SELECT * FROM unnest($1::uuid[], $2::int[], $3::text[], $4::text[], $5::text[], $6::text[], $7::timestamptz[],
                       $8::bool[], $9::bool[], $10::text[], $11::text[], $12::int[], $13::text[], $14::text[],
                       $15::text[], $16::text[], $17::bool[], $19::text[], $20::timestamptz[], $21::bool[], $22::bool[])
    AS t (id, fence, status, event, reason, pending_reason, next_attempt_at, spends_attempt, returns_unit,
          provider_message_id, stage, error_code, enhanced_code, error_message, provider, claimed_by,
          only_if_unstarted, bounce_type, look_at, only_if_unreferenced, upstream_failed)),
target AS MATERIALIZED (
  SELECT g.*, q.client_id, q.message_id, q.mailbox_id, q.lane_id, q.upstream_id, q.reserved_budgets,
         q.status <> 'sending' OR q.fence <> g.fence AS late, q.fence <> g.fence AS overtakes,
         (q.fence = g.fence AND (q.status IN ('queued', 'pending')
                                 OR (q.status = 'sending' AND q.claimed_by = g.claimed_by
                                     AND (q.attempt_started_at IS NULL OR NOT g.only_if_unstarted)
                                     AND (q.provider_reference IS NULL OR NOT g.only_if_unreferenced))))
           OR (q.fence = g.fence + 1 AND q.status IN ('sending', 'queued', 'pending')
               AND q.attempt_started_at IS NULL) AS open
    FROM given g JOIN email_queue q ON q.id = g.id
   ORDER BY q.id FOR NO KEY UPDATE OF q),
barrier AS MATERIALIZED (
  SELECT b.id FROM budgets b, clock
   WHERE b.id IN (SELECT unnest(reserved_budgets) FROM target)
     AND CASE WHEN b.is_rolling THEN $18 ELSE b.turns_at <= clock.now END),
left_over AS MATERIALIZED (
  SELECT t.id FROM target t
   WHERE ($18 AND t.overtakes) OR EXISTS (SELECT FROM barrier WHERE barrier.id = ANY(t.reserved_budgets))),
settled AS (
  UPDATE email_queue q
     SET status = t.status, reason = t.reason, pending_reason = t.pending_reason,
         retry_count = q.retry_count + (t.spends_attempt AND NOT t.late)::int,
         next_attempt_at = COALESCE(t.next_attempt_at, q.next_attempt_at),
         claimed_by = NULL, lease_expires_at = NULL, updated_at = clock.now,
         reserved_budgets = NULL, look_at = t.look_at, upstream_failed = NULLIF(t.upstream_failed, false),
         provider_message_id = COALESCE(t.provider_message_id, q.provider_message_id),
         sent_at = CASE WHEN t.status = 'sent' THEN clock.now END,
         failed_at = CASE WHEN t.status = 'failed' THEN clock.now END,
         bounced_at = CASE WHEN t.status = 'bounced' THEN clock.now END,
         bounce_type = t.bounce_type,
         bounce_reason = CASE WHEN t.status = 'bounced' THEN t.reason END
    FROM target t, clock
   WHERE q.id = t.id AND t.open AND (NOT t.late OR t.status IN ('sent', 'failed', 'bounced'))
     AND NOT EXISTS (SELECT FROM left_over WHERE left_over.id = t.id)
  RETURNING q.id),
logged AS (
  INSERT INTO email_delivery_logs (client_id, message_id, entry_id, event, attempt, late, stage, error_code,
                                   enhanced_code, error_message, provider, upstream_id, created_at, updated_at)
  SELECT t.client_id, t.message_id, t.id, t.event, t.fence, t.late OR NOT t.open, t.stage, t.error_code,
         t.enhanced_code, t.error_message, t.provider, t.upstream_id, now, now
    FROM target t, clock
   WHERE NOT EXISTS (SELECT FROM left_over WHERE left_over.id = t.id))
SELECT t.id, t.mailbox_id, t.lane_id, t.reserved_budgets, t.overtakes, left_over.id IS NOT NULL AS is_left,
       settled.id IS NOT NULL AS applied
  FROM target t LEFT JOIN left_over ON left_over.id = t.id LEFT JOIN settled ON settled.id = t.id
"""


async def settle(connection: Connection, results: Sequence[Result]) -> set[UUID]:
    """Apply a batch; returns the entries whose state it changed. Call inside a transaction.

    The others were late (their row says so in the log) or are gone.
    """
    applied: set[UUID] = set()
    for once in _once_each(results):
        applied |= await _settle(connection, once)
    return applied


async def settle_sent(connection: Connection, results: Sequence[Result]) -> list[Result]:
    """Apply a batch of deliveries alone, outside a transaction: it has committed on return.

    Returns those that `settle` must apply, since more than the entry changes with them.
    """
    assert all(result.settlement.status is Status.SENT for result in results)
    by_id = {result.entry_id: result for result in results}
    if len(by_id) < len(results):
        return list(results)
    rows = await _apply(connection, results, is_alone=True)
    return [by_id[row["id"]] for row in rows if row["is_left"]]


def _once_each(results: Sequence[Result]) -> Iterator[list[Result]]:
    """Batches without a repetition: of two rows for one entry an UPDATE takes one, and both would look applied."""
    rest = list(results)
    while rest:
        first: dict[UUID, Result] = {}
        repeated = [result for result in rest if first.setdefault(result.entry_id, result) is not result]
        yield list(first.values())
        rest = repeated


async def _settle(connection: Connection, results: Sequence[Result]) -> set[UUID]:
    by_id = {result.entry_id: result for result in results}
    rows = await _apply(connection, results, is_alone=False)
    while again := [by_id[row["id"]] for row in rows if row["is_left"]]:
        # All that the batch will want, in one order.
        held = {budget_id for row in rows for budget_id in row["reserved_budgets"] or ()}
        await windows.lock_and_roll(connection, sorted(held))
        rows = [row for row in rows if not row["is_left"]] + await _apply(connection, again, is_alone=False)
    applied = [row for row in rows if row["applied"]]
    failed = [row["id"] for row in applied if by_id[row["id"]].settlement.upstream_failed]
    moved = await steering.fail_over(connection, failed) if failed else {}
    await _budget_and_lanes(connection, by_id, applied, moved)
    return {row["id"] for row in applied}


async def _budget_and_lanes(
    connection: Connection,
    by_id: dict[UUID, Result],
    applied: Sequence[asyncpg.Record],
    moved: dict[UUID, tuple[int, datetime]],
) -> None:
    ended = budget.Ended()
    spent = taught_quota.Lessons()
    due = []
    parked = {}
    for row in applied:
        settlement = by_id[row["id"]].settlement
        if row["reserved_budgets"]:
            ended.add(row["reserved_budgets"], is_returned=settlement.returns_unit or row["overtakes"])
            if settlement.spent_limit:
                spent.add(row["mailbox_id"], row["reserved_budgets"], settlement.spent_limit, settlement.reason)
        if settlement.status is Status.QUEUED and settlement.next_attempt_at:
            due.append(moved.get(row["id"], (row["lane_id"], settlement.next_attempt_at)))
        if settlement.blocks_mailbox_until:
            parked[row["mailbox_id"]] = settlement
    await budget.settle_units(connection, ended)
    freed_at = await taught_quota.learn(connection, spent)
    if due:
        await lanes.requeue(connection, due)
    for mailbox_id, settlement in sorted(parked.items()):
        assert settlement.blocks_mailbox_until
        until = min(settlement.blocks_mailbox_until, freed_at.get(mailbox_id, settlement.blocks_mailbox_until))
        await lanes.park(connection, mailbox_id, until, settlement.reason)


async def _apply(connection: Connection, results: Sequence[Result], *, is_alone: bool) -> list[asyncpg.Record]:
    settlements = [result.settlement for result in results]
    rows: list[asyncpg.Record] = await connection.fetch(
        SETTLE,
        [result.entry_id for result in results],
        [result.fence for result in results],
        [s.status for s in settlements],
        [s.event for s in settlements],
        [s.reason for s in settlements],
        [s.pending_reason for s in settlements],
        [s.next_attempt_at for s in settlements],
        [s.spends_attempt for s in settlements],
        [s.returns_unit for s in settlements],
        [s.provider_message_id for s in settlements],
        [s.cause.stage for s in settlements],
        [s.cause.code for s in settlements],
        [s.cause.enhanced for s in settlements],
        [s.cause.text[:1000] for s in settlements],
        [result.provider for result in results],
        [result.claimed_by for result in results],
        [result.only_if_unstarted for result in results],
        is_alone,
        [s.bounce.kind if s.bounce else None for s in settlements],
        [s.look_at for s in settlements],
        [result.only_if_unreferenced for result in results],
        [s.upstream_failed for s in settlements],
    )
    return rows

"""Stop sending and start again: everything, a mailbox, an upstream. Doing it twice changes nothing.

What is in flight ends by itself. The caller's transaction has set `relayd.actor`.
"""

from dataclasses import dataclass
from datetime import datetime

from relayd.errors import Refusal
from relayd.store import lanes, mailboxes, operation_audit, upstreams
from relayd.store.connection import Connection


@dataclass(frozen=True, slots=True)
class PauseChange:
    """How it stands now, and whether this call made it so. `since` None: not known (a mailbox), or not paused."""

    changed: bool
    paused: bool
    since: datetime | None
    reason: str | None


# The one row; locked, so that two operators see each other's doing.
ALL_STATE = "SELECT paused_at, paused_reason, relayd_now() AS now FROM relayd_state FOR UPDATE"
PAUSE_ALL = "UPDATE relayd_state SET paused_at = $1, paused_reason = $2"
RESUME_ALL = "UPDATE relayd_state SET paused_at = NULL, paused_reason = NULL"

# Index: email_mailboxes_pkey. The trigger holds its lanes, or lets them go.
PAUSE_MAILBOX = "UPDATE email_mailboxes SET status = 'paused', status_reason = $2 WHERE id = $1"
# What an operator lets go on is judged by what comes from tomorrow on.
RESUME_MAILBOX = """
UPDATE email_mailboxes
   SET status = CASE WHEN warmup_enabled AND warmup_completed_at IS NULL THEN 'warming' ELSE 'active' END,
       status_reason = NULL, judged_from = (relayd_now() AT TIME ZONE time_zone)::date + 1
 WHERE id = $1
"""
# Index: mailbox_lanes_mailbox_id_class_key.
MAILBOX_LANES = "SELECT id, relayd_now() AS now FROM mailbox_lanes WHERE mailbox_id = $1"

# Index: email_configurations_pkey.
PAUSE_UPSTREAM = """
UPDATE email_configurations SET paused_at = relayd_now(), paused_reason = $2, updated_by = relayd_actor() WHERE id = $1
RETURNING paused_at
"""
RESUME_UPSTREAM = """
UPDATE email_configurations SET paused_at = NULL, paused_reason = NULL, updated_by = relayd_actor() WHERE id = $1
"""


async def pause_all(connection: Connection, reason: str) -> PauseChange:
    """Nothing is claimed any more. One that is paused already keeps its first reason."""
    state = await connection.fetchrow(ALL_STATE)
    assert state is not None
    if state["paused_at"] is not None:
        return PauseChange(False, True, state["paused_at"], state["paused_reason"])
    await connection.execute(PAUSE_ALL, state["now"], reason)
    # This row has no trigger: the clock's offset and the seal's check are no configuration.
    await operation_audit.record(connection, "relayd_state", "pause everything", {"reason": reason})
    return PauseChange(True, True, state["now"], reason)


async def resume_all(connection: Connection) -> PauseChange:
    """Claims go on."""
    state = await connection.fetchrow(ALL_STATE)
    assert state is not None
    if state["paused_at"] is None:
        return PauseChange(False, False, None, None)
    await connection.execute(RESUME_ALL)
    await operation_audit.record(
        connection, "relayd_state", "resume everything", {"paused_reason": state["paused_reason"]}
    )
    return PauseChange(True, False, None, None)


async def pause_mailbox(connection: Connection, address: str, reason: str) -> PauseChange:
    """Nothing leaves this mailbox; it still takes mail. Raises Refusal if it is suspended."""
    mailbox = await mailboxes.find_to_change(connection, address)
    if mailbox.status == "paused":
        return PauseChange(False, True, None, mailbox.status_reason)
    if mailbox.status == "suspended":
        raise Refusal(f"mailbox {mailbox.email_address} is suspended, which stops it already")
    await connection.execute(PAUSE_MAILBOX, mailbox.id, reason)
    return PauseChange(True, True, None, reason)


async def resume_mailbox(connection: Connection, address: str) -> PauseChange:
    """The mailbox sends again. Raises Refusal if it is suspended: that is not undone in passing."""
    mailbox = await mailboxes.find_to_change(connection, address)
    if mailbox.status == "suspended":
        raise Refusal(
            f"mailbox {mailbox.email_address} is suspended, not paused",
            hint=f"relayd mailbox set {mailbox.email_address} --status active",
        )
    if mailbox.status != "paused":
        return PauseChange(False, False, None, None)
    await connection.execute(RESUME_MAILBOX, mailbox.id)
    rows = await connection.fetch(MAILBOX_LANES, mailbox.id)
    await lanes.requeue(connection, [(row["id"], row["now"]) for row in rows])
    return PauseChange(True, False, None, None)


async def pause_upstream(connection: Connection, name: str, reason: str) -> PauseChange:
    """Nothing goes to this upstream."""
    upstream = await upstreams.find_to_change(connection, name)
    if upstream.paused_at is not None:
        return PauseChange(False, True, upstream.paused_at, upstream.paused_reason)
    paused_at = await connection.fetchval(PAUSE_UPSTREAM, upstream.id, reason)
    return PauseChange(True, True, paused_at, reason)


async def resume_upstream(connection: Connection, name: str) -> PauseChange:
    """Its lanes kept their times, so what is due goes at once."""
    upstream = await upstreams.find_to_change(connection, name)
    if upstream.paused_at is None:
        return PauseChange(False, False, None, None)
    await connection.execute(RESUME_UPSTREAM, upstream.id)
    return PauseChange(True, False, None, None)

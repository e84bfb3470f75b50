"""Each function here plants one bug in this process. It raises if what it changes no longer looks as it did."""

import asyncio
from collections.abc import Callable, Sequence
from contextvars import ContextVar
from dataclasses import replace
from types import ModuleType
from typing import Any

from relayd.delivery import settler
from relayd.delivery.settler import Settler
from relayd.intake.door import Door
from relayd.rules.outcome import Uncertain
from relayd.store import attempts, lanes, queue, settlement
from relayd.store.connection import Connection, Connector
from relayd.store.pool import Database

# Long enough for a reply to leave.
HEAD_START_SECONDS = 0.05


def acknowledge_before_commit() -> None:
    """250 first, then the commit."""
    commit = Door._commit
    under_way = set()

    async def late(door: Door, messages: Sequence[queue.NewMessage]) -> None:
        await asyncio.sleep(HEAD_START_SECONDS)
        await commit(door, messages)

    async def early(door: Door, messages: Sequence[queue.NewMessage]) -> list[None]:
        task = asyncio.create_task(late(door, messages))
        under_way.add(task)
        task.add_done_callback(under_way.discard)
        return [None] * len(messages)

    Door._commit = early  # type: ignore[method-assign]


def no_wait_for_the_disk() -> None:
    """synchronous_commit is off everywhere."""
    connect = Connector.__init__

    def lax(connector: Connector, *arguments: Any, **settings: Any) -> None:
        settings["server_settings"] = {**(settings.get("server_settings") or {}), "synchronous_commit": "off"}
        connect(connector, *arguments, **settings)

    Connector.__init__ = lax  # type: ignore[method-assign]


def drop_late_results() -> None:
    """A result that comes after its lease was given away is neither logged nor used."""
    _rewrite(
        settlement,
        "SETTLE",
        "FROM given g JOIN email_queue q ON q.id = g.id",
        "FROM given g JOIN email_queue q ON q.id = g.id AND q.fence = g.fence AND q.status = 'sending'",
    )


def short_lease() -> None:
    """A started attempt is taken for dead after a second."""
    _rewrite(attempts, "START", "make_interval(secs => $3)", "make_interval(secs => $3 * 0 + 1)")


def refund_doubts() -> None:
    """The unit of an attempt that may have delivered is given back."""
    decide = settler.decide

    def generous(outcome: Any, *arguments: Any, **settings: Any) -> Any:
        decided = decide(outcome, *arguments, **settings)
        return replace(decided, returns_unit=True) if isinstance(outcome, Uncertain) else decided

    settler.decide = generous


def bounce_on_its_own() -> None:
    """The DSN of a failure is committed apart from the failure."""
    commit, enqueue = Settler._commit, queue.enqueue
    settling: ContextVar[Database | None] = ContextVar("settling", default=None)

    async def commit_apart(self: Settler, transactions: Any) -> list[None]:
        settling.set(self._database)
        return await commit(self, transactions)

    async def enqueue_apart(connection: Connection, messages: Any) -> None:
        database = settling.get()
        if database is None:
            await enqueue(connection, messages)
            return
        async with database.connection() as another:
            await enqueue(another, messages)

    Settler._commit = commit_apart  # type: ignore[method-assign]
    queue.enqueue = enqueue_apart


def idle_by_an_old_look() -> None:
    """A lane sleeps if its claim's snapshot showed nothing, whatever has been committed before the lane was locked."""
    _rewrite(
        lanes,
        "RESCHEDULE",
        "WHERE q.lane_id = x.id AND q.status = 'queued'",
        "WHERE q.lane_id = x.id AND q.status = 'queued' AND q.updated_at <= now()",
    )


def _rewrite(module: ModuleType, constant: str, old: str, new: str) -> None:
    text: str = getattr(module, constant)
    if text.count(old) != 1:
        raise ValueError(f"{module.__name__}.{constant} has {text.count(old)} times: {old}")
    setattr(module, constant, text.replace(old, new))


BUGS: dict[str, Callable[[], None]] = {
    "acknowledge-before-commit": acknowledge_before_commit,
    "no-wait-for-the-disk": no_wait_for_the_disk,
    "drop-late-results": drop_late_results,
    "short-lease": short_lease,
    "refund-doubts": refund_doubts,
    "bounce-on-its-own": bounce_on_its_own,
    "idle-by-an-old-look": idle_by_an_old_look,
}

"""An attempt that is cut off, by its time or by a stop, says how far it came: only what may have gone is uncertain."""

import asyncio
from typing import Any

import asyncpg
import pytest

from relayd.rules.outcome import Stage
from relayd.store.pool import Database
from relayd.upstream.smarthost import Smarthost
from tests.builders import Sender, make_sender, put
from tests.conftest import at_length
from tests.integration.delivering import delivering
from tests.peers.mail import settings
from tests.peers.smtp_server import Action, Drip, HalfBody, Hang, ScriptedServer, StopReading

LARGE = b"From: app@example.com\r\nSubject: large\r\n\r\n" + b"0123456789abcde\r\n" * 1_000_000
SMALL = b"From: app@example.com\r\nSubject: small\r\n\r\nhello\r\n"


@pytest.fixture
async def sender(db: Database) -> Sender:
    async with db.connection() as connection:
        return await make_sender(connection)


async def outcome(db: Database) -> asyncpg.Record:
    """Of the attempt's end, once it has one."""
    async with asyncio.timeout(30), db.connection() as connection:
        while True:
            row = await connection.fetchrow(
                "SELECT l.event, l.stage, q.status, q.retry_count FROM email_delivery_logs l"
                " JOIN email_queue q ON q.id = l.entry_id"
                " WHERE l.event IN ('deferred', 'postponed', 'uncertain', 'failed', 'bounced', 'sent')"
                " ORDER BY l.id LIMIT 1"
            )
            if row is not None:
                return row
            await asyncio.sleep(0.05)


CASES: list[tuple[Stage, Action | list[Action], bytes, str]] = [
    (Stage.CONNECT, Hang(), SMALL, "connect"),
    (Stage.EHLO, Hang(), SMALL, "connect"),
    (Stage.MAIL, Hang(), SMALL, "mail"),
    (Stage.MAIL, Drip(), SMALL, "mail"),
    (Stage.RCPT, Hang(), SMALL, "rcpt"),
    (Stage.RCPT, ["250 ok", Drip()], SMALL, "rcpt"),
    (Stage.DATA, Hang(), SMALL, "data"),
    (Stage.DATA, StopReading(), LARGE, "data"),
    (Stage.DOT, Hang(), SMALL, "dot"),
    (Stage.DATA, HalfBody(1000, Hang()), LARGE, "dot"),  # it reads on, swallows the dot, and says nothing
]


@pytest.mark.parametrize("is_stopped", [False, True], ids=["time", "stop"])
@pytest.mark.parametrize("is_pipelining", [False, pytest.param(True, marks=at_length)])
@pytest.mark.parametrize(("stage", "action", "content", "reached"), CASES, ids=lambda value: str(value)[:20])
async def test_only_what_may_have_gone_is_uncertain(
    db: Database,
    sender: Sender,
    stage: Stage,
    action: Any,
    content: bytes,
    reached: str,
    is_pipelining: bool,
    is_stopped: bool,
) -> None:
    async with ScriptedServer({stage: action}) as server:
        if is_pipelining:
            server.extensions.append("PIPELINING")
        async with delivering(
            db, sender, lambda: Smarthost(settings(server.port)), attempt_seconds=600 if is_stopped else 0.7
        ):
            async with db.connection() as connection:
                await put(connection, sender, "one@example.net", "two@example.net", content=content)
            if is_stopped:
                await server.until(lambda: bool(server.sessions))
                await asyncio.sleep(0.5)
            else:
                row = await outcome(db)
        if is_stopped and reached == "dot":
            async with db.connection() as connection:
                assert await connection.fetchval("SELECT status FROM email_queue LIMIT 1") == "sending"
            return  # whoever takes back its claims says that it is uncertain
        row = await outcome(db)
    if is_stopped and reached == "connect":
        reached = "local"  # the pool of connections has given it back untried
    assert row["event"] == ("uncertain" if reached == "dot" else "postponed" if is_stopped else "deferred")
    assert (row["stage"], row["status"]) == (reached, "queued")
    assert row["retry_count"] == (0 if is_stopped else 1)

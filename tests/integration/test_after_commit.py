"""What follows a commit may fail; what was committed stays, is answered as such, and is done once."""

import asyncio
from typing import Any

import pytest

from relayd.rules.outcome import Stage
from relayd.rules.relay_events import Accepted, AttemptEnded, AttemptStarted, BatchCommitted
from relayd.store.pool import Database
from relayd.upstream.smarthost import Smarthost
from tests.builders import make_sender, put
from tests.integration.delivering import delivering
from tests.integration.test_door import Entrance, entrance
from tests.peers.mail import settings
from tests.peers.smtp_server import ScriptedServer

__all__ = ["entrance"]


class Failing(list[Any]):
    """Events that cannot be recorded, if they are of this kind."""

    def __init__(self, *kinds: type) -> None:
        super().__init__()
        self._kinds = kinds

    def append(self, event: Any) -> None:
        super().append(event)
        if isinstance(event, self._kinds):
            raise OSError("no space left on device")


@pytest.mark.parametrize("kind", [BatchCommitted, Accepted, object])
async def test_an_event_that_cannot_be_recorded_refuses_no_message(entrance: Entrance, kind: type) -> None:
    entrance.door._emit = Failing(kind).append
    replies = await asyncio.gather(*(entrance.accept(f"X-Number: {number}") for number in range(20)))
    assert [reply[:3] for reply in replies] == ["250"] * 20
    await entrance.door.drain()
    async with entrance.db.connection() as connection:
        assert await connection.fetchval("SELECT count(*) FROM messages") == 20
        assert await connection.fetchval("SELECT count(*) FROM mailbox_lanes WHERE due_at <= relayd_now()") == 1


@pytest.mark.parametrize("kind", [BatchCommitted, AttemptStarted, AttemptEnded, object])
@pytest.mark.parametrize("answer", ["250 ok", "550 5.1.1 no such user"])
async def test_an_event_that_cannot_be_recorded_stops_no_delivery(db: Database, kind: type, answer: str) -> None:
    async with db.connection() as connection:
        sender = await make_sender(connection)
    async with ScriptedServer({Stage.RCPT: answer}) as server:
        async with delivering(db, sender, lambda: Smarthost(settings(server.port)), emit=Failing(kind).append):
            async with db.connection() as connection:
                for number in range(3):
                    await put(connection, sender, f"u{number}@example.net")
            await _until_done(db)
        async with db.connection() as connection:
            ends = await connection.fetch(
                "SELECT entry_id, count(*) AS many FROM email_delivery_logs"
                " WHERE event IN ('sent', 'bounced') GROUP BY entry_id"
            )
        assert [row["many"] for row in ends] == [1, 1, 1]
        assert len(server.messages) == (3 if answer == "250 ok" else 0)


async def _until_done(db: Database) -> None:
    async with asyncio.timeout(20), db.connection() as connection:
        while await connection.fetchval("SELECT count(*) FROM email_queue WHERE status IN ('queued', 'sending')"):
            await asyncio.sleep(0.05)

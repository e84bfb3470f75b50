"""Events are read in order and without a gap, whoever commits when."""

import asyncio
import json
from datetime import timedelta

from relayd.store import client_events
from relayd.store.client_events import EventKind, NewClientEvent
from relayd.store.connection import Connection
from relayd.store.pool import Database
from relayd.upkeep.prune import prune
from tests.builders import Sender, make_sender
from tests.integration.conftest import Control


def event(sender: Sender, name: str, kind: EventKind = EventKind.BOUNCED) -> NewClientEvent:
    return NewClientEvent(sender.client_id, kind, None, None, f"{name}@example.net", {"status": "5.1.1"})


async def read(connection: Connection, sender: Sender, after: int = 0) -> list[tuple[int, str]]:
    found = await client_events.after(connection, sender.client_id, after, kinds=None, limit=100)
    return [(each.id, str(each.recipient)[0]) for each in found]


async def test_who_has_read_up_to_an_event_has_missed_none_before_it(db: Database) -> None:
    async with db.connection() as connection:
        acme = await make_sender(connection)
        rival = await make_sender(connection, "boss@rival.example", client="rival")

    async def second() -> None:
        async with db.transaction() as connection:
            await client_events.add(connection, [event(acme, "b")])

    async with db.connection() as first:
        under_way = first.transaction()
        await under_way.start()
        await client_events.add(first, [event(acme, "a")])
        waiting = asyncio.create_task(second())
        async with db.transaction() as connection:
            await client_events.add(connection, [event(rival, "r")])  # of another client: nobody waits
        async with db.connection() as reader:
            while not await reader.fetchval(
                "SELECT count(*) FROM pg_locks WHERE locktype = 'advisory' AND NOT granted"
            ):
                assert not waiting.done(), "it overtook one that had drawn its id before"
            assert await read(reader, acme) == []
            await under_way.commit()
            await waiting
            (one, two) = await read(reader, acme)
            assert (one[1], two[1]) == ("a", "b") and await read(reader, acme, one[0]) == [two]
            assert [name for _, name in await read(reader, rival)] == ["r"]


async def test_events_are_listed_from_where_a_program_has_come_to(control: Control) -> None:
    async with control.db.transaction() as connection:
        sender = await make_sender(connection)
        await client_events.add(
            connection, [event(sender, "a"), event(sender, "b", EventKind.DELAYED), event(sender, "c")]
        )
    page = await control.ok("GET", "events", params={"client": "acme", "limit": 2})
    assert [each["recipient"][0] for each in page["items"]] == ["a", "b"]
    rest = await control.ok("GET", "events", params={"client": "acme", "after": page["last"]})
    assert [each["recipient"][0] for each in rest["items"]] == ["c"]
    nothing = await control.ok("GET", "events", params={"client": "acme", "after": rest["last"]})
    assert nothing == {"items": [], "last": rest["last"]}
    delayed = await control.ok("GET", "events", params={"client": "acme", "kinds": "delayed"})
    assert [each["recipient"][0] for each in delayed["items"]] == ["b"]
    ran = await control.cli("event", "list", "--client", "acme", "--kind", "bounced", "--kind", "delayed", "--json")
    assert [each["payload"]["status"] for each in json.loads(ran.out)["items"]] == ["5.1.1"] * 3
    ran = await control.cli("event", "list", "--client", "acme", "--limit", "1")
    assert "bounced" in ran.out and f"--after {page['items'][0]['id']}" in ran.err
    for query, text in (
        ({"client": "nobody"}, "there is no client nobody"),
        ({"client": "acme", "kinds": "sent"}, "kinds.0: should be 'bounced', 'delayed'"),
        ({"client": "acme", "after": -1}, "after: should be greater than or equal to 0"),
    ):
        answer = await control.request("GET", "events", params=query)
        assert answer.status in (404, 422) and text in answer.message, answer.message


async def test_events_are_kept_as_long_as_messages(db: Database) -> None:
    async with db.transaction() as connection:
        sender = await make_sender(connection)
        await client_events.add(connection, [event(sender, "a")])
        await connection.execute("UPDATE relayd_state SET clock_offset = interval '31 days'")
        await client_events.add(connection, [event(sender, "b")])
    await prune(db, timedelta(days=30))
    async with db.connection() as connection:
        assert [name for _, name in await read(connection, sender)] == ["b"]

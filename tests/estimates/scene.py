"""A queue under all kinds of limits: eight mailboxes of three clients, two upstreams, mail in bulk, a warm-up."""

from dataclasses import dataclass
from datetime import datetime

from relayd.store import lanes
from relayd.store.connection import Connection
from relayd.store.queue import enqueue
from tests.builders import Sender, make_sender, new_message

MORNING = datetime.fromisoformat("2027-03-27T09:17:00Z")  # the day before clocks are put forward in Berlin


@dataclass(frozen=True)
class Box:
    """A mailbox and its part of the mail, in fortieths; `bulk`: all of it is."""

    address: str
    client: str
    share: int
    daily_limit: int | None = None
    time_zone: str = "UTC"
    upstream: str = "capture"
    bulk: bool = False
    change: str = ""


BOXES = (
    Box("a@acme.example", "acme", 4, 40, "Europe/Berlin"),
    Box("paced@acme.example", "acme", 4, 120, "America/New_York", change="is_paced = true"),
    Box("c@acme.example", "acme", 5),
    Box("news@second.example", "acme", 7, 500, bulk=True),
    Box("rolling@globex.example", "globex", 5, 60, upstream="gmail", change="limit_window = 'rolling'"),
    Box("quota@globex.example", "globex", 6, upstream="gmail"),
    Box("other@globex.example", "globex", 5, 90, "Asia/Tokyo", upstream="gmail"),
    Box(
        "new@initech.example",
        "initech",
        4,
        20,
        change="warmup_enabled = true, warmup_stage = 9, status = 'warming', warmup_started_at = relayd_now(),"
        " warmup_day = '2027-03-27', daily_limit_cap = 35",
    ),
)
IN_BULK = frozenset(box.address for box in BOXES if box.bulk)
LIMITS = (
    "UPDATE clients SET daily_send_limit = 150, bulk_reserve_percent = 40, time_zone = 'Europe/Berlin'"
    " WHERE name = 'acme'",
    "UPDATE email_domains SET own_daily_limit = 110 WHERE domain = 'acme.example'",
    "INSERT INTO google_workspace_quota (upstream_id, mailbox_id, daily_limit, hourly_limit)"
    " SELECT upstream_id, id, 100, 12 FROM email_mailboxes WHERE email_address = 'quota@globex.example'",
    "INSERT INTO google_workspace_quota (upstream_id, daily_limit)"
    " SELECT id, 170 FROM email_configurations WHERE name = 'gmail'",
)


async def furnish(connection: Connection, entries: int) -> None:
    """All of it at the same moment of the moved clock: `entries` recipients, as good as evenly mixed."""
    await connection.execute("UPDATE relayd_state SET clock_offset = $1 - clock_timestamp()", MORNING)
    senders = [(box, await _sender(connection, box)) for box in BOXES]
    for limit in LIMITS:
        await connection.execute(limit)
    total = sum(box.share for box in BOXES)
    for box, sender in senders:
        count = entries * box.share // total
        await enqueue(
            connection, [new_message(sender, f"user{number}@{box.client}.example.net") for number in range(count)]
        )
        if box.bulk:
            await connection.execute(
                "UPDATE email_queue q SET lane_id = l.id FROM mailbox_lanes l"
                " WHERE q.mailbox_id = $1 AND l.mailbox_id = $1 AND l.class = 'bulk'",
                sender.mailbox_id,
            )
    await lanes.wake(connection, [row["id"] for row in await connection.fetch("SELECT id FROM mailbox_lanes")])


async def _sender(connection: Connection, box: Box) -> Sender:
    sender = await make_sender(
        connection,
        box.address,
        client=box.client,
        daily_limit=box.daily_limit,
        time_zone=box.time_zone,
        upstream=box.upstream,
    )
    if box.change:
        await connection.execute(f"UPDATE email_mailboxes SET {box.change} WHERE id = $1", sender.mailbox_id)
    return sender

"""Handler of `status`: how relayd stands, whether or not the database can be reached."""

from datetime import datetime

from relayd.control.route import Context, Nothing, Route, View
from relayd.errors import StoreUnavailable
from relayd.store import overview


class DayView(View):
    """Events of the last 24 hours, or since then if `is_whole` is false: there were too many to count."""

    since: datetime
    is_whole: bool
    accepted: int
    sent: int
    deferred: int
    postponed: int
    failed: int
    bounced: int
    uncertain: int


class BlockedView(View):
    """Mailbox lines with mail that may not leave now."""

    reason: str
    lanes: int


class UpstreamView(View):
    """An upstream's load."""

    name: str
    provider: str
    is_active: bool
    paused_at: datetime | None
    paused_reason: str | None
    in_flight: int
    breaker: str
    breaker_reason: str | None
    breaker_retry_at: datetime | None
    consecutive_failures: int
    last_failure: str | None
    last_failed_at: datetime | None


class QueueView(View):
    """What the database knows."""

    now: datetime
    paused_at: datetime | None
    paused_reason: str | None
    pending: int
    queued: int
    sending: int
    oldest_queued_at: datetime | None
    day: DayView
    blocked: list[BlockedView]
    upstreams: list[UpstreamView]


class StatusView(View):
    """`queue` is null, and `database` says why, where the database cannot be reached."""

    version: str
    node: str
    workers: int | None
    database: str
    queue: QueueView | None


async def show_status(context: Context, request: Nothing) -> StatusView:
    """Answers without a database too: that is when somebody asks."""
    house = context.house
    queue, database = None, "ok"
    try:
        async with context.reading() as connection:
            queue = _queue(await overview.read(connection))
    except StoreUnavailable as error:
        database = str(error)
    workers = house.workers() if house.workers else None
    return StatusView(version=house.version, node=house.node, workers=workers, database=database, queue=queue)


def _queue(found: overview.Overview) -> QueueView:
    events = found.day.events
    return QueueView(
        now=found.now,
        paused_at=found.paused_at,
        paused_reason=found.paused_reason,
        pending=found.depth.get("pending", 0),
        queued=found.depth.get("queued", 0),
        sending=found.depth.get("sending", 0),
        oldest_queued_at=found.oldest_queued_at,
        day=DayView(
            since=found.day.since,
            is_whole=found.day.is_whole,
            accepted=events.get("queued", 0),
            sent=events.get("sent", 0),
            deferred=events.get("deferred", 0),
            postponed=events.get("postponed", 0),
            failed=events.get("failed", 0),
            bounced=events.get("bounced", 0),
            uncertain=events.get("uncertain", 0),
        ),
        blocked=[BlockedView.model_validate(one) for one in found.blocked],
        upstreams=[UpstreamView.model_validate(one) for one in found.upstreams],
    )


ROUTES = (Route("GET", "/v1/status", show_status, "How relayd stands", Nothing, StatusView),)

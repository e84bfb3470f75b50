"""Messages whose every first attempt ends without a reply, delivered by relayd's own loops on a real database.

The database's clock leaps over what relayd waits for.
"""

import asyncio
import threading
from collections import Counter
from collections.abc import AsyncIterator, Callable, Mapping
from contextlib import AsyncExitStack, asynccontextmanager
from dataclasses import dataclass, field
from datetime import UTC, datetime
from enum import Enum
from typing import Any
from uuid import UUID

from relayd.daemon.gmail import others
from relayd.delivery.breakers import Breakers
from relayd.delivery.claimer import Pace
from relayd.delivery.scheduler import Scheduler
from relayd.delivery.settler import Settler
from relayd.delivery.upstreams import Fleet, Upstream, UpstreamTerms
from relayd.intake.bounce import Bouncer
from relayd.intake.signer import Signer
from relayd.rules.breaker import BreakerTerms
from relayd.rules.doubt import LookPolicy, Seen, Way
from relayd.rules.retry import RetryPolicy
from relayd.rules.settlement import OnUncertain
from relayd.seal import Seal, new_key, parse_key
from relayd.store import lanes
from relayd.store.clock import DatabaseClock
from relayd.store.doubts import Doubt
from relayd.store.pool import Database
from relayd.store.queue import enqueue
from relayd.upkeep.resolve_uncertain import Look, LookTerms, resolve_uncertain
from relayd.upstream.gmail import GmailSettings
from relayd.upstream.gmail_api import GmailApi as Sender
from relayd.upstream.gmail_look import GmailLook
from relayd.upstream.smarthost import Smarthost
from tests.builders import make_sender, new_message
from tests.peers.gmail_api import Cut, GmailApi
from tests.peers.mail import Authority, settings
from tests.peers.sink import Arrival, Sink
from tests.peers.tokens import Tokens

MAILBOX = "noreply@example.com"
POLICY = LookPolicy(first_seconds=60, looks=5)
LONGEST_SECONDS = 300.0
AT_ONCE = 20
# Longer than any look or first retry waits.
LEAP_SECONDS = 2000.0


class Route(Enum):
    """By which way the messages go."""

    HOLD = "smtp, hold"
    RETRY = "smtp, retry"
    GMAIL_SMTP = "smtp.gmail.com"
    GMAIL_API = "gmail_api"


@dataclass(frozen=True)
class Report:
    """What was found in the end. `doubts`: attempts logged as uncertain."""

    route: Route
    messages: int
    doubts: int
    resolved: int
    statuses: Mapping[str, int]
    arrivals: "Counter[int]" = field(default_factory=Counter)  # how many recipients got it so many times

    @property
    def lost(self) -> int:
        return self.arrivals[0]

    @property
    def duplicates(self) -> int:
        return sum((times - 1) * many for times, many in self.arrivals.items() if times > 1)

    @property
    def is_well(self) -> bool:
        """As documented: each doubt recorded, and none doubled but where the operator chose so."""
        is_held = self.route is Route.HOLD
        return (
            self.doubts == self.messages
            and self.lost == 0
            and self.duplicates == (self.messages if self.route is Route.RETRY else 0)
            and self.statuses == {"pending" if is_held else "sent": self.messages}
            and (is_held or self.route is Route.RETRY or self.resolved == self.messages)
        )

    def __str__(self) -> str:
        states = ", ".join(f"{many} {status}" for status, many in sorted(self.statuses.items()))
        return (
            f"{self.route.value}: {self.messages} messages, {self.doubts} in doubt, {self.resolved} resolved, "
            f"{self.duplicates} duplicates, {self.lost} lost; {states}"
        )


class Droppers:
    """What takes a message and drops the connection, once each; of Gmail's, every other one has not got it."""

    def __init__(self, google: GmailApi) -> None:
        self._google = google
        self._lock = threading.Lock()
        self._met: Counter[str] = Counter()

    def smtp(self, arrival: Arrival) -> bool:
        (recipient,) = arrival.recipients
        self._met[recipient] += 1
        return self._met[recipient] == 1

    def gmail_smtp(self, arrival: Arrival) -> bool:
        is_first = self.smtp(arrival)
        number = int(arrival.recipients[0].partition("@")[0].removeprefix("user"))
        if not is_first or number % 2:
            self._google.deliver_by_smtp(MAILBOX, arrival.recipients, arrival.content)
        return is_first

    def gmail_api(self, count: int) -> Callable[[str, int], Cut | None]:
        def interfere(method: str, times: int) -> Cut | None:
            if method != "drafts.send" or times > count:
                return None
            return Cut.AFTER if times % 2 else Cut.BEFORE

        return interfere


async def play(db: Database, authority: Authority, route: Route, count: int) -> Report:
    """Deliver `count` messages, resolve what can be, and count."""
    with GmailApi(authority.server_context("127.0.0.1"), is_indexing=False) as google, Sink() as sink:
        droppers = Droppers(google)
        sink.is_dropping = droppers.gmail_smtp if route is Route.GMAIL_SMTP else droppers.smtp
        google.interfere = droppers.gmail_api(count)
        gmail = GmailSettings(
            Tokens(), per_mailbox=True, api_url=google.url, ca_file=authority.file, sends_a_second=1e6
        )
        async with AsyncExitStack() as stack:
            house = await stack.enter_async_context(House.opened(db, route, sink.port, gmail))
            await house.put(count)
            await house.until_quiet()
            for number in range(POLICY.looks + 2):
                await house.leap(LEAP_SECONDS)
                if number == 2:
                    google.index()
                while await house.resolve():
                    pass
                await house.until_quiet()
            arrived = google.recipients if house.way else sink.recipients
            return await house.report(count, Counter(arrived[f"user{n}@example.net"] for n in range(count)))


class House:
    """relayd's loops, with one upstream."""

    def __init__(self, db: Database, route: Route, sender: Any, upstream: Callable[[], Upstream], look: Look | None):
        self.db = db
        self.route = route
        self.way = {Route.GMAIL_SMTP: Way.MESSAGE_ID, Route.GMAIL_API: Way.REFERENCE}.get(route)
        self._sender = sender
        self._look = look
        on_uncertain: OnUncertain = "hold" if route is Route.HOLD else "retry"
        terms = UpstreamTerms(
            sender.upstream_id, "up", "google_workspace", AT_ONCE, 100, on_uncertain, "1", looks=self.way
        )

        async def load() -> list[tuple[UpstreamTerms, Callable[[], Upstream]]]:
            return [(terms, upstream)]

        clock = DatabaseClock()
        signer = Signer(db, Seal(parse_key(new_key().encode())))
        self._bouncer = Bouncer(db, signer, host="relay.test", max_retries=5, now=lambda: datetime.now(UTC))
        self._settler = Settler(
            db,
            self._bouncer,
            RetryPolicy(),
            emit=lambda event: None,
            wake=lambda: self.scheduler.wake(),
            now=clock.now,
            looks=POLICY,
        )
        self.fleet = Fleet(load)
        breakers = Breakers(
            db,
            BreakerTerms(),
            name_of=self.fleet.name_of,
            emit=lambda event: None,
            wake=lambda: self.scheduler.wake(),
        )
        self.scheduler = Scheduler(
            db,
            self.fleet,
            self._settler,
            breakers,
            clock,
            claimant="n/1/1",
            pace=Pace(poll_seconds=0.05, release_spread_seconds=0),
            emit=lambda event: None,
        )

    @classmethod
    @asynccontextmanager
    async def opened(cls, db: Database, route: Route, port: int, gmail: GmailSettings) -> "AsyncIterator[House]":
        async with db.connection() as connection:
            sender = await make_sender(connection, MAILBOX)
        looker = GmailLook(gmail)

        async def look(doubt: Doubt) -> Seen:
            if route is Route.GMAIL_API:
                return await looker.by_reference(doubt.reference, doubt.message_id, str(doubt.mailbox))
            assert doubt.is_alone
            return await looker.by_message_id(doubt.message_id, str(doubt.mailbox))

        def upstream() -> Upstream:
            if route is Route.GMAIL_API:
                return Sender(gmail, others(db))
            return Smarthost(settings(port, max_connections=AT_ONCE))

        house = cls(db, route, sender, upstream, look)
        running = asyncio.create_task(house.scheduler.run())
        try:
            yield house
        finally:
            await house.scheduler.drain(LONGEST_SECONDS)
            await running
            await house._settler.drain()
            await house.fleet.close()
            await looker.close()

    async def put(self, count: int) -> None:
        messages = []
        for number in range(count):
            recipient = f"user{number}@example.net"
            message = new_message(self._sender, recipient)
            content = f"From: {MAILBOX}\r\nTo: {recipient}\r\nMessage-ID: {message.message_id_header}\r\n\r\nhello\r\n"
            messages.append(new_message(self._sender, recipient, content=content.encode()))
            object.__setattr__(messages[-1], "message_id_header", message.message_id_header)
        async with self.db.connection() as connection:
            await enqueue(connection, messages)
            await lanes.wake(connection, [self._sender.mail_lane_id])
        self.scheduler.wake()

    async def leap(self, seconds: float) -> None:
        async with self.db.connection() as connection:
            await connection.execute(
                "UPDATE relayd_state SET clock_offset = clock_offset + make_interval(secs => $1)", seconds
            )

    async def until_quiet(self) -> None:
        """Nothing is under way or due."""
        busy = (
            "SELECT EXISTS (SELECT FROM email_queue WHERE status = 'sending'"
            " OR (status = 'queued' AND next_attempt_at <= relayd_now()))"
        )
        async with asyncio.timeout(LONGEST_SECONDS), self.db.connection() as connection:
            while await connection.fetchval(busy):
                self.scheduler.wake()
                await asyncio.sleep(0.02)

    async def resolve(self) -> int:
        """One round of looks, as upkeep does it."""

        async def lookers() -> Mapping[UUID, Look]:
            return {self._sender.upstream_id: self._look} if self._look else {}

        return await resolve_uncertain(
            self.db,
            lookers,
            self._bouncer,
            LookTerms(POLICY, RetryPolicy()),
            emit=lambda event: None,
            wake=self.scheduler.wake,
            round_seconds=60,
        )

    async def report(self, count: int, arrivals: "Counter[int]") -> Report:
        async with self.db.connection() as connection:
            rows = await connection.fetch("SELECT status, count(*) FROM email_queue GROUP BY 1")
            events = await connection.fetch("SELECT event, count(*) FROM email_delivery_logs GROUP BY 1")
        logged = {row["event"]: row["count"] for row in events}
        return Report(
            self.route,
            count,
            logged.get("uncertain", 0),
            logged.get("resolved", 0),
            {row["status"]: row["count"] for row in rows},
            arrivals,
        )

"""A settler with all that tells of mail's fate, on a real database: entries are claimed, started and settled."""

from collections.abc import Sequence
from dataclasses import dataclass, field, replace
from datetime import UTC, datetime
from email import message_from_bytes
from email.message import Message
from typing import Any

from relayd.delivery.attempt import untried
from relayd.delivery.settler import Ended, Settler
from relayd.intake.bounce import Bouncer
from relayd.intake.signer import Signer
from relayd.rules.news import Action, is_wanted
from relayd.rules.outcome import Cause, Failed, Outcome, Scope, Sent, Stage
from relayd.rules.relay_events import RelayEvent
from relayd.rules.retry import RetryPolicy
from relayd.seal import Seal, new_key, parse_key
from relayd.store import attempts
from relayd.store.claim import ClaimedEntry
from relayd.store.pool import Database
from tests.builders import Sender, claim_all

SENT = Sent(Cause(Stage.DOT, "2.0.0 ok", 250, "2.0.0"))
NO_USER = Failed(Scope.RECIPIENT, Cause(Stage.RCPT, "5.1.1 no such user", 550, "5.1.1"))


@dataclass
class House:
    """What settles, and what it emitted."""

    db: Database
    sender: Sender
    events: list[RelayEvent] = field(default_factory=list)

    def __post_init__(self) -> None:
        seal = Seal(parse_key(new_key().encode()))
        self.bouncer = Bouncer(
            self.db, Signer(self.db, seal), host="relay.example", max_retries=5, now=lambda: datetime.now(UTC)
        )
        self.settler = Settler(
            self.db,
            self.bouncer,
            RetryPolicy(),
            emit=self.events.append,
            wake=lambda: None,
            now=lambda: datetime.now(UTC),
            suppression_days=30,
        )

    async def claim(self) -> list[ClaimedEntry]:
        """All that is due, started."""
        async with self.db.connection() as connection:
            entries = await claim_all(connection, self.sender.upstream_id)
            started = await attempts.start(connection, [(each, "capture") for each in entries], lease_seconds=600)
        self.notices = started.notices
        return entries

    async def settle(self, entries: Sequence[ClaimedEntry], *outcomes: Outcome) -> None:
        """One outcome for all, or one each."""
        if len(outcomes) == 1:
            outcomes *= len(entries)
        await self.settler.settle(
            [self._ended(entry, outcome) for entry, outcome in zip(entries, outcomes, strict=True)]
        )

    async def end_all(self, *outcomes: Outcome) -> None:
        """Claim, start and settle what is due, recipients in the order of their ids."""
        await self.settle(sorted(await self.claim(), key=lambda each: each.entry_id), *outcomes)

    async def notifications(self) -> list[Message]:
        """Those in the queue, the oldest first, parsed by the standard library."""
        contents = await self.fetch(
            "SELECT b.content FROM messages m JOIN message_bodies b ON b.message_id = m.id"
            " WHERE m.origin = 'dsn' AND m.reverse_path = '' ORDER BY m.id"
        )
        return [message_from_bytes(row["content"]) for row in contents]

    async def fetch(self, statement: str, *arguments: object) -> list[Any]:
        async with self.db.connection() as connection:
            return await connection.fetch(statement, *arguments)

    async def execute(self, statement: str, *arguments: object) -> None:
        async with self.db.connection() as connection:
            await connection.execute(statement, *arguments)

    def _ended(self, entry: ClaimedEntry, outcome: Outcome) -> Ended:
        notice = self.notices.get(entry.entry_id)
        return replace(
            untried(entry, "its end is told below"),
            upstream="capture",
            provider="capture",
            outcome=outcome,
            asks_of_success=is_wanted(Action.RELAYED, notice.notify if notice else None),
        )


def blocks(notification: Message) -> list[dict[str, str]]:
    """The fields of its status part: of the message, then of each recipient."""
    status: Any = notification.get_payload(1)
    found = [dict(block.items()) for block in status.get_payload()]
    return [
        {name: value.replace("\r\n", "").replace("\n", "") for name, value in block.items()} for block in found if block
    ]

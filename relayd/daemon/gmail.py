"""From the row of a Google upstream to what sends by Gmail's API, and to what looks there for attempts in doubt."""

from collections.abc import Awaitable, Callable, Iterable, Sequence
from typing import assert_never
from uuid import UUID

from relayd.errors import RelaydError
from relayd.mail.address import Address
from relayd.rules.doubt import Seen, Sight, Way
from relayd.store import recipients, upstreams
from relayd.store.doubts import Doubt
from relayd.store.pool import Database
from relayd.store.upstreams import UpstreamRecord
from relayd.upkeep.resolve_uncertain import Look
from relayd.upstream.gmail import API_URL, GmailSettings
from relayd.upstream.gmail_look import GmailLook
from relayd.upstream.http import Timeouts
from relayd.upstream.rule import Rule
from relayd.upstream.tokens import TokenSource

# Google allows 250 units a second to an account, and asks 100 for sending a draft.
SENDS_A_SECOND = 2.0
LOOKING = Timeouts(connect=5.0, total=10.0)

# The tokens of an upstream's grant. Raises RelaydError where it has none.
Tokens = Callable[[UpstreamRecord], TokenSource]


def settings(
    record: UpstreamRecord, tokens: TokenSource, connections: int, workers: int, rules: Sequence[Rule]
) -> GmailSettings:
    """A worker's part of what the node may do."""
    return GmailSettings(
        tokens=tokens,
        per_mailbox=record.google_service_account_sealed is not None,
        api_url=record.api_url or API_URL,
        ca_file=record.smtp_ca_file,
        max_connections=connections,
        sends_a_second=SENDS_A_SECOND / workers,
        rules=rules,
    )


def others(database: Database) -> Callable[[UUID], Awaitable[Iterable[Address]]]:
    """Who else of a message may still be sent to."""

    async def find(queue_id: UUID) -> Iterable[Address]:
        async with database.connection() as connection:
            return await recipients.waiting(connection, queue_id)

    return find


class Lookers:
    """Who looks for attempts in doubt, by upstream; connections are kept as long as the upstream stays as it is."""

    def __init__(self, database: Database, tokens: Tokens) -> None:
        self._database = database
        self._tokens = tokens
        self._known: dict[UUID, tuple[str, GmailLook]] = {}

    async def current(self) -> dict[UUID, Look]:
        """As the database has the upstreams now. Raises StoreUnavailable."""
        async with self._database.connection() as connection:
            records = await upstreams.living(connection)
        # Whatever their mode is now: a doubt is looked for as its own attempt went.
        found = {each.id: await self._look(each) for each in records if each.provider_type == "google_workspace"}
        for gone in self._known.keys() - found.keys():
            await self._known.pop(gone)[1].close()
        return found

    async def close(self) -> None:
        """Close every connection."""
        for _, looker in self._known.values():
            await looker.close()

    async def _look(self, record: UpstreamRecord) -> Look:
        revision, looker = self._known.get(record.id, (None, None))
        if looker is None or revision != str(record.updated_at):
            if looker is not None:
                await self._known.pop(record.id)[1].close()
            try:
                tokens = self._tokens(record)
            except RelaydError as error:
                return _blind(str(error))
            looker = GmailLook(_looking(record, tokens))
            self._known[record.id] = str(record.updated_at), looker
        return _look_with(looker)


def _looking(record: UpstreamRecord, tokens: TokenSource) -> GmailSettings:
    return GmailSettings(
        tokens=tokens,
        per_mailbox=record.google_service_account_sealed is not None,
        api_url=record.api_url or API_URL,
        ca_file=record.smtp_ca_file,
        max_connections=8,
        timeouts=LOOKING,
    )


def _look_with(looker: GmailLook) -> Look:
    async def look(doubt: Doubt) -> Seen:
        match doubt.look_by:
            case Way.REFERENCE:
                return await looker.by_reference(doubt.reference, doubt.message_id, str(doubt.mailbox))
            case Way.MESSAGE_ID if doubt.is_alone:
                return await looker.by_message_id(doubt.message_id, str(doubt.mailbox))
            case Way.MESSAGE_ID:
                return Seen(Sight.UNKNOWABLE, "another attempt under its Message-ID could be taken for this one")
            case None:
                return Seen(Sight.UNKNOWABLE, "it went in a way that leaves nothing to look for")
            case _:
                assert_never(doubt.look_by)

    return look


def _blind(reason: str) -> Look:
    async def look(doubt: Doubt) -> Seen:
        return Seen(Sight.UNREACHABLE, reason)

    return look

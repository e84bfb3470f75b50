"""Who of a message's recipients is suppressed. Asked for every RCPT, so a worker keeps the whole list in small.

Eight octets an address, those of all clients together, at most a second old; a match is confirmed by the database.
Until the list has been read, which takes a second for a million, the database is asked each time.
"""

import asyncio
import logging
import time
import unicodedata
from array import array
from bisect import bisect_left
from collections.abc import Callable, Sequence

from relayd.errors import StoreUnavailable
from relayd.intake.submission import Identity
from relayd.mail.address import Address
from relayd.mail.reply import Reply
from relayd.store import suppressed, suppressions
from relayd.store.pool import Database
from relayd.store.suppressed import SuppressedRecipient

log = logging.getLogger(__name__)

FRESH_SECONDS = 1.0
# More than these, a set of objects, are read anew into the array.
MOST_RECENT = 50_000


class Suppressions:
    """Answers for all clients. One a worker."""

    def __init__(self, database: Database, *, clock: Callable[[], float] = time.monotonic) -> None:
        self._database = database
        self._clock = clock
        self._known: array[int] = array("q")
        self._recent: set[int] = set()
        self._mark: str | None = None
        self._read_at = 0.0
        self._loading: asyncio.Task[None] | None = None
        self._refreshing: asyncio.Task[None] | None = None

    async def refusal(self, identity: Identity, forward_path: Address) -> Reply | None:
        """None if this recipient may be taken (if only to be dropped). Raises StoreUnavailable."""
        for each in await self.among(identity, (forward_path,)):
            if not each.is_dropped:
                return Reply(550, "5.7.1", _refusal(each))
        return None

    async def among(self, identity: Identity, recipients: Sequence[Address]) -> list[SuppressedRecipient]:
        """Those of a message's recipients that are suppressed for its client. Raises StoreUnavailable."""
        suspects = await self._suspects(identity, recipients)
        if not suspects:
            return []
        async with self._database.connection() as connection:
            return await suppressed.confirm(connection, identity.client.id, suspects)

    async def close(self) -> None:
        """End what is being read."""
        for task in (self._loading, self._refreshing):
            if task is not None:
                task.cancel()
                await asyncio.gather(task, return_exceptions=True)

    async def _suspects(self, identity: Identity, recipients: Sequence[Address]) -> Sequence[Address]:
        asked_at = self._clock()
        while self._mark is not None and self._read_at <= asked_at - FRESH_SECONDS:
            if self._refreshing is None:
                self._refreshing = asyncio.create_task(self._refresh(self._mark))
            # Shielded: a session that goes away must not take the others' answer with it.
            await asyncio.shield(self._refreshing)
        if self._mark is None:
            if self._loading is None:
                self._loading = asyncio.create_task(self._load())
            return recipients
        if not self._known and not self._recent:
            return ()
        client_id = identity.client.id
        return [
            each
            for each in recipients
            if any(self._has(suppressions.fingerprint(client_id, key)) for key in _stored_keys(each))
        ]

    def _has(self, fingerprint: int) -> bool:
        place = bisect_left(self._known, fingerprint)
        return (place < len(self._known) and self._known[place] == fingerprint) or fingerprint in self._recent

    async def _refresh(self, marked: str) -> None:
        """Read what has been written since."""
        began = self._clock()
        try:
            async with self._database.connection() as connection:
                following, found = await suppressed.since(connection, marked)
        finally:
            self._refreshing = None
        if self._mark != marked:
            return  # all has been read meanwhile, as of an older mark: what was found here is less than is missing
        if int(following) < int(marked):
            self._mark = None  # another server: its numbers say nothing of ours
            return
        self._recent.update(found)
        self._mark, self._read_at = following, began
        if len(self._recent) > MOST_RECENT and self._loading is None:
            self._loading = asyncio.create_task(self._load())

    async def _load(self) -> None:
        """Read all, a slice a statement; meanwhile answers are given as before."""
        try:
            known: array[int] = array("q")
            async with self._database.connection() as connection:
                began, marked = self._clock(), await suppressed.mark(connection)
            last, is_whole = suppressed.LOWEST, False
            while not is_whole:
                async with self._database.connection() as connection:
                    found = await suppressed.slice_after(connection, last)
                known.extend(found)
                is_whole = len(found) < suppressed.SLICE
                last = found[-1] if found else last
        except StoreUnavailable as error:
            log.warning("the suppression list cannot be read, the database is asked each time: %s", error)
        except Exception:
            log.exception("the suppression list cannot be read, the database is asked each time")
        else:
            # What was written since this reading began is read once more: its mark is the older one.
            self._known, self._recent, self._mark, self._read_at = known, set(), marked, began
        finally:
            self._loading = None


def _stored_keys(address: Address) -> tuple[str, ...]:
    """The key and its decomposed form: migration 0025 composed stored keys, their fingerprints are as they were."""
    key = address.key
    return (key,) if key.isascii() else (key, unicodedata.normalize("NFD", key))


def why(each: SuppressedRecipient) -> str:
    """In one line: for a reply, for the log."""
    return f"suppressed for client {each.client} since {each.since:%Y-%m-%d}: {each.reason.replace('_', ' ')}"


def _refusal(each: SuppressedRecipient) -> str:
    return f"<{each.address.plain}> is {why(each)}; lifted by: relayd suppression remove"

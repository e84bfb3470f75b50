"""This node's sealing keys beside the database's: do they fit, what do they not open, which ones does this node have.

A rotation asks the last before it begins, and a node that has missed one learns of it here, loudly.
"""

import asyncio
import logging
from collections import Counter
from collections.abc import Callable

from relayd.errors import Refusal, RelaydError, StoreUnavailable
from relayd.seal import Seal, SealError
from relayd.store import nodes, operation_audit, sealcheck, sealed
from relayd.store.connection import Connection
from relayd.store.pool import Database
from relayd.store.sealed import SEALED_COLUMNS

log = logging.getLogger(__name__)

LOOK_SECONDS = 5.0
REMIND_SECONDS = 300.0


class Keyring:
    """What this node seals with and opens with, as the database and other nodes know it."""

    def __init__(self, database: Database, node: str, seal: Seal) -> None:
        self._database = database
        self._node = node
        self._seal = seal
        self.fits = True

    @property
    def seal(self) -> Seal:
        """The keys of now."""
        return self._seal

    async def check(self, seal: Seal) -> None:
        """Raises RelaydError when these are not the keys of this database; tells the log what they do not open."""
        async with self._database.connection() as connection:
            word = await sealcheck.read(connection)
            if word is None:
                await sealcheck.write(connection, seal.seal(b"relayd", row=sealcheck.ROW))
                word = await sealcheck.read(connection)
            assert word is not None
            _open_word(seal, word)
            closed = await _closed(connection, seal)
        for key, many in closed.items():
            if key is None:
                log.error("%d secret(s) are damaged: relayd secrets rotate --dry-run lists them", many)
            else:
                log.error(
                    "%d secret(s) are sealed with key %s, which is not among the sealing keys: what needs them does "
                    "not work. Put it into seal.older_key_files; relayd secrets rotate --dry-run lists them",
                    many,
                    key,
                )

    async def tell(self, *, only_with: Seal | None = None) -> None:
        """Tell other nodes which keys this one has. `only_with`: but only those that it has, too."""
        keys = [key for key in self._seal.key_ids if only_with is None or key in only_with.key_ids]
        async with self._database.transaction() as connection:
            await nodes.tell(connection, self._node, keys)

    def take(self, seal: Seal) -> None:
        """Go on with these keys."""
        self._seal = seal

    async def tell_at_last(self) -> None:
        """As `tell`, as soon as Postgres can be reached."""
        while True:
            try:
                return await self.tell()
            except StoreUnavailable:
                await asyncio.sleep(LOOK_SECONDS)

    async def watch(self, on_change: Callable[[bool], None]) -> None:
        """For ever: see whether the database has been sealed anew with a key that is not here."""
        clock = asyncio.get_running_loop().time
        told_at = -REMIND_SECONDS
        while True:
            try:
                problem = await self._look()
            except StoreUnavailable:
                problem = None if self.fits else "as before"
            self.fits = problem is None
            on_change(self.fits)
            if problem is not None and clock() - told_at >= REMIND_SECONDS:
                told_at = clock()
                log.error("%s; mail waits that needs a secret which this node cannot open", problem)
            await asyncio.sleep(LOOK_SECONDS)

    async def _look(self) -> str | None:
        async with self._database.connection() as connection:
            word = await sealcheck.read(connection)
        try:
            _open_word(self._seal, word or b"")
        except RelaydError as error:
            return str(error)
        return None


async def adopt(database: Database, seal: Seal) -> int:
    """Make these keys the database's where its own are lost; returns how many secrets stay closed.

    Raises Refusal where nothing is lost, or a node lives: that one has the key.
    """
    async with database.transaction() as connection:
        word = await sealcheck.read(connection)
        try:
            _open_word(seal, word or b"")
        except RelaydError:
            pass
        else:
            raise Refusal("the database's secrets are sealed with these keys: nothing is lost, nothing was changed")
        known, silent = await nodes.living(connection)
        if known or silent:
            names = ", ".join([each.name for each in known] or ["of an older version"])
            raise Refusal(
                f"a node runs on this database: {names}",
                hint="it has the key that you take for lost: copy it from there; else stop it first",
            )
        await sealcheck.force(connection, seal.seal(b"relayd", row=sealcheck.ROW))
        await operation_audit.record(connection, "secrets", "adopt", {"key": seal.current_id})
        return sum((await _closed(connection, seal)).values())


async def _closed(connection: Connection, seal: Seal) -> Counter[str | None]:
    """How many values there are under each key that is not loaded. None: what is no sealed value."""
    counts: Counter[str | None] = Counter()
    for column in SEALED_COLUMNS:
        counts.update(await sealed.count(connection, column))
    return Counter({key: many for key, many in counts.items() if key not in seal.key_ids})


def _open_word(seal: Seal, word: bytes) -> None:
    try:
        seal.open(word, row=sealcheck.ROW)
    except SealError as error:
        raise RelaydError(
            f"the sealing key is not the one that this database's secrets are sealed with: {error} "
            "(seal.key_file or seal.key_credential, as on the other nodes; a key that was replaced goes into "
            "seal.older_key_files; where a key is lost: relayd key adopt --help)"
        ) from error

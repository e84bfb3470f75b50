"""Seal every value anew under the current key, a small transaction at a time, while everything else goes on.

It may be cut off at any moment and begun again: a value is either as it was or sealed with the current key, and what is
current already is left alone. A value that somebody changes meanwhile is read again.
"""

import asyncio
from dataclasses import dataclass, field
from typing import Self
from uuid import UUID

from relayd import failpoints
from relayd.control.route import Context
from relayd.errors import BadValue, Refusal
from relayd.seal import Seal, SealError
from relayd.store import nodes, operation_audit, sealcheck, sealed
from relayd.store.connection import Connection
from relayd.store.sealed import SEALED_COLUMNS, SealedColumn, SealedValue

BATCH = 100
# A value that is changed as often as that between a look and the next is told, and left to the next rotation.
_TRIES = 5


@dataclass(frozen=True, slots=True)
class Position:
    """Where a walk through all values stands: behind one row of a column, or before the first."""

    column: int = 0  # of SEALED_COLUMNS
    after: UUID | None = None

    @classmethod
    def parse(cls, text: str) -> Self:
        """Raises BadValue for what no walk gave out."""
        column, slash, key = text.partition("/")
        try:
            return cls([str(each) for each in SEALED_COLUMNS].index(column), UUID(key) if slash else None)
        except ValueError:
            raise BadValue("the cursor is not one that relayd gave; leave it out to begin at the start") from None

    def __str__(self) -> str:
        return f"{SEALED_COLUMNS[self.column]}/{self.after}" if self.after else str(SEALED_COLUMNS[self.column])


@dataclass(frozen=True, slots=True)
class Closed:
    """A value that opens under no key: which, never what."""

    row: str
    label: str
    reason: str


@dataclass(slots=True)
class Tally:
    """What a walk has met. `changing`: values that somebody else changed all the while."""

    resealed: int = 0
    current: int = 0
    changing: int = 0
    closed: list[Closed] = field(default_factory=list)


async def begin(context: Context, *, anyway: bool, is_first: bool) -> None:
    """Let nobody start without the new key from now on. Raises Refusal while a living node lacks it."""
    seal = context.house.seal
    async with context.writing() as connection:
        word = await sealcheck.read(connection)
        if word is not None and not seal.is_current(word):
            # First, and in the transaction that looks at the nodes: one that starts now waits, and is then told.
            await sealcheck.replace(connection, word, _anew(seal, word, sealcheck.ROW))
        if not anyway:
            await check_nodes(connection, seal)
        if is_first:
            await operation_audit.record(connection, "secrets", "rotate", {"key": seal.current_id})
    if is_first:
        failpoints.reach("rotate-batch")


async def check_nodes(connection: Connection, seal: Seal) -> None:
    """Raises Refusal while a living node lacks the key that seals here, seals with another, or cannot say."""
    known, silent = await nodes.living(connection)
    key = seal.current_id
    anyway = "or stop that node; with --anyway its mail waits until it has the key"
    if lacking := [node.name for node in known if key not in node.opening_keys]:
        raise Refusal(
            f"not sealed anew: {_nodes(lacking)} without the key {key}",
            hint=f"name its file there in seal.key_file, the former one in seal.older_key_files, and reload; {anyway}",
        )
    if others := [node.name for node in known if node.sealing_key != key]:
        raise Refusal(
            f"not sealed anew: {_nodes(others)} and still seals with another key than {key}",
            hint=f"exchange seal.key_file there, too, and reload; {anyway}",
        )
    if silent:
        raise Refusal(
            f"not sealed anew: {silent} more running on this database cannot say which keys they have",
            hint="they are of an older version: upgrade them, or stop them; --anyway goes on all the same",
        )


async def walk(context: Context, start: Position, *, dry_run: bool, seconds: float) -> tuple[Tally, Position | None]:
    """Seal anew what is not current, for about so long; where to go on, None at the end."""
    clock = asyncio.get_running_loop().time
    give_up_at = clock() + seconds
    tally = Tally()
    position: Position | None = start
    while position is not None:
        position = await _step(context, position, tally, dry_run=dry_run)
        if clock() >= give_up_at:
            break
    return tally, position


async def _step(context: Context, position: Position, tally: Tally, *, dry_run: bool) -> Position | None:
    column = SEALED_COLUMNS[position.column]
    async with context.reading() as connection:
        values = await sealed.read(connection, column, position.after, BATCH)
    if not values:
        following = position.column + 1
        return Position(following) if following < len(SEALED_COLUMNS) else None
    await _exchange(context, column, values, tally, dry_run=dry_run)
    return Position(position.column, values[-1].key)


async def _exchange(
    context: Context, column: SealedColumn, values: list[SealedValue], tally: Tally, *, dry_run: bool
) -> None:
    for _ in range(_TRIES):
        anew = _sealed_anew(context.house.seal, column, values, tally)
        if dry_run:
            tally.resealed += len(anew)
            return
        if not anew:
            return
        async with context.writing() as connection:
            done = await sealed.exchange(connection, column, anew)
        failpoints.reach("rotate-batch")
        tally.resealed += len(done)
        missed = [value.key for value, _ in anew if value.key not in done]
        if not missed:
            return
        async with context.reading() as connection:
            values = await sealed.read_again(connection, column, missed)
    tally.changing += len(values)


def _sealed_anew(
    seal: Seal, column: SealedColumn, values: list[SealedValue], tally: Tally
) -> list[tuple[SealedValue, bytes]]:
    anew = []
    for value in values:
        row = column.row(value.key)
        try:
            # Those that are current are opened as well: a damaged one should be known before it is needed.
            plaintext = seal.open(value.sealed, row=row)
        except SealError as error:
            tally.closed.append(Closed(row, value.label, str(error)))
            continue
        if seal.is_current(value.sealed):
            tally.current += 1
        else:
            anew.append((value, seal.seal(plaintext, row=row)))
    return anew


def _anew(seal: Seal, value: bytes, row: str) -> bytes:
    try:
        return seal.seal(seal.open(value, row=row), row=row)
    except SealError as error:
        raise Refusal(f"not sealed anew: {error}") from None


def _nodes(names: list[str]) -> str:
    return f"node {names[0]} runs" if len(names) == 1 else f"nodes {', '.join(names)} run"

"""Bring the schema up and down: plain SQL files `NNNN_name.up.sql` and `.down.sql`, each in one transaction.

One at a time in the whole cluster, under an advisory lock. A database newer than this code is left as it is: nodes
of neighbouring versions run side by side.
"""

import hashlib
import re
from collections.abc import AsyncIterator, Sequence
from contextlib import asynccontextmanager
from dataclasses import dataclass
from datetime import datetime
from enum import StrEnum
from pathlib import Path

import asyncpg

from relayd.errors import RelaydError
from relayd.store import locks
from relayd.store.connection import Connection, reason
from relayd.store.nodes import APPLICATION

_FILE_NAME = re.compile(r"(?P<version>\d{4})_(?P<title>[a-z0-9_]+)\.(?P<direction>up|down)\.sql")
_LOCK = 0x72656C6179  # "relay"
_LONGEST_SECONDS = 24 * 3600.0


class State(StrEnum):
    APPLIED = "applied"
    PENDING = "pending"
    CHANGED = "changed"  # applied, but its file is another one now
    UNKNOWN = "unknown"  # applied by a newer relayd


@dataclass(frozen=True, slots=True)
class Migration:
    """One version: `name` is the files' without the ending (`0001_foundation`), `checksum` the up file's."""

    version: int
    name: str
    checksum: str
    up_sql: str
    down_sql: str | None


@dataclass(frozen=True, slots=True)
class Loss:
    """Rows that undoing drops, of a table (`what` is its name), or values of a column (`table.column`)."""

    what: str
    rows: int


@dataclass(frozen=True, slots=True)
class MigrationStatus:
    version: int
    name: str
    applied_at: datetime | None
    state: State


# Records what has been applied; the primary key is all it needs.
_CREATE_TABLE = """
CREATE TABLE IF NOT EXISTS schema_migrations (
    version integer PRIMARY KEY,
    name text NOT NULL,
    checksum text NOT NULL,
    applied_at timestamptz NOT NULL DEFAULT clock_timestamp()
)
"""

# Whether anything was ever applied here; a catalogue lookup.
_TABLE_EXISTS = "SELECT to_regclass('schema_migrations') IS NOT NULL"

# Everything applied; a handful of rows.
_APPLIED = "SELECT version, name, checksum, applied_at FROM schema_migrations ORDER BY version"

# Notes one as applied, in its own transaction; by primary key.
_NOTE = "INSERT INTO schema_migrations (version, name, checksum) VALUES ($1, $2, $3)"

# Notes one as undone, in its own transaction; by primary key.
_FORGET = "DELETE FROM schema_migrations WHERE version = $1"

# Waits for whoever else migrates; held by the session, over several transactions.
_TAKE_LOCK = "SELECT pg_advisory_lock($1)"

# Gives it back; the pool would not.
_RELEASE_LOCK = "SELECT pg_advisory_unlock($1)"

# The tables' columns, and the statements that count what is in them. What is computed from others is no loss.
_COLUMNS = """
SELECT c.relname::text AS "table", a.attname::text AS "column",
       format('SELECT count(*) FROM %I', c.relname) AS count_rows,
       format('SELECT count(*) FROM %I WHERE %I IS DISTINCT FROM (%s)', c.relname, a.attname,
              COALESCE(pg_get_expr(d.adbin, d.adrelid), 'NULL')) AS count_values
  FROM pg_class c
  JOIN pg_attribute a ON a.attrelid = c.oid
  LEFT JOIN pg_attrdef d ON d.adrelid = c.oid AND d.adnum = a.attnum
 WHERE c.relnamespace = current_schema()::regnamespace AND c.relkind IN ('r', 'p') AND NOT c.relispartition
   AND a.attnum > 0 AND NOT a.attisdropped AND a.attgenerated = '' AND c.relname <> 'schema_migrations'
 ORDER BY 1, a.attnum
"""

# Migrations take as long as they take; returns what to put back.
_GET_STATEMENT_TIMEOUT = "SELECT current_setting('statement_timeout')"

# For this session.
_SET_STATEMENT_TIMEOUT = "SELECT set_config('statement_timeout', $1, false)"


async def up(
    connection: Connection, target: int | None = None, *, directory: Path | None = None
) -> list[MigrationStatus]:
    """Apply what is pending, up to `target` if given; return what was applied, in order.

    Nothing is done to a database newer than this code (status() shows its migrations as unknown).
    """
    migrations = read_migrations(directory)
    if target is not None and target not in {migration.version for migration in migrations}:
        raise RelaydError(f"there is no migration {target}: relayd migrate status lists them")
    async with _alone(connection):
        await connection.execute(_CREATE_TABLE)
        before = await _status(connection, migrations)
        _refuse_changed(before)
        wanted = [entry.version for entry in before if entry.state is State.PENDING]
        if wanted and any(entry.state is State.UNKNOWN for entry in before):
            raise RelaydError("the database is newer than this relayd and yet lacks migrations: use the newer relayd")
        for migration in migrations:
            if migration.version in wanted and (target is None or migration.version <= target):
                await _apply(connection, migration)
        after = await _status(connection, migrations)
    return [entry for entry in after if entry.version in wanted and entry.state is State.APPLIED]


async def to_undo(
    connection: Connection, target: int | None = None, *, steps: int = 1, directory: Path | None = None
) -> list[MigrationStatus]:
    """The last `steps` migrations, or all above `target` (0: all), the newest first. Raises RelaydError if one of them
    cannot be undone, or a node runs that would go on with the tables gone.
    """
    migrations = {migration.version: migration for migration in read_migrations(directory)}
    if target is not None and target != 0 and target not in migrations:
        raise RelaydError(f"there is no migration {target}: relayd migrate status lists them; 0 takes all of them back")
    if target is None and steps < 1:
        raise RelaydError("--steps must be 1 or more")
    applied = [entry for entry in await _status(connection, list(migrations.values())) if entry.applied_at]
    applied.reverse()
    doomed = applied[:steps] if target is None else [entry for entry in applied if entry.version > target]
    _refuse_changed(doomed)
    for entry in doomed:
        if entry.state is State.UNKNOWN:
            raise RelaydError(f"migration {entry.name} is of a newer relayd: only that one can undo it")
        if migrations[entry.version].down_sql is None:
            raise RelaydError(f"migration {entry.name} cannot be undone: {entry.name}.down.sql is missing")
    held = await locks.held_by_anybody(connection, application=APPLICATION)
    if nodes := sum(held.values()):
        raise RelaydError(
            f"{nodes} {'node runs' if nodes == 1 else 'nodes run'} on this database: stop relayd on every node first "
            "(systemctl stop relayd)"
        )
    return doomed


async def losses(
    connection: Connection, doomed: Sequence[MigrationStatus], *, directory: Path | None = None
) -> list[Loss]:
    """What undoing these would drop. Tries it in a transaction that is rolled back: as slow as `down` itself."""
    migrations = {migration.version: migration for migration in read_migrations(directory)}
    columns = await connection.fetch(_COLUMNS)
    rows_before = await _count_rows(connection, columns)
    transaction = connection.transaction()
    await transaction.start()
    try:
        for entry in doomed:
            await _run_file(connection, f"{entry.name}.down.sql", migrations[entry.version].down_sql or "")
        left = await connection.fetch(_COLUMNS)
        rows_after = await _count_rows(connection, left)
    finally:
        await transaction.rollback()
    found = [Loss(table, rows - rows_after.get(table, 0)) for table, rows in rows_before.items()]
    kept = {(row["table"], row["column"]) for row in left}
    for row in columns:
        if row["table"] in rows_after and (row["table"], row["column"]) not in kept:
            values = await connection.fetchval(row["count_values"], timeout=_LONGEST_SECONDS)
            found.append(Loss(f"{row['table']}.{row['column']}", values))
    found = [loss for loss in found if loss.rows > 0]
    return sorted(found, key=lambda loss: loss.what)


async def down(
    connection: Connection, target: int | None = None, *, steps: int = 1, directory: Path | None = None
) -> list[MigrationStatus]:
    """Undo what `to_undo` says; return it as it was, in the order undone."""
    migrations = {migration.version: migration for migration in read_migrations(directory)}
    async with _alone(connection):
        doomed = await to_undo(connection, target, steps=steps, directory=directory)
        for entry in doomed:
            await _undo(connection, migrations[entry.version])
    return doomed


async def status(connection: Connection, *, directory: Path | None = None) -> list[MigrationStatus]:
    """Every migration that the files or the database know, by version. Writes nothing."""
    return await _status(connection, read_migrations(directory))


async def pending(connection: Connection, directory: Path | None = None) -> list[MigrationStatus]:
    """What this code needs and the database lacks."""
    return [entry for entry in await status(connection, directory=directory) if entry.state is State.PENDING]


def find_directory() -> Path:
    """The migrations that belong to this code: inside the installed package, or at the top of a checkout."""
    package = Path(__file__).resolve().parents[1]
    for directory in (package / "migrations", package.parent / "migrations"):
        if directory.is_dir():
            return directory
    raise RelaydError(f"relayd's migrations are missing: neither in {package} nor beside it")


def read_migrations(directory: Path | None = None) -> list[Migration]:
    """The migrations of `directory` (default: this code's), by version. Misnamed files are refused, not skipped."""
    directory = directory or find_directory()
    found: dict[int, Migration] = {}
    files = {path.name: path for path in sorted(directory.glob("*.sql"))}
    for file_name, path in files.items():
        parts = _FILE_NAME.fullmatch(file_name)
        if parts is None:
            raise RelaydError(f"{path} is not named as a migration: NNNN_name.up.sql or NNNN_name.down.sql")
        version, name = int(parts["version"]), f"{parts['version']}_{parts['title']}"
        if f"{name}.up.sql" not in files:
            raise RelaydError(f"{path} undoes nothing: there is no {name}.up.sql")
        if parts["direction"] == "down":
            continue
        if version in found:
            raise RelaydError(f"two migrations have the number {version}: {found[version].name} and {name}")
        sql = path.read_bytes()
        down_file = files.get(f"{name}.down.sql")
        down_sql = down_file.read_text("utf-8") if down_file else None
        found[version] = Migration(version, name, hashlib.sha256(sql).hexdigest(), sql.decode(), down_sql)
    return list(found.values())


@asynccontextmanager
async def _alone(connection: Connection) -> AsyncIterator[None]:
    statement_timeout = await connection.fetchval(_GET_STATEMENT_TIMEOUT)
    await connection.fetchval(_SET_STATEMENT_TIMEOUT, "0")
    await connection.fetchval(_TAKE_LOCK, _LOCK, timeout=_LONGEST_SECONDS)
    try:
        yield
    finally:
        if not connection.is_closed():
            await connection.fetchval(_RELEASE_LOCK, _LOCK)
            await connection.fetchval(_SET_STATEMENT_TIMEOUT, statement_timeout)


async def _status(connection: Connection, migrations: list[Migration]) -> list[MigrationStatus]:
    rows = await connection.fetch(_APPLIED) if await connection.fetchval(_TABLE_EXISTS) else []
    applied = {row["version"]: row for row in rows}
    entries = []
    for migration in migrations:
        row = applied.pop(migration.version, None)
        if row is None:
            entries.append(MigrationStatus(migration.version, migration.name, None, State.PENDING))
        else:
            state = State.APPLIED if row["checksum"] == migration.checksum else State.CHANGED
            entries.append(MigrationStatus(migration.version, migration.name, row["applied_at"], state))
    entries += [
        MigrationStatus(row["version"], row["name"], row["applied_at"], State.UNKNOWN) for row in applied.values()
    ]
    return sorted(entries, key=lambda entry: entry.version)


def _refuse_changed(entries: list[MigrationStatus]) -> None:
    for entry in entries:
        if entry.state is State.CHANGED:
            raise RelaydError(
                f"{entry.name}.up.sql was changed after it was applied: restore it, and add a new file for more"
            )


async def _apply(connection: Connection, migration: Migration) -> None:
    async with _one_transaction(connection, f"{migration.name}.up.sql", migration.up_sql):
        await connection.execute(_NOTE, migration.version, migration.name, migration.checksum)


async def _undo(connection: Connection, migration: Migration) -> None:
    assert migration.down_sql is not None
    async with _one_transaction(connection, f"{migration.name}.down.sql", migration.down_sql):
        await connection.execute(_FORGET, migration.version)


async def _count_rows(connection: Connection, columns: Sequence[asyncpg.Record]) -> dict[str, int]:
    statements = {row["table"]: row["count_rows"] for row in columns}
    return {
        table: await connection.fetchval(statement, timeout=_LONGEST_SECONDS) for table, statement in statements.items()
    }


@asynccontextmanager
async def _one_transaction(connection: Connection, file_name: str, sql: str) -> AsyncIterator[None]:
    """Run the file's SQL, then what the caller adds, all or nothing."""
    async with connection.transaction():
        await _run_file(connection, file_name, sql)
        yield


async def _run_file(connection: Connection, file_name: str, sql: str) -> None:
    try:
        # Without arguments: many statements, $$ bodies included.
        await connection.execute(sql, timeout=_LONGEST_SECONDS)
    except asyncpg.PostgresError as error:
        position = int(error.as_dict().get("position") or 0)
        place = f"{file_name} line {sql.count(chr(10), 0, position) + 1}" if position else file_name
        raise RelaydError(f"migration failed, nothing of it was kept: {place}: {reason(error)}") from error

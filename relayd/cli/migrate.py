"""`relayd migrate`."""

import asyncio
from collections.abc import Awaitable, Callable
from pathlib import Path
from typing import Annotated

from cyclopts import App, Parameter

from relayd.cli import output
from relayd.cli.operating import Yes, agreed
from relayd.config import secrets
from relayd.config.load import load
from relayd.daemon.storage import open_database
from relayd.store import migrate
from relayd.store.connection import Connection
from relayd.store.migrate import Loss, MigrationStatus, State

app = App(name="migrate", help="Bring the database's tables to this version, or back.")

Config = Annotated[Path, Parameter(help="The configuration file.")]
Target = Annotated[int | None, Parameter(help="Go to this version.")]


@app.command
def up(*, config: Config, to: Target = None) -> None:
    """Apply what is pending."""
    applied = _with_database(config, lambda connection: migrate.up(connection, to))
    for each in applied:
        output.write(f"applied {each.name}")
    if not applied:
        output.write("nothing to apply")


@app.command
def down(*, config: Config, to: Target = None, steps: int = 1, yes: Yes = False) -> int:
    """Take migrations back, the newest first: `steps` of them, or all above `--to` (0: all).

    Says what is lost with them and asks. Refused while a node runs on the database.
    """
    losses: list[Loss] = []

    async def plan(connection: Connection) -> list[MigrationStatus]:
        doomed = await migrate.to_undo(connection, to, steps=steps)
        losses.extend(await migrate.losses(connection, doomed))
        return doomed

    doomed = _with_database(config, plan)
    if not doomed:
        output.write("nothing to take back")
        return 0
    for loss in losses:
        output.hint(f"lost for good: {loss.what}: {loss.rows:,} {_unit(loss)}")
    names = ", ".join(each.name for each in doomed)
    if not agreed(f"take back {names}", yes=yes):
        return 1
    # To a version, not by steps: what somebody else took back meanwhile counts.
    kept = [each.version for each in migrate.read_migrations() if each.version < doomed[-1].version]
    target = max(kept, default=0) if to is None else to
    for each in _with_database(config, lambda connection: migrate.down(connection, target)):
        output.write(f"took back {each.name}")
    return 0


@app.command
def status(*, config: Config) -> int:
    """List the migrations and where each stands. Exit code 1 when something is pending or wrong."""
    found = _with_database(config, migrate.status)
    for each in found:
        when = f"{each.applied_at:%Y-%m-%d %H:%M:%S} UTC" if each.applied_at else ""
        output.write(f"{each.name:<29} {each.state:<8} {when}".rstrip())
    return int(any(each.state is not State.APPLIED for each in found))


def _unit(loss: Loss) -> str:
    word = "value" if "." in loss.what else "row"
    return word if loss.rows == 1 else f"{word}s"


def _with_database(
    config: Path, work: Callable[[Connection], Awaitable[list[MigrationStatus]]]
) -> list[MigrationStatus]:
    settings = load(config)
    password = secrets.database_password(settings)

    async def run() -> list[MigrationStatus]:
        database = await open_database(settings.database, password, name="relayd migrate")
        try:
            async with database.connection() as connection:
                return await work(connection)
        finally:
            await database.close()

    return asyncio.run(run())

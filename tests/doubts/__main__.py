"""`python -m tests.doubts`: 1,000 messages a route, each dropped once without a reply; a line for each route.

Exit code 1: a doubt was not recorded, a message was lost, or doubled where it should not be.
"""

import argparse
import asyncio
import sys
import tempfile
import time
from pathlib import Path

from relayd.embedded import EmbeddedPostgres
from tests.conftest import FreshDatabase, _execute, _migrate, state_directory_of_its_own, wanted_major
from tests.doubts.scene import Report, Route, play
from tests.peers.mail import Authority


async def _play(main_database: FreshDatabase, route: Route, count: int, files: Path) -> Report:
    name = f"doubts_{route.name.lower()}"
    await _execute(main_database, f"CREATE DATABASE {name}")
    await _migrate(main_database.named(name))
    db = await main_database.named(name).open()
    try:
        return await play(db, Authority(files), route, count)
    finally:
        await db.close()


def main() -> int:
    """Play every route; 0 if all went well."""
    parser = argparse.ArgumentParser(prog="python -m tests.doubts", description=__doc__)
    parser.add_argument("--route", choices=[route.name for route in Route], help="this one alone")
    parser.add_argument("--messages", type=int, default=1000)
    asked = parser.parse_args()
    is_well = True
    with (
        state_directory_of_its_own() as state,
        tempfile.TemporaryDirectory(prefix="relayd-doubts-") as files,
        EmbeddedPostgres(state, durable=False, major=wanted_major()) as server,
    ):
        for route in [Route[asked.route]] if asked.route else Route:
            began = time.monotonic()
            report = asyncio.run(_play(FreshDatabase(server.dsn, server.password), route, asked.messages, Path(files)))
            is_well &= report.is_well
            sys.stdout.write(
                f"{report} ({'well' if report.is_well else 'NOT WELL'}, {time.monotonic() - began:.0f} s)\n"
            )
            sys.stdout.flush()
    return 0 if is_well else 1


if __name__ == "__main__":
    sys.exit(main())

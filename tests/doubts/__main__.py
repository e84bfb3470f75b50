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
from tests.doubts import smtp_sink
from tests.doubts.scene import Report, Route, play
from tests.peers.mail import Authority


async def _play(main_database: FreshDatabase, route: Route, count: int, files: Path, *, by_smtp_sink: bool) -> Report:
    name = f"doubts_{route.name.lower()}"
    await _execute(main_database, f"CREATE DATABASE {name}")
    await _migrate(main_database.named(name))
    db = await main_database.named(name).open()
    try:
        if by_smtp_sink:
            return await smtp_sink.play(db, files, route, count)
        return await play(db, Authority(files), route, count)
    finally:
        await db.close()


def main() -> int:
    """Play every route; 0 if all went well."""
    parser = argparse.ArgumentParser(prog="python -m tests.doubts", description=__doc__)
    parser.add_argument("--route", choices=[route.name for route in Route], help="this one alone")
    parser.add_argument("--messages", type=int, default=1000)
    parser.add_argument("--smtp-sink", action="store_true", help="Postfix's as the upstream, for what goes by SMTP")
    asked = parser.parse_args()
    routes = [Route[asked.route]] if asked.route else [*(smtp_sink.ROUTES if asked.smtp_sink else Route)]
    is_well = True
    with (
        state_directory_of_its_own() as state,
        tempfile.TemporaryDirectory(prefix="relayd-doubts-") as files,
        EmbeddedPostgres(state, durable=False, major=wanted_major()) as server,
    ):
        Path(files).chmod(0o711)  # smtp-sink is nobody
        for route in routes:
            began = time.monotonic()
            database, directory = FreshDatabase(server.dsn, server.password), Path(files, route.name)
            directory.mkdir()
            playing = _play(database, route, asked.messages, directory, by_smtp_sink=asked.smtp_sink)
            report = asyncio.run(playing)
            is_well &= report.is_well
            sys.stdout.write(
                f"{report} ({'well' if report.is_well else 'NOT WELL'}, {time.monotonic() - began:.0f} s)\n"
            )
            sys.stdout.flush()
    return 0 if is_well else 1


if __name__ == "__main__":
    sys.exit(main())

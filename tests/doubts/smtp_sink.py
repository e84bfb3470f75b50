"""The same with Postfix's smtp-sink as the upstream: it takes each message, keeps it in a file, and hangs up.

Where attempts are repeated, one that replies stands in its place for the second.
"""

import re
import socket
from collections import Counter
from collections.abc import Sequence
from pathlib import Path

from relayd.store.pool import Database
from relayd.upstream.gmail import GmailSettings
from tests.doubts.scene import LEAP_SECONDS, House, Report, Route
from tests.peers.postfix import SmtpSink
from tests.peers.tokens import Tokens

ROUTES = (Route.HOLD, Route.RETRY)
_RECIPIENT = re.compile(rb"(?m)^X-Rcpt-Args: <([^>]*)>")


async def play(db: Database, directory: Path, route: Route, count: int) -> Report:
    """Deliver `count` messages into a sink that never replies, then what is repeated into one that does."""
    port = _free_port()
    dropping, replying = SmtpSink(directory, port, is_dropping=True), SmtpSink(directory, port)
    async with House.opened(db, route, port, GmailSettings(Tokens(), per_mailbox=True)) as house:
        with dropping:
            await house.put(count)
            await house.until_quiet()
        with replying:
            await house.leap(LEAP_SECONDS)
            await house.until_quiet()
        arrived = _recipients(dropping.mail()) + _recipients(replying.mail())
        return await house.report(count, Counter(arrived[f"user{n}@example.net"] for n in range(count)))


def _recipients(mail: Sequence[bytes]) -> "Counter[str]":
    return Counter(found.group(1).decode() for each in mail if (found := _RECIPIENT.search(each)))


def _free_port() -> int:
    with socket.socket() as probe:
        probe.bind(("127.0.0.1", 0))
        port: int = probe.getsockname()[1]
        return port

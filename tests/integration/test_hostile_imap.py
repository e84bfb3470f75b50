"""IMAP servers that send more than was asked for: relayd hangs up before it has read much of it."""

import asyncio
import ssl
from collections.abc import AsyncIterator
from contextlib import asynccontextmanager
from dataclasses import dataclass, field
from pathlib import Path

import pytest
import trustme

from relayd.inbox.imap import HEADER_OCTETS, ImapInbox, ImapSettings
from relayd.inbox.reading import InboxError, Position
from tests.peers.imap_server import ImapServer

CHUNK = 65_536
# What fits into buffers on the way, beside the 4 MiB that an answer may have.
MOST_OCTETS = 16 * 1024 * 1024
TOO_MUCH = r"sends (more than was asked for|a line without end)"
MAIL = b"From: a@b.cc\r\nSubject: x\r\n\r\n"


@dataclass
class Flood(ImapServer):
    """Answers one verb with a beginning and a unit that is repeated until the client hangs up."""

    verb: bytes = b""
    begin: bytes = b""
    unit: bytes = b""
    sent: int = 0
    tasks: list["asyncio.Task[None]"] = field(default_factory=list)

    def obey(self, writer: asyncio.StreamWriter, tag: bytes, verb: bytes, rest: bytes) -> None:
        if verb == self.verb:
            self.tasks.append(asyncio.create_task(self.flood(writer)))
        else:
            super().obey(writer, tag, verb, rest)

    async def flood(self, writer: asyncio.StreamWriter) -> None:
        writer.write(self.begin)
        chunk = self.unit * (CHUNK // len(self.unit) + 1)
        try:
            while self.sent < 4 * MOST_OCTETS and not writer.is_closing():
                writer.write(chunk)
                self.sent += len(chunk)
                await writer.drain()
                await asyncio.sleep(0.001)  # a client that hangs up is to be noticed
        except (ConnectionError, ssl.SSLError):
            return


@asynccontextmanager
async def flooding(tmp_path: Path, verb: bytes, begin: bytes, unit: bytes) -> AsyncIterator[tuple[Flood, ImapSettings]]:
    authority = trustme.CA()
    ca_file = tmp_path / "ca.pem"
    authority.cert_pem.write_to_path(str(ca_file))
    context = ssl.SSLContext(ssl.PROTOCOL_TLS_SERVER)
    authority.issue_cert("localhost").configure_cert(context)
    account = Flood(verb=verb, begin=begin, unit=unit)
    account.add(MAIL)
    server = await asyncio.start_server(account.serve, "127.0.0.1", 0, ssl=context)
    port = server.sockets[0].getsockname()[1]
    try:
        yield account, ImapSettings("localhost", port, "implicit", account.username, account.password,
                                    ca_file=str(ca_file), timeout_seconds=20)  # fmt: skip
    finally:
        server.close()
        for task in account.tasks:
            task.cancel()
        await asyncio.gather(*account.tasks, return_exceptions=True)


@pytest.mark.parametrize(
    ("begin", "unit"),
    [
        (b"* 1 FETCH (UID 1 BODY[HEADER]<0> {4294967296}\r\n", b"x" * 100),
        (b"* 1 FETCH (UID 1 BODY[HEADER]<0> {%d}\r\n" % (HEADER_OCTETS + 1_000_000), b"x" * 100),
        (b"* 1 FETCH (UID 1 BODY[HEADER]<0> ", b"x" * 100),
        (b"", b"* 1 FETCH (X {10}\r\n0123456789)\r\n"),
        (b"* 1 FETCH (X ", b"{1}\r\nx "),
        (b"", b"* 1 EXISTS\r\n"),
        (b"", b"* OK " + b"x" * 60_000 + b"\r\n"),
    ],
)
async def test_a_flood_in_place_of_a_header_ends_the_connection(tmp_path: Path, begin: bytes, unit: bytes) -> None:
    async with flooding(tmp_path, b"UID FETCH", begin, unit) as (account, settings):
        inbox = await ImapInbox.open(settings, Position(7, 0))
        with pytest.raises(InboxError, match=TOO_MUCH):
            await inbox.fresh(10)
        assert account.tasks
        await asyncio.wait(account.tasks, timeout=20)
        assert account.sent < MOST_OCTETS
        await inbox.close()


@pytest.mark.parametrize("verb", [b"CAPABILITY", b"LOGIN", b"EXAMINE", b"UID SEARCH"])
@pytest.mark.parametrize(
    ("begin", "unit"), [(b"* X {9999999999}\r\n", b"x" * 99), (b"* SEARCH", b" 1"), (b"", b"* OK\r\n")]
)
async def test_a_flood_in_place_of_any_answer_does(tmp_path: Path, verb: bytes, begin: bytes, unit: bytes) -> None:
    async with flooding(tmp_path, verb, begin, unit) as (account, settings):
        with pytest.raises(InboxError, match=TOO_MUCH):
            await opened_and_looked_at(settings)
        await asyncio.wait(account.tasks, timeout=20)
        assert account.tasks and account.sent < MOST_OCTETS


async def opened_and_looked_at(settings: ImapSettings) -> None:
    inbox = await ImapInbox.open(settings, Position(7, 0))
    await inbox.fresh(10)


async def test_a_message_of_the_size_that_was_asked_for_is_read(tmp_path: Path) -> None:
    async with flooding(tmp_path, b"NOOP", b"", b"x") as (account, settings):
        account.messages[1] = MAIL + b"y" * 3_000_000
        inbox = await ImapInbox.open(settings, Position(7, 0))
        (fresh,), _ = await inbox.fresh(10)
        assert len(await inbox.whole(fresh, 2_000_000)) == 2_000_000
        assert await inbox.whole(fresh, 10) == MAIL[:10]
        await inbox.close()

"""The wire's bytes: dots are stuffed wherever a block happens to end."""

import asyncio
import random

import pytest

from relayd.rules.outcome import Stage
from relayd.upstream.connection import Connection, bare_host, stuffed_blocks
from tests.peers.mail import settings


def stuffed_by_lines(content: bytes) -> bytes:
    return b"\r\n".join(b"." + line if line.startswith(b".") else line for line in content.split(b"\r\n"))


@pytest.mark.parametrize("block_octets", [1, 2, 3, 5, 64 * 1024])
def test_dots_are_stuffed_as_line_by_line_whatever_the_blocks(block_octets: int) -> None:
    seeded = random.Random(1)
    for _ in range(2000):
        content = b"".join(seeded.choices([b"\r\n", b".", b"a", b"..", b"\r\n.\r\n"], k=seeded.randrange(12)))
        assert b"".join(stuffed_blocks(content, block_octets)) == stuffed_by_lines(content)


def test_a_large_content_comes_in_bounded_blocks() -> None:
    assert max(len(block) for block in stuffed_blocks(b"x" * 1_000_000)) == 64 * 1024


@pytest.mark.parametrize(
    ("host", "bare"),
    [
        ("mail.example.org", "mail.example.org"),
        ("192.0.2.1", "192.0.2.1"),
        ("[192.0.2.1]", "192.0.2.1"),
        ("2001:db8::1", "2001:db8::1"),
        ("[2001:db8::1]", "2001:db8::1"),
        ("[IPv6:2001:db8::1]", "2001:db8::1"),
    ],
)
def test_a_literal_loses_its_brackets(host: str, bare: str) -> None:
    assert bare_host(host) == bare


class SlowTransport(asyncio.Transport):
    """Takes a message into its buffer, then hands all of it to the kernel, or loses the connection first."""

    def __init__(self, connection: Connection, *, is_flushed: bool) -> None:
        super().__init__()
        self._protocol, self._is_flushed, self._held = connection._protocol, is_flushed, 0
        self._is_lost = False

    def write(self, data: bytes) -> None:
        self._held = len(data)
        self._protocol.pause_writing()
        asyncio.get_running_loop().call_soon(self._go_on)

    def _go_on(self) -> None:
        self._held = 0
        if self._is_flushed:
            self._protocol.resume_writing()
        self._is_lost = True
        self._protocol.connection_lost(ConnectionResetError("gone"))

    def get_write_buffer_size(self) -> int:
        return self._held

    def set_write_buffer_limits(self, high: int | None = None, low: int | None = None) -> None:
        pass

    def is_closing(self) -> bool:
        return self._is_lost


@pytest.mark.parametrize(("is_flushed", "stage"), [(True, Stage.DOT), (False, Stage.DATA)])
async def test_a_dot_that_waited_in_our_buffer_has_gone_once_the_buffer_is_empty(
    is_flushed: bool, stage: Stage
) -> None:
    connection = Connection(settings(25))
    connection._protocol.connection_made(SlowTransport(connection, is_flushed=is_flushed))
    connection.stage = Stage.DATA
    with pytest.raises(ConnectionError):
        await connection.send_content(b"a: b\r\n\r\nhello\r\n")
    assert connection.stage is stage

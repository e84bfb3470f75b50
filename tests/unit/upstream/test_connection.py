"""The wire's bytes: dots are stuffed wherever a block happens to end."""

import random

import pytest

from relayd.upstream.connection import bare_host, stuffed_blocks


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

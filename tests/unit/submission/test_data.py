"""The end of data, however the stream is cut."""

from itertools import pairwise

import pytest
from hypothesis import given
from hypothesis import strategies as st

from relayd.rules.session_events import Reason
from relayd.submission.data import IncomingMessage


def read(
    *chunks: bytes, size_octets: int = 10_000, max_line_octets: int = 1_000, beginning_octets: int | None = None
) -> tuple[bytes | Reason, bytes]:
    incoming = IncomingMessage(
        size_octets=size_octets, max_line_octets=max_line_octets, beginning_octets=beginning_octets
    )
    for number, chunk in enumerate(chunks):
        surplus = incoming.feed(chunk)
        if surplus is not None:
            return incoming.finish(), surplus + b"".join(chunks[number + 1 :])
    raise AssertionError("no end of data")


def stuffed(content: bytes) -> bytes:
    return (b"\r\n" + content).replace(b"\r\n.", b"\r\n..")[2:] + b".\r\n"


CASES = [
    (b".\r\n", b""),
    (b"..\r\n.\r\n", b".\r\n"),
    (b"a\r\n.\r\n", b"a\r\n"),
    (b"a\r\n..b\r\n.\r\n", b"a\r\n.b\r\n"),
    (b".a\r\n.\r\n", b"a\r\n"),
    (b"\r\n\r\n.\r\n", b"\r\n\r\n"),
    (b"a\r\n...\r\n.\r\n", b"a\r\n..\r\n"),
    (b"a\n.\r\nb\r\n.\r\n", Reason.BARE_LF),
    (b"a\r\n.\nb\r\n.\r\n", Reason.BARE_LF),
    (b"a\n.\nb\r\n.\r\n", Reason.BARE_LF),
    (b"a\r.\rb\r\n.\r\n", Reason.BARE_CR),
    (b"a\r\n.\rb\r\n.\r\n", Reason.BARE_CR),
    (b"a\r.\r\nb\r\n.\r\n", Reason.BARE_CR),
    (b"a\r\r\n.\r\n", Reason.BARE_CR),
    (b"a\n\r\r\n.\r\n", Reason.BARE_LF),
    (b"a\x00b\r\n.\r\n", Reason.NUL),
]


@pytest.mark.parametrize(("stream", "expected"), CASES)
def test_only_crlf_dot_crlf_ends_a_message(stream: bytes, expected: bytes | Reason):
    assert read(stream + b"QUIT\r\n") == (expected, b"QUIT\r\n")


@pytest.mark.parametrize(("stream", "expected"), CASES)
def test_a_byte_at_a_time_is_the_same(stream: bytes, expected: bytes | Reason):
    assert read(*(bytes([octet]) for octet in stream)) == (expected, b"")


lines = st.lists(st.one_of(st.sampled_from([b"", b".", b"..", b".a"]), st.binary(max_size=8)), max_size=12).map(
    lambda parts: b"".join(part.translate(None, b"\r\n\0") + b"\r\n" for part in parts)
)


@given(content=lines, after=st.binary(max_size=10), cuts=st.lists(st.integers(0, 200), max_size=12))
def test_any_cut_gives_the_same_content_and_surplus(content: bytes, after: bytes, cuts: list[int]):
    stream = stuffed(content) + after
    borders = [0, *sorted(min(cut, len(stream)) for cut in cuts), len(stream)]
    chunks = [stream[start:end] for start, end in pairwise(borders)]
    assert read(*chunks) == (content, after)


@given(
    content=st.lists(st.sampled_from([b"a", b".", b"\r", b"\n", b"\r\n", b"\x00"]), max_size=20).map(b"".join),
    cuts=st.lists(st.integers(0, 60), max_size=8),
)
def test_any_cut_of_hostile_content_gives_the_same_verdict(content: bytes, cuts: list[int]):
    stream = content + b"\r\n.\r\n"
    borders = [0, *sorted(min(cut, len(stream)) for cut in cuts), len(stream)]
    chunks = [stream[start:end] for start, end in pairwise(borders)]
    assert read(*chunks) == read(stream)


@pytest.mark.parametrize(("octets", "fits"), [(100, True), (101, False), (10_000, False)])
def test_the_size_limit_counts_what_is_kept(octets: int, fits: bool):
    content = b"x" * (octets - 2) + b"\r\n"
    verdict, surplus = read(stuffed(content) + b"NOOP", size_octets=100, max_line_octets=100_000)
    assert (verdict, surplus) == (content if fits else Reason.TOO_LARGE, b"NOOP")


def test_stuffed_dots_do_not_count():
    content = b".\r\n" * 30
    assert read(stuffed(content), size_octets=90)[0] == content


def test_an_oversized_message_is_not_held():
    incoming = IncomingMessage(size_octets=1_000, max_line_octets=100_000)
    for _ in range(1_000):
        assert incoming.feed(b"x" * 1_000) is None
        assert len(incoming._held) < 3_000
    assert incoming.octets == 1_000_000


@pytest.mark.parametrize(("octets", "fits"), [(49, True), (50, True), (51, False), (500, False)])
@pytest.mark.parametrize("before", [b"", b"short\r\n" * 9])
def test_lines_up_to_the_limit_are_taken(octets: int, fits: bool, before: bytes):
    content = before + b"x" * octets + b"\r\nlast\r\n"
    verdict, _ = read(stuffed(content), max_line_octets=50)
    assert verdict == (content if fits else Reason.LINE_TOO_LONG)


@pytest.mark.parametrize("cut", [1, 7, 64, 5000])
def test_of_a_long_one_the_beginning_is_enough_where_so_much_is_wanted(cut: int):
    content = b"".join(b".line %04d\r\n" % number for number in range(300))
    stream = stuffed(content) + b"NOOP"
    chunks = [stream[begin : begin + cut] for begin in range(0, len(stream), cut)]
    verdict, surplus = read(*chunks, size_octets=5_000, beginning_octets=100)
    assert (verdict, surplus) == (content[:96], b"NOOP")  # eight whole lines of the first hundred octets


def test_of_a_long_one_no_more_than_the_beginning_is_held():
    incoming = IncomingMessage(size_octets=10_000_000, max_line_octets=1_000, beginning_octets=3_000)
    for _ in range(1_000):
        assert incoming.feed(b"x" * 98 + b"\r\n") is None
        assert incoming.held_octets < 5_000
    assert incoming.feed(b".\r\n") == b""
    assert incoming.finish() == (b"x" * 98 + b"\r\n") * 30


def test_even_what_is_thrown_away_has_a_limit():
    assert read(stuffed(b"x\r\n" * 40), size_octets=120, beginning_octets=30)[0] == b"x\r\n" * 10
    assert read(stuffed(b"x\r\n" * 41), size_octets=120, beginning_octets=30)[0] is Reason.TOO_LARGE


def test_a_beginning_without_a_line_end_is_not_taken_for_a_bare_cr():
    content = b"x" * 99 + b"\r\n" + b"y" * 50 + b"\r\n"
    assert read(stuffed(content), beginning_octets=100)[0] == b"x" * 99

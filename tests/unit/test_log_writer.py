"""The log's writer against real pipes: whatever becomes of its reader, nobody who logs waits for it."""

import fcntl
import logging
import os
import subprocess
import sys
import threading
from collections.abc import Iterator
from contextlib import suppress
from pathlib import Path

import pytest

from relayd.maillog import LineWriter, is_journal

LINE = "x" * 999
PIPE_OCTETS = 4096


@pytest.fixture
def pipe() -> Iterator[tuple[int, int]]:
    """Both ends of a small pipe, the reading one first."""
    reading, writing = os.pipe()
    fcntl.fcntl(writing, fcntl.F_SETPIPE_SZ, PIPE_OCTETS)
    yield reading, writing
    for each in (reading, writing):
        with suppress(OSError):
            os.close(each)


class Drops:
    """What a writer reports of dropped lines."""

    def __init__(self) -> None:
        self.count = 0
        self.reported: list[int] = []
        self.resumed = threading.Event()

    def drop(self) -> None:
        self.count += 1

    def resume(self, count: int) -> None:
        self.reported.append(count)
        self.resumed.set()


def read_lines(descriptor: int, count: int) -> list[bytes]:
    with open(os.dup(descriptor), "rb") as file:
        return [file.readline() for _ in range(count)]


def test_lines_arrive_whole_and_in_order(pipe: tuple[int, int]) -> None:
    writer = LineWriter(pipe[1])
    for number in range(100):
        writer.write(logging.INFO, f"line {number} jörg\udc80")
    expected = [f"line {number} jörg\\udc80\n".encode() for number in range(100)]
    assert read_lines(pipe[0], 100) == expected
    assert writer.flush()


def test_a_reader_that_hangs_stops_nobody_and_dropped_lines_are_counted_and_reported(pipe: tuple[int, int]) -> None:
    drops = Drops()
    writer = LineWriter(pipe[1], buffer_octets=100_000, on_drop=drops.drop, on_resume=drops.resume)
    for _ in range(500):
        writer.write(logging.INFO, LINE)
    # 100 lines fit into the buffer; the writer may have passed a few to the pipe before it stood still.
    assert 390 <= drops.count <= 400
    assert not writer.flush(0.01)
    assert read_lines(pipe[0], 500 - drops.count) == [LINE.encode() + b"\n"] * (500 - drops.count)
    assert drops.resumed.wait(10)
    assert sum(drops.reported) == drops.count
    writer.write(logging.INFO, "again")
    assert read_lines(pipe[0], 1) == [b"again\n"]


def test_a_slow_reader_gets_every_line_that_was_not_dropped(pipe: tuple[int, int]) -> None:
    os.set_blocking(pipe[1], False)
    writer = LineWriter(pipe[1])
    for number in range(200):
        writer.write(logging.INFO, f"{number:0999}")
    assert read_lines(pipe[0], 200) == [f"{number:0999}\n".encode() for number in range(200)]


def test_a_pipe_without_a_reader_and_a_closed_descriptor_stop_nothing(pipe: tuple[int, int]) -> None:
    os.close(pipe[0])
    writer = LineWriter(pipe[1])
    writer.write(logging.ERROR, LINE)
    assert writer.flush(10)
    os.close(pipe[1])
    writer.write(logging.ERROR, LINE)
    assert writer.flush(10)


@pytest.mark.parametrize(
    ("level", "prefix"),
    [
        (logging.DEBUG, b"<7>"),
        (logging.INFO, b"<6>"),
        (logging.WARNING, b"<4>"),
        (logging.ERROR, b"<3>"),
        (logging.CRITICAL, b"<2>"),
    ],
)
def test_journald_is_given_each_lines_priority(pipe: tuple[int, int], level: int, prefix: bytes) -> None:
    LineWriter(pipe[1], has_priorities=True).write(level, "a line")
    assert read_lines(pipe[0], 1) == [prefix + b"a line\n"]


def test_the_journal_is_known_by_its_stream_alone(pipe: tuple[int, int]) -> None:
    status = os.fstat(pipe[1])
    stream = f"{status.st_dev}:{status.st_ino}"
    assert is_journal(pipe[1], {"JOURNAL_STREAM": stream})
    assert not is_journal(pipe[1], {"JOURNAL_STREAM": "1:2"})
    assert not is_journal(pipe[1], {})
    assert not is_journal(987_654, {"JOURNAL_STREAM": stream})


def test_what_waits_is_written_when_the_process_ends(tmp_path: Path) -> None:
    target = tmp_path / "log"
    program = (
        "import sys; from relayd.maillog import LineWriter; writer = LineWriter(1)\n"
        "for number in range(1000): writer.write(20, str(number))"
    )
    with target.open("wb") as file:
        subprocess.run([sys.executable, "-c", program], stdout=file, check=True)
    assert target.read_text().split() == [str(number) for number in range(1000)]

"""The bench's instruments, each on something whose answer is known: real processes, real sockets."""

import os
import signal
import subprocess
import sys
from dataclasses import replace
from pathlib import Path

import pytest

from bench import cpu, proc, process
from bench.errors import BenchError
from bench.generator import read_timings
from bench.load import Load
from bench.loopback import free_port
from bench.sink import Sink
from bench.source import LOG, TIMINGS, start_source
from tests.e2e.conftest import need
from tests.e2e.house import wait_until

# Uses a third of a CPU second in a child that it waits for, and as much itself; then it waits to be ended.
_BURN = "import time\nwhile time.process_time() < 0.33: pass\n"
_FAMILY = f"""
import subprocess, sys, time
subprocess.run([sys.executable, "-c", {_BURN!r}])
{_BURN}
print("done", flush=True)
time.sleep(600)
"""
# Leaves a child behind that has left its session, as a daemon does; prints its pid, sweeps, and ends.
_ORPHANS = """
import subprocess, sys, time
from pathlib import Path
from bench import proc, process
process.become_subreaper()
log = Path(sys.argv[1])
process.run(["/bin/sh", "-c", "setsid sleep 600 & echo $!"], log=log)
give_up_at = time.monotonic() + 20
while [each.name for each in proc.descendants(__import__("os").getpid())] != ["sleep"]:
    assert time.monotonic() < give_up_at
    time.sleep(0.01)
process.sweep()
assert not proc.descendants(__import__("os").getpid())
"""
# As Postfix: the daemon is its own session's leader, and the kernel does not end it with its parent.
_GUARDED = """
import os, subprocess, sys, time
from pathlib import Path
from bench.guard import guarded

def work(directory):
    daemon = subprocess.Popen(["/bin/sleep", "600"], start_new_session=True)
    print(os.getpid(), daemon.pid, flush=True)
    time.sleep(600)

sys.exit(guarded(work, Path(sys.argv[1])))
"""
LOAD = Load(4096, is_reused=False, connections=5, count=40)


class SinkItself:
    """smtp-sink in the place of a mail system: what is sent arrives at once."""

    sender = "app@example.com"

    def __init__(self, port: int) -> None:
        self.port = port

    def start(self) -> None: ...

    def stop(self) -> None: ...

    def discard(self) -> None: ...

    def account(self) -> dict[str, str]:
        return {}

    def roots(self) -> dict[str, int]:
        return {}


@pytest.mark.parametrize("address", ["192.0.2.1", "0.0.0.0", "mx.example.com"])
def test_the_bench_refuses_to_leave_the_machine(address: str) -> None:
    done = subprocess.run(
        [sys.executable, "-m", "bench", "--address", address], capture_output=True, text=True, timeout=60
    )
    assert done.returncode == 1
    assert done.stderr.startswith(f"bench: {address}") or address in done.stderr
    assert "Traceback" not in done.stderr and not done.stdout


def test_cpu_of_a_tree_holds_that_of_its_ended_children(tmp_path: Path) -> None:
    family = process.start([sys.executable, "-c", _FAMILY], log=tmp_path / "log")
    try:
        before = cpu.Snapshot({"family": {}})
        wait_until(lambda: "done" in (tmp_path / "log").read_text(), what="the burning")
        used = cpu.spent(before, cpu.snapshot({"family": family.pid}))
    finally:
        process.stop(family)
    assert 0.6 <= used.by_part["family"] < 3
    assert used.by_name["family: ended"] >= 0.3
    assert sum(used.by_name.values()) == pytest.approx(used.by_part["family"])


def test_what_daemons_leave_behind_is_found_and_ended(tmp_path: Path) -> None:
    log = tmp_path / "log"
    subprocess.run([sys.executable, "-c", _ORPHANS, str(log)], check=True, timeout=60)
    with pytest.raises(ProcessLookupError):
        os.kill(int(log.read_text()), 0)


@pytest.mark.parametrize(
    ("victim", "number", "code"),
    [
        ("guard", signal.SIGTERM, 130),
        ("guard", signal.SIGINT, 130),
        ("guard", signal.SIGKILL, -signal.SIGKILL),
        ("work", signal.SIGKILL, 1),
    ],
)
def test_nothing_is_left_however_the_bench_ends(tmp_path: Path, victim: str, number: signal.Signals, code: int) -> None:
    with subprocess.Popen([sys.executable, "-c", _GUARDED, str(tmp_path)], stdout=subprocess.PIPE, text=True) as guard:
        assert guard.stdout
        work, daemon = map(int, guard.stdout.readline().split())
        assert list(tmp_path.iterdir())
        os.kill({"guard": guard.pid, "work": work}[victim], number)
        assert guard.wait(60) == code
    wait_until(lambda: not proc.title(daemon) and not proc.title(work), what="the end of all processes")
    wait_until(lambda: not list(tmp_path.iterdir()), what="the end of the directory")


@pytest.mark.parametrize("address", ["127.0.0.1", "::1"])
@pytest.mark.parametrize("generator", ["smtp-source", "plain"])
@pytest.mark.parametrize("is_reused", [False, True])
def test_the_sink_counts_what_a_generator_sends(tmp_path: Path, address: str, generator: str, is_reused: bool) -> None:
    need("smtp-sink", "smtp-source")
    port = free_port(address)
    load = replace(LOAD, generator=generator, is_reused=is_reused)  # type: ignore[arg-type]
    with Sink(tmp_path, address, port) as sink:
        assert sink.arrived() == 0
        source = start_source(tmp_path, address, SinkItself(port), load)
        assert source.wait(60) == 0, (tmp_path / LOG).read_text()
        wait_until(lambda: sink.arrived() == load.count, what="the arrival of all")
    if generator == "plain":
        timings = read_timings(tmp_path / TIMINGS)
        assert len(timings) == load.count
        assert all(0 < timing.dot_seconds <= timing.replied_at - timing.due_at for timing in timings)


def test_at_a_fixed_rate_messages_are_due_at_that_rate(tmp_path: Path) -> None:
    need("smtp-sink")
    port = free_port("127.0.0.1")
    with Sink(tmp_path, "127.0.0.1", port):
        load = replace(LOAD, generator="plain", rate=200.0)
        assert start_source(tmp_path, "127.0.0.1", SinkItself(port), load).wait(60) == 0
    due = sorted(timing.due_at for timing in read_timings(tmp_path / TIMINGS))
    assert [later - due[0] for later in due] == pytest.approx([number / 200 for number in range(LOAD.count)])


@pytest.mark.parametrize("generator", ["smtp-source", "plain"])
def test_a_generator_that_is_refused_fails_and_says_why(tmp_path: Path, generator: str) -> None:
    need("smtp-source")
    port = free_port("127.0.0.1")
    load = replace(LOAD, generator=generator)  # type: ignore[arg-type]
    assert start_source(tmp_path, "127.0.0.1", SinkItself(port), load).wait(60) != 0
    assert "refused" in (tmp_path / LOG).read_text().lower()


def test_a_program_that_does_not_listen_is_told_with_its_last_words(tmp_path: Path) -> None:
    log = tmp_path / "log"
    program = process.start(["/bin/sh", "-c", "echo no such luck; exit 1"], log=log)
    with pytest.raises(BenchError, match="no such luck"):
        process.wait_for_port("127.0.0.1", free_port("127.0.0.1"), program, log)

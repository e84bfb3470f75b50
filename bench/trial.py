"""One trial: a system started afresh and warmed up, a load, and what it took until all mail was at the sink.

A trial that gets stuck, loses mail or sees more than was sent has failed; its reason takes the place of its figures.
"""

import os
import subprocess
import time
from dataclasses import dataclass
from pathlib import Path

from bench import cpu, proc, process
from bench.errors import BenchError
from bench.generator import read_timings
from bench.load import Figures, Load
from bench.sink import Sink
from bench.source import LOG, TIMINGS, start_source
from bench.summary import latency_of
from bench.system import System

WARM_UP_MESSAGES = 200
_WARM_UP_CONNECTIONS = 20
_LOOK_SECONDS = 0.02
# Seldom: adding up what all processes hold takes the machine some hundredths of a second.
_MEMORY_SECONDS = 2.5
# After the last arrival a system still writes down that it is done; that is its work too.
_AFTERWARDS_SECONDS = 0.7
BOUND_SECONDS = 120.0


@dataclass(frozen=True, slots=True)
class Bench:
    """Where trials happen: a directory, the address of all, and the sink's port there."""

    directory: Path
    address: str
    sink_port: int

    def without_paths(self, text: str) -> str:
        """The same text, fit for the results."""
        return text.replace(str(self.directory), "DIRECTORY")


def run_trial(bench: Bench, system: System, load: Load) -> Figures:
    """Raises BenchError with the reason when it fails; the system is stopped either way."""
    os.sync()  # what the trial before left to be written is not written during this one
    (bench.directory / LOG).unlink(missing_ok=True)
    with Sink(bench.directory, bench.address, bench.sink_port) as sink:
        try:
            system.start()
            warm_up = Load(octets=4096, is_reused=False, connections=_WARM_UP_CONNECTIONS, count=WARM_UP_MESSAGES)
            send(bench, system, sink, warm_up)
            return _measure(bench, system, sink, load)
        finally:
            system.stop()


def _measure(bench: Bench, system: System, sink: Sink, load: Load) -> Figures:
    before, sink_before = cpu.snapshot(system.roots()), cpu.snapshot({"sink": sink.pid})
    times_before = os.times()
    sent = send(bench, system, sink, load, arrived_before=WARM_UP_MESSAGES)
    used = cpu.spent(before, cpu.snapshot(system.roots()))
    others = cpu.spent(sink_before, cpu.snapshot({"sink": sink.pid})).by_part
    times = os.times()
    # No child but the load generator has ended in between.
    others["source"] = times.children_user + times.children_system
    others["source"] -= times_before.children_user + times_before.children_system
    others["bench"] = times.user + times.system - times_before.user - times_before.system
    began_at, replied_at, latency = sent.began_at, sent.replied_at, None
    if load.generator != "smtp-source":
        # Python takes a while to start and to end: the first message and the last reply are what counts.
        timings = read_timings(bench.directory / TIMINGS)
        began_at, replied_at = min(each.due_at for each in timings), max(each.replied_at for each in timings)
        latency = latency_of(timings)
    return Figures(
        replied_seconds=replied_at - began_at,
        arrived_seconds=sent.arrived_at - began_at,
        cpu_by_part=used.by_part,
        cpu_by_process=used.by_name,
        cpu_others=others,
        peak_pss_octets=sent.peak_pss_octets,
        latency=latency,
    )


@dataclass(frozen=True, slots=True)
class Sent:
    """When the generator was started, when it ended, after the last reply, and when all was at the sink."""

    began_at: float
    replied_at: float
    arrived_at: float
    peak_pss_octets: int


def send(bench: Bench, system: System, sink: Sink, load: Load, *, arrived_before: int = 0) -> Sent:
    """Until every message has arrived, and what follows that is done too."""
    wanted = arrived_before + load.count
    began_at = time.monotonic()
    source = start_source(bench.directory, bench.address, system, load)
    try:
        sent = _watch(bench, system, sink, source, wanted, began_at)
    finally:
        process.stop(source)
    time.sleep(_AFTERWARDS_SECONDS)
    if (arrived := sink.arrived()) != wanted:
        raise BenchError(f"{arrived - wanted} more arrived than were sent")
    return sent


def _watch(
    bench: Bench, system: System, sink: Sink, source: "subprocess.Popen[bytes]", wanted: int, began_at: float
) -> Sent:
    replied_at = arrived_at = None
    count, peak, next_memory_at = 0, 0, began_at + _MEMORY_SECONDS
    while replied_at is None or arrived_at is None:
        now = time.monotonic()
        if arrived_at is None and (count := sink.arrived()) >= wanted:
            arrived_at = now
        if replied_at is None and source.poll() is not None:
            replied_at = now
            if source.returncode != 0:
                raise BenchError(f"the load generator failed: {process.last_words(bench.directory / LOG)}")
        if now - began_at > BOUND_SECONDS:
            raise BenchError(f"stuck: {count} of {wanted} had arrived after {BOUND_SECONDS:.0f} s")
        if now >= next_memory_at:
            peak = max(peak, _memory_octets(system))
            next_memory_at = now + _MEMORY_SECONDS
        time.sleep(_LOOK_SECONDS)
    return Sent(began_at, replied_at, arrived_at, max(peak, _memory_octets(system)))


def _memory_octets(system: System) -> int:
    return sum(map(proc.pss_octets, system.roots().values()))

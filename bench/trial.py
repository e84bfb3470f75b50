"""One trial: a system started afresh and warmed up, a load, and what it took until all mail was at the sink.

A trial that gets stuck, loses mail or sees more than was sent has failed; its reason takes the place of its figures.
"""

import os
import subprocess
import time
from collections.abc import Callable
from dataclasses import dataclass, field
from pathlib import Path

from bench import cpu, proc, process
from bench.errors import BenchError
from bench.sink import Sink
from bench.source import start_source
from bench.system import System

WARM_UP_MESSAGES = 200
_WARM_UP_CONNECTIONS = 20
_WARM_UP_SECONDS = 60.0
_LOOK_SECONDS = 0.02
_MEMORY_SECONDS = 1.0
# After the last arrival a system still writes down that it is done; that is its work too.
_AFTERWARDS_SECONDS = 0.7
BOUND_SECONDS = 120.0


@dataclass(frozen=True, slots=True)
class Load:
    """What is sent. `octets` is the message's size; `is_reused`: many messages a connection."""

    octets: int
    is_reused: bool
    connections: int
    count: int
    generator: str = "smtp-source"  # or "plain", "tls+auth": the bench's own


@dataclass(frozen=True, slots=True)
class Figures:
    """CPU seconds are for the whole load, of the system by part and by process name; `others` are the test's own."""

    replied_seconds: float
    arrived_seconds: float
    cpu_by_part: dict[str, float] = field(default_factory=dict)
    cpu_by_name: dict[str, float] = field(default_factory=dict)
    cpu_others: dict[str, float] = field(default_factory=dict)
    peak_pss_octets: int = 0


StartLoad = Callable[[Path, int], "subprocess.Popen[bytes]"]


def run_trial(system: System, directory: Path, address: str, sink_port: int, load: Load, start: StartLoad) -> Figures:
    """Raises BenchError with the reason when it fails; the system is stopped either way."""
    os.sync()  # what the trial before left to be written is not written during this one
    with Sink(directory, address, sink_port) as sink:
        try:
            system.start()
            _warm_up(system, directory, address, sink)
            return _measure(system, directory, sink, load, start)
        finally:
            system.stop()


def _warm_up(system: System, directory: Path, address: str, sink: Sink) -> None:
    source = start_source(
        directory,
        address,
        system.port,
        sender=system.sender,
        octets=4096,
        count=WARM_UP_MESSAGES,
        connections=_WARM_UP_CONNECTIONS,
        is_reused=False,
    )
    try:
        end = time.monotonic() + _WARM_UP_SECONDS
        while source.poll() is None or sink.arrived() < WARM_UP_MESSAGES:
            if source.poll() or time.monotonic() > end:
                raise BenchError(f"warm-up: {sink.arrived()} of {WARM_UP_MESSAGES} arrived{_said(directory)}")
            time.sleep(_LOOK_SECONDS)
    finally:
        process.stop(source)
    time.sleep(_AFTERWARDS_SECONDS)


def _measure(system: System, directory: Path, sink: Sink, load: Load, start: StartLoad) -> Figures:
    wanted = WARM_UP_MESSAGES + load.count
    before, others_before = cpu.snapshot(system.roots()), cpu.snapshot({"sink": sink.pid})
    own_before, children_before = os.times(), _children_seconds()
    began = time.monotonic()
    source = start(directory, load.count)
    try:
        replied, arrived, peak = _watch(system, sink, source, wanted, began, directory)
    finally:
        process.stop(source)
    time.sleep(_AFTERWARDS_SECONDS)
    if sink.arrived() != wanted:
        raise BenchError(f"{sink.arrived() - wanted} messages more arrived than were sent")
    used = cpu.spent(before, cpu.snapshot(system.roots()))
    own = os.times()
    return Figures(
        replied_seconds=replied,
        arrived_seconds=arrived,
        cpu_by_part=used.by_part,
        cpu_by_name=used.by_name,
        cpu_others={
            "source": _children_seconds() - children_before,
            **cpu.spent(others_before, cpu.snapshot({"sink": sink.pid})).by_part,
            "bench": own.user + own.system - own_before.user - own_before.system,
        },
        peak_pss_octets=peak,
    )


def _watch(
    system: System, sink: Sink, source: "subprocess.Popen[bytes]", wanted: int, began: float, directory: Path
) -> tuple[float, float, int]:
    """Seconds until the source ended and until all had arrived, and the system's peak memory in octets."""
    replied, arrived, peak, next_memory = 0.0, 0.0, 0, began
    while True:
        now = time.monotonic()
        count = sink.arrived()
        if not replied and source.poll() is not None:
            replied = now - began
            if source.returncode != 0:
                raise BenchError(f"the load generator failed{_said(directory)}")
        if not arrived and count >= wanted:
            arrived = now - began
        if arrived and replied:
            return replied, arrived, peak
        if now - began > BOUND_SECONDS:
            raise BenchError(f"stuck: {count} of {wanted} had arrived after {BOUND_SECONDS:.0f} s")
        if now >= next_memory:
            peak = max(peak, sum(proc.pss_octets(root) for root in set(system.roots().values())))
            next_memory = now + _MEMORY_SECONDS
        time.sleep(_LOOK_SECONDS)


def _children_seconds() -> float:
    times = os.times()
    return times.children_user + times.children_system


def _said(directory: Path) -> str:
    log = directory / "source.log"
    return f": {process.last_words(log)}" if log.exists() else ""

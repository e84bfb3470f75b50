"""Which loads are tried, in which order: the systems take turns, so that a slow minute harms them alike."""

from collections.abc import Iterator
from dataclasses import dataclass, replace

from bench.load import Load
from bench.names import BASELINE, NAMES, RELAYD_RSA
from bench.options import Options

SMALL_OCTETS, LARGE_OCTETS = 4096, 102_400
# At 4 KB seven to ten seconds for most; a large message counts as two small ones.
_COUNT, _SHORT_COUNT = 4500, 1500
_LATENCY_SECONDS = 15


@dataclass(frozen=True, slots=True)
class Plan:
    """The loads for all systems, and those for relayd (RSA) alone: the bench's own generator, without and with TLS."""

    loads: tuple[Load, ...]
    login_loads: tuple[Load, ...]
    systems: tuple[str, ...]
    rounds: int
    has_latency: bool
    rates: tuple[int, ...] = ()  # latency at these alone

    def turns(self) -> Iterator[tuple[int, str, Load]]:
        """(round, system, load), interleaved."""
        for number in range(self.rounds):
            for load in self.loads:
                for system in self.systems:
                    yield number, system, load
            if RELAYD_RSA in self.systems:
                for load in self.login_loads:
                    yield number, RELAYD_RSA, load

    def reference(self) -> Load | None:
        """The load whose half is the rate at which latency is measured."""
        wanted = [load for load in self.loads if load.octets == SMALL_OCTETS and not load.is_reused]
        return max(wanted, key=lambda load: load.connections, default=None)

    def latency_turns(self, rate: float) -> Iterator[tuple[int, str, Load]]:
        """As turns(), at a fixed rate a second."""
        load = latency_load(rate)
        for number in range(self.rounds):
            for system in (BASELINE, RELAYD_RSA):
                if system in self.systems:
                    yield number, system, load


def make_plan(options: Options) -> Plan:
    """What these options ask for."""
    count = options.count or (_SHORT_COUNT if options.short else _COUNT)
    connections = options.connections or ((50,) if options.short else (20, 50))
    loads = tuple(
        Load(octets, is_reused, sessions, count if octets == SMALL_OCTETS else max(1, count // 2))
        for octets in options.octets or (SMALL_OCTETS, LARGE_OCTETS)
        for is_reused in _reuse(options)
        for sessions in connections
    )
    if options.rate:
        loads = ()
    is_chosen = bool(options.rate or options.only or options.octets or options.connections or options.sessions)
    return Plan(
        loads,
        () if is_chosen else _login_loads(count),
        tuple(name for name in NAMES if not options.only or name in options.only),
        options.rounds or (1 if options.short else 3),
        has_latency=not is_chosen,
        rates=options.rate,
    )


def latency_load(rate: float) -> Load:
    """Of both systems: a new connection each, at `rate` messages a second."""
    count = round(rate * _LATENCY_SECONDS)
    return Load(SMALL_OCTETS, is_reused=False, connections=0, count=count, generator="plain", rate=rate)


def _reuse(options: Options) -> tuple[bool, ...]:
    return {None: (False, True), "new": (False,), "reused": (True,)}[options.sessions]


def _login_loads(count: int) -> tuple[Load, ...]:
    new = Load(SMALL_OCTETS, is_reused=False, connections=50, count=count // 2, generator="plain")
    each = (new, replace(new, generator="tls+auth"))
    return (*each, *(replace(load, is_reused=True) for load in each))

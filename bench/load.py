"""What is sent in a trial, and what the trial found: plain values, as the results keep them."""

from dataclasses import dataclass, field
from typing import Literal

Generator = Literal["smtp-source", "plain", "tls+auth"]


@dataclass(frozen=True, slots=True)
class Load:
    """Messages of `octets` each. `is_reused`: many on a connection. `rate` (a second): not as fast as it goes.

    `generator`: Postfix's, or the bench's own, without and with STARTTLS and AUTH.
    """

    octets: int
    is_reused: bool
    connections: int
    count: int
    generator: Generator = "smtp-source"
    rate: float | None = None


@dataclass(frozen=True, slots=True)
class Latency:
    """Of the 250, in milliseconds: of the whole session since it was due, and since the dot alone."""

    session_p50: float
    session_p99: float
    dot_p50: float
    dot_p99: float


@dataclass(frozen=True, slots=True)
class Figures:
    """CPU seconds are of the whole load: the system's, by part and by process; `cpu_others` is the bench's own."""

    replied_seconds: float
    arrived_seconds: float
    cpu_by_part: dict[str, float] = field(default_factory=dict)
    cpu_by_process: dict[str, float] = field(default_factory=dict)
    cpu_others: dict[str, float] = field(default_factory=dict)
    peak_pss_octets: int = 0
    latency: Latency | None = None


@dataclass(frozen=True, slots=True)
class Trial:
    """One system under one load: its figures, or why it has none."""

    system: str
    round: int
    load: Load
    figures: Figures | None
    failure: str | None = None

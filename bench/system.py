"""What a trial needs of a mail system, whichever it is."""

from collections.abc import Mapping
from dataclasses import dataclass
from pathlib import Path
from typing import Protocol

SENDER_DOMAIN = "example.com"
RECIPIENT = "someone@example.net"
# At once to the sink, for every system; Postfix's and relayd's own default.
SINK_CONNECTIONS = 20


@dataclass(frozen=True, slots=True)
class Place:
    """Where a system may be: its directory, the address that it listens on, and the sink's port there."""

    directory: Path
    address: str
    sink_port: int


class System(Protocol):
    """Started afresh for each trial, so that none works while another is measured."""

    @property
    def sender(self) -> str:
        """The address that it signs for."""
        ...

    @property
    def port(self) -> int:
        """Where it takes mail without a login."""
        ...

    def start(self) -> None:
        """Return when it takes mail. Raises BenchError."""
        ...

    def stop(self) -> None:
        """End its processes. Harmless when it does not run."""
        ...

    def discard(self) -> None:
        """Forget the mail of a trial that failed; the system is stopped."""
        ...

    def account(self) -> Mapping[str, str]:
        """What logs an app in under STARTTLS (`login`, `secret`, `certificate`); BenchError where nobody can."""
        ...

    def roots(self) -> Mapping[str, int]:
        """The top processes of its parts, for the CPU and the memory that it uses."""
        ...

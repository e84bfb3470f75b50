"""The sink with a memory that outlives it: each arrival is in a file before its reply is sent."""

import json
import time
from dataclasses import asdict, dataclass
from pathlib import Path
from typing import Any

from tests.crash.message import digest, number_of, queue_id_of
from tests.peers.sink import Arrival, Sink

NO_SUCH_USER = "550 5.1.1 no such user"
BUSY = "450 4.2.1 busy, try again later"


@dataclass(frozen=True)
class Delivered:
    """One recipient of one transaction that the sink took. `number` is None for what the load did not make: a DSN."""

    reverse_path: str
    recipient: str
    queue_id: str | None
    number: int | None
    digest: str
    at: float  # Unix time


class Recorder(Sink):
    """Refuses `refused…` for good and `deferred…` once; takes all else, and writes it down. See `Sink` for more."""

    def __init__(self, path: Path, **settings: Any) -> None:
        super().__init__(on_rcpt=self._judge, **settings)
        self._file = path.open("a", buffering=1)
        self._deferred: set[str] = set()
        self.delivered = 0

    def __exit__(self, *_: object) -> None:
        super().__exit__()
        self._file.close()

    def record(self, arrival: Arrival) -> None:
        # What was taken is told by the file; in memory it would only pile up.
        self.arrivals.clear()
        for recipient in arrival.recipients:
            delivered = Delivered(
                arrival.reverse_path,
                recipient,
                queue_id_of(arrival.content),
                number_of(arrival.content),
                digest(arrival.content),
                time.time(),
            )
            self._file.write(json.dumps(asdict(delivered)) + "\n")
            self.delivered += 1

    def _judge(self, recipient: str) -> str:
        if recipient.startswith("refused"):
            return NO_SUCH_USER
        if recipient.startswith("deferred") and recipient not in self._deferred:
            self._deferred.add(recipient)
            return BUSY
        return "250 2.1.5 ok"


def read_arrivals(path: Path) -> list[Delivered]:
    """Everything that the sink took."""
    return [Delivered(**json.loads(line)) for line in path.read_text().splitlines()]

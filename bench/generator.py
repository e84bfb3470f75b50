"""The bench's own load generator, a program: `python -m bench.generator ORDERS`, a JSON file of `Orders`.

Closed loop: so many connections, each as fast as its replies. Open loop: messages are due at a fixed rate, whether or
not the ones before are through, and a late start counts as waiting; else a slow system would look quick.
"""

import asyncio
import json
import os
import sys
import time
from collections.abc import Iterator
from dataclasses import asdict, dataclass
from pathlib import Path

from bench.client import Account, Session
from bench.errors import BenchError
from bench.paced import Paced
from bench.timing import Timing

# Python's TLS takes about a core for 500 handshakes a second.
PROCESSES = 2
_BEGIN_SECONDS = 0.5


@dataclass(frozen=True, slots=True)
class Orders:
    """What to send and how. `rate`: messages a second, open loop; None: closed loop over `connections`."""

    address: str
    port: int
    sender: str
    recipient: str
    message: str
    output: str
    count: int
    connections: int
    is_reused: bool
    rate: float | None = None
    login: str | None = None
    secret: str | None = None
    certificate: str | None = None

    @property
    def account(self) -> Account | None:
        if self.login is None or self.secret is None or self.certificate is None:
            return None
        return Account(self.login, self.secret, Path(self.certificate))


class Share:
    """What one process of the generator sends: every so many-th message."""

    def __init__(self, orders: Orders, number: int) -> None:
        self._orders = orders
        self._numbers: Iterator[int] = iter(range(number, orders.count, PROCESSES))
        self._connections = len(range(number, orders.connections, PROCESSES))
        self._account = orders.account
        self._context = self._account.context() if self._account else None
        self._content = Path(orders.message).read_bytes().replace(b"\n", b"\r\n") + b".\r\n"
        self._timings: list[Timing] = []

    def send(self, begin_at: float) -> list[Timing]:
        """All of the share. `begin_at` is monotonic time. Raises BenchError at the first refusal."""
        orders = self._orders
        try:
            if orders.rate:
                paced = Paced(orders.address, orders.port, orders.sender, orders.recipient, self._content)
                return paced.send([begin_at + number / orders.rate for number in self._numbers])
            return asyncio.run(self._closed_loops())
        except OSError as error:
            raise BenchError(f"{type(error).__name__}: {error}") from None

    async def _closed_loops(self) -> list[Timing]:
        try:
            async with asyncio.TaskGroup() as group:
                for _ in range(self._connections):
                    group.create_task(self._closed_loop())
        except* (BenchError, OSError) as errors:
            first = errors.exceptions[0]
            raise BenchError(f"{type(first).__name__}: {first}") from None
        return self._timings

    async def _closed_loop(self) -> None:
        session = None
        for _ in self._numbers:
            due = time.monotonic()
            session = session or await self._open()
            await self._hand_over(session, due)
            if not self._orders.is_reused:
                await session.quit()
                session = None
        if session:
            await session.quit()

    async def _open(self) -> Session:
        return await Session.open(self._orders.address, self._orders.port, self._account, self._context)

    async def _hand_over(self, session: Session, due: float) -> None:
        dot_seconds = await session.send(self._orders.sender, self._orders.recipient, self._content)
        self._timings.append(Timing(due, time.monotonic(), dot_seconds))


def main() -> int:
    """Send in several processes, and put all timings into the file that the orders name."""
    orders = Orders(**json.loads(Path(sys.argv[1]).read_text()))
    begin_at = time.monotonic() + _BEGIN_SECONDS if orders.rate else 0.0
    children = [_fork(orders, number, begin_at) for number in range(PROCESSES)]
    codes = [os.waitstatus_to_exitcode(os.waitpid(child, 0)[1]) for child in children]
    if any(codes):
        return 1
    timings = [each for number in range(PROCESSES) for each in json.loads(_part(orders, number).read_text())]
    Path(orders.output).write_text(json.dumps(timings))
    return 0


def read_timings(output: Path) -> list[Timing]:
    """What a generator has left."""
    return [Timing(**each) for each in json.loads(output.read_text())]


def _fork(orders: Orders, number: int, begin_at: float) -> int:
    child = os.fork()
    if child:
        return child
    try:
        timings = Share(orders, number).send(begin_at)
        _part(orders, number).write_text(json.dumps([asdict(timing) for timing in timings]))
    except BenchError as error:
        sys.stderr.write(f"{error}\n")
        os._exit(1)
    except BaseException:
        sys.excepthook(*sys.exc_info())
        os._exit(2)
    os._exit(0)


def _part(orders: Orders, number: int) -> Path:
    return Path(f"{orders.output}.{number}")


if __name__ == "__main__":
    sys.exit(main())

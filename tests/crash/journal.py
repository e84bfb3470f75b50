"""What the load was told, message by message. A line is on the disk before the load believes that it was told."""

import asyncio
import json
import os
from dataclasses import asdict, dataclass
from pathlib import Path


@dataclass(frozen=True)
class Handed:
    """One message handed in. `code` is that of the reply to its dot, or of the refusal before; 0: nothing was heard.

    `was_ended`: the dot was sent, so that it may have been taken whatever was heard.
    """

    number: int
    sender: str
    recipient: str
    code: int
    queue_id: str | None
    was_ended: bool

    @property
    def is_acknowledged(self) -> bool:
        return self.code == 250


class Journal:
    """Appends to a file; many writers share one fsync."""

    def __init__(self, path: Path) -> None:
        self._descriptor = os.open(path, os.O_WRONLY | os.O_CREAT | os.O_APPEND, 0o600)
        self._waiting: list[tuple[bytes, asyncio.Future[None]]] = []
        self._syncing: asyncio.Task[None] | None = None

    async def write(self, handed: Handed) -> None:
        """Return once the line is on the disk."""
        written = asyncio.get_running_loop().create_future()
        self._waiting.append((json.dumps(asdict(handed)).encode() + b"\n", written))
        if self._syncing is None:
            self._syncing = asyncio.create_task(self._sync())
        await written

    def close(self) -> None:
        os.close(self._descriptor)

    async def _sync(self) -> None:
        while self._waiting:
            batch, self._waiting = self._waiting, []
            await asyncio.to_thread(self._write, b"".join(line for line, _ in batch))
            for _, written in batch:
                if not written.done():
                    written.set_result(None)
        self._syncing = None

    def _write(self, lines: bytes) -> None:
        os.write(self._descriptor, lines)
        os.fsync(self._descriptor)


def read_journal(*paths: Path) -> list[Handed]:
    """Every line of these journals."""
    return [Handed(**json.loads(line)) for path in paths for line in path.read_text().splitlines()]

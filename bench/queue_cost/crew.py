"""Workers at once on one database, two by default: start them, let them go together, gather what they measured."""

import asyncio
import json
import os
import signal
import sys
from collections.abc import AsyncIterator, Mapping
from contextlib import asynccontextmanager, suppress
from dataclasses import dataclass
from pathlib import Path
from typing import Any
from uuid import UUID

from bench.queue_cost import counters, cpu, summary
from relayd.embedded import EmbeddedPostgres
from relayd.embedded.lifetime import die_with_parent
from relayd.errors import RelaydError
from relayd.store.connection import Connection

WORKERS = 2
_ROOT = Path(__file__).parents[2]
_LINE_LIMIT = 1 << 24


@dataclass(frozen=True, slots=True)
class Crew:
    """Whom to work for. `dsn` leads to the server that was started here."""

    server: EmbeddedPostgres
    dsn: str
    upstream_id: UUID
    batch: int
    deadline_seconds: float = 600.0
    workers: int = WORKERS

    async def drain(self, connection: Connection, *, warms: bool = True) -> dict[str, Any]:
        """Rate, latencies and costs of draining what is due. `connection` leads to the same database."""
        async with _processes(self.workers) as processes:
            for number, process in enumerate(processes):
                _say(process, json.dumps(self._job(number, warms)))
            ready = [await self._hear(process) for process in processes]
            pids = [each["pid"] for each in ready]
            counted = await counters.read(connection)
            backends, whole = cpu.of_processes(pids), cpu.of_server(self.server.pid)
            for process in processes:
                _say(process, "go")
            found = [await self._hear(process) for process in processes]
            backends = cpu.of_processes(pids) - backends
            whole = cpu.of_server(self.server.pid) - whole
            for process in processes:
                _say(process, "end")
                await process.wait()
            # After the workers' ends, for then their last counts are in.
            since = await counters.read(connection)
        trial = summary.of_trial(found, backend_cpu_seconds=backends, server_cpu_seconds=whole)
        return trial | {"per_entry": counters.per_entry(counted, since, trial["entries"])}

    def _job(self, number: int, warms: bool) -> Mapping[str, object]:
        return {
            "dsn": self.dsn,
            "password": self.server.password,
            "upstream_id": str(self.upstream_id),
            "batch": self.batch,
            # A claim's name is never used again, so it has the process in it.
            "name": f"bench/{os.urandom(4).hex()}/{number}",
            "deadline_seconds": self.deadline_seconds,
            "warms": warms,
        }

    async def _hear(self, process: asyncio.subprocess.Process) -> dict[str, Any]:
        assert process.stdout is not None
        async with asyncio.timeout(self.deadline_seconds + 30):
            line = await process.stdout.readline()
        if not line:
            raise RelaydError("a worker of the benchmark ended early; its error is above")
        heard: dict[str, Any] = json.loads(line)
        return heard


def _say(process: asyncio.subprocess.Process, line: str) -> None:
    assert process.stdin is not None
    process.stdin.write(line.encode() + b"\n")


@asynccontextmanager
async def _processes(count: int) -> AsyncIterator[list[asyncio.subprocess.Process]]:
    processes: list[asyncio.subprocess.Process] = []
    try:
        for _ in range(count):
            processes.append(
                await asyncio.create_subprocess_exec(
                    sys.executable,
                    "-m",
                    "bench.queue_cost.worker",
                    stdin=asyncio.subprocess.PIPE,
                    stdout=asyncio.subprocess.PIPE,
                    cwd=_ROOT,
                    limit=_LINE_LIMIT,
                    # Out of our group: Ctrl-C is ours to handle. Should we be killed, the kernel ends them.
                    start_new_session=True,
                    preexec_fn=die_with_parent(signal.SIGKILL),
                )
            )
        yield processes
    finally:
        for process in processes:
            if process.returncode is None:
                with suppress(ProcessLookupError):
                    process.kill()
                await process.wait()

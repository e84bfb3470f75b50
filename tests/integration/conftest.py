"""A control server on a real socket and a real database, asked over HTTP and by the command line."""

import tempfile
from collections.abc import AsyncIterator
from dataclasses import dataclass, field
from pathlib import Path
from typing import Any

import aiohttp
import pytest

from relayd.control.route import House, Publishing
from relayd.control.server import ControlServer
from relayd.daemon.probes import Probes
from relayd.rules.control_events import ControlEvent
from relayd.rules.grant_events import GrantEvent
from relayd.seal import Seal, new_key, parse_key
from relayd.store.pool import Database
from tests import command_line
from tests.command_line import Ran


@dataclass
class Answer:
    """What the server said to one request."""

    status: int
    data: Any
    text: str

    @property
    def message(self) -> str:
        return f"{self.data['error']['message']} | {self.data['error']['hint']}"


@dataclass
class Control:
    """A running control server and ways to ask it."""

    socket: Path
    house: House
    db: Database
    session: aiohttp.ClientSession
    wakes: list[None] = field(default_factory=list)
    events: list[ControlEvent | GrantEvent] = field(default_factory=list)

    async def request(self, method: str, path: str, body: Any = None, **arguments: Any) -> Answer:
        if body is not None:
            arguments["json"] = body
        async with self.session.request(method, f"http://relayd/v1/{path}", **arguments) as response:
            text = await response.text()
            return Answer(response.status, await response.json(), text)

    async def ok(self, method: str, path: str, body: Any = None, **arguments: Any) -> Any:
        answer = await self.request(method, path, body, **arguments)
        assert answer.status == 200, answer.text
        return answer.data

    async def cli(self, *argv: str, stdin: str = "", **environment: str) -> Ran:
        ran = await command_line.run_beside(
            argv, stdin=stdin, environment={"RELAYD_SOCKET": str(self.socket), **environment}
        )
        assert "Traceback" not in ran.err
        return ran


@pytest.fixture
async def control(db: Database) -> AsyncIterator[Control]:
    wakes: list[None] = []
    events: list[ControlEvent | GrantEvent] = []
    seal = Seal(parse_key(new_key().encode()))
    house = House(
        database=db,
        seal=seal,
        wake=lambda: wakes.append(None),
        version="0.0.test",
        node="test-node",
        publishing=Publishing(("ip4:192.0.2.1",), "mx.relay.example", dmarc_rua="dmarc@relay.example"),
        emit=events.append,
        probe_of=Probes(db, seal, hostname="relay.example.org", emit=events.append).of,
    )
    with tempfile.TemporaryDirectory(prefix="relayd-") as directory:
        socket = Path(directory, "control.sock")
        server = ControlServer(house, socket_path=socket)
        await server.start()
        async with aiohttp.ClientSession(connector=aiohttp.UnixConnector(str(socket))) as session:
            yield Control(socket, house, db, session, wakes, events)
        await server.close()
        assert not socket.exists()

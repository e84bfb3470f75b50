"""The control socket itself: its file, its peers, and requests that no route expects."""

import asyncio
import gzip
import io
import json
import os
import shutil
import socket
import stat
import subprocess
import sys
import tempfile
from collections.abc import Iterator
from pathlib import Path
from typing import Any

import asyncpg
import pytest

from relayd.control.route import Context, House, Nothing, Route, View
from relayd.control.routes import ROUTES
from relayd.control.server import MAX_BODY_OCTETS, ControlServer
from relayd.errors import RelaydError
from relayd.store.pool import Database
from tests.integration.conftest import Control


@pytest.fixture
def directory() -> Iterator[Path]:
    path = Path(tempfile.mkdtemp(prefix="relayd-"))
    path.chmod(0o755)
    yield path
    shutil.rmtree(path)


@pytest.mark.parametrize("mode", [0o600, 0o660, 0o666])
async def test_the_file_has_its_mode_and_goes_with_the_server(control: Control, directory: Path, mode: int) -> None:
    path = directory / "s"
    server = ControlServer(control.house, socket_path=path, mode=mode)
    await server.start()
    assert stat.S_IMODE(path.stat().st_mode) == mode
    await server.close()
    assert not path.exists()
    await server.close()


async def test_two_servers_do_not_share_a_socket(control: Control) -> None:
    second = ControlServer(control.house, socket_path=control.socket)
    with pytest.raises(RelaydError, match="another relayd answers on"):
        await second.start()
    await second.close()
    assert (await control.request("GET", "clients")).status == 200


async def test_a_stale_file_is_replaced_but_nothing_else(control: Control, directory: Path) -> None:
    path = directory / "s"
    with socket.socket(socket.AF_UNIX) as left_over:
        left_over.bind(str(path))
    server = ControlServer(control.house, socket_path=path)
    await server.start()
    path.unlink()
    path.write_text("a later server's, let us say")
    await server.close()
    assert path.exists()
    with pytest.raises(RelaydError, match="is not a socket"):
        await ControlServer(control.house, socket_path=path).start()


@pytest.mark.parametrize(
    ("name", "settings", "text"),
    [
        ("x" * 120, {}, "107"),
        ("missing/s", {}, "cannot make the control socket"),
        ("s", {"group": "no-such-group"}, "no-such-group"),
    ],
)
async def test_a_socket_that_cannot_be_made_says_why(
    control: Control, directory: Path, name: str, settings: dict[str, Any], text: str
) -> None:
    with pytest.raises(RelaydError, match=text):
        await ControlServer(control.house, socket_path=directory / name, **settings).start()
    assert list(directory.iterdir()) == []


@pytest.mark.skipif(os.getuid() != 0, reason="only root can become somebody else")
async def test_who_may_not_open_the_socket_is_told_whose_it_is(control: Control, directory: Path) -> None:
    path = directory / "s"
    server = ControlServer(control.house, socket_path=path, mode=0o660)
    await server.start()
    ran = await asyncio.to_thread(_as_nobody, "get('/v1/clients')", path)
    await server.close()
    assert ran.returncode != 0 and "join the group root or become root" in ran.stderr, ran.stderr


@pytest.mark.skipif(os.getuid() != 0, reason="only root can become somebody else")
async def test_the_kernel_says_who_the_actor_is(control: Control, directory: Path) -> None:
    path = directory / "s"
    server = ControlServer(control.house, socket_path=path, mode=0o666)
    await server.start()
    ran = await asyncio.to_thread(_as_nobody, "post('/v1/clients', {'name': 'acme'})", path)
    await server.close()
    assert ran.returncode == 0, ran.stderr
    assert (await control.ok("GET", "audit"))["items"][0]["actor"] == "nobody(65534)"


@pytest.mark.parametrize(
    ("raw", "text"),
    [
        (b"{", "not JSON"),
        (b"\xff", "not JSON"),
        (b"[1]", "not a JSON object"),
        (b"null", "not a JSON object"),
        (b"[" * 100_000, "not JSON"),
        (b'{"name": "\\ud800"}', "JSON"),
        (b'{"name": "a\\u0000b"}', "name"),
        (b'{"name": null}', "name"),
        (b'{"name": {"a": 1}}', "name"),
        (b'{"name": "acme", "may_send_bounces": "yes"}', "may_send_bounces"),
        (b"", "name: is required"),
        (b'{"name": ' + b"[" * 900 + b"]" * 900 + b"}", ""),
        (b'{"name": ' + b"9" * 5000 + b"}", "not JSON"),
    ],
)
async def test_bodies_that_make_no_sense_are_refused(control: Control, raw: bytes, text: str) -> None:
    answer = await control.request("POST", "clients", data=raw)
    assert answer.status == 422 and text in answer.message, answer.text
    assert (await control.ok("GET", "clients")) == {"items": []}


CUT_SHORT = gzip.compress(b'{"name": "acme"}', mtime=0)[:-20]


@pytest.mark.parametrize("encoding", ["gzip", "deflate"])
@pytest.mark.parametrize(
    "raw",
    [b"no such thing", b"\x1f\x8b\x08\x00broken", CUT_SHORT],
    ids=["no gzip", "broken", "cut short"],
)
async def test_a_body_that_is_not_what_its_encoding_says_is_refused(
    control: Control, raw: bytes, encoding: str
) -> None:
    answer = await control.request("POST", "clients", data=raw, headers={"Content-Encoding": encoding})
    assert 400 <= answer.status < 500, answer.text
    assert (await control.ok("GET", "clients")) == {"items": []}


@pytest.mark.parametrize(
    "when", ["0.5", "0", "-1", "1e3", "99999999999999", "1969-12-31T23:00:00Z", "9999-12-31", "now"]
)
@pytest.mark.parametrize("path", ["messages?until=", "messages?since="])
async def test_a_time_that_makes_no_sense_is_refused(control: Control, path: str, when: str) -> None:
    answer = await control.request("GET", path + when)
    assert answer.status == 422, answer.text
    assert "2026-11-22T08:00:00Z" in answer.message or "datetime" in answer.message


@pytest.mark.parametrize(
    "when", ["2026-11-22", "2026-11-22T08:00:00", "2026-11-22T08:00:00Z", "2026-11-22T08:00:00-05:00"]
)
@pytest.mark.parametrize("path", ["messages?until=", "messages?since="])
async def test_a_time_may_be_a_day_or_have_a_zone(control: Control, path: str, when: str) -> None:
    assert (await control.ok("GET", path + when))["items"] == []


async def test_a_name_is_not_given_twice(control: Control) -> None:
    await control.ok("POST", "clients", {"name": "acme"})
    answer = await control.request("PATCH", "clients/acme", {"name": "other", "tier": "Velocity"})
    assert answer.status == 422 and "in the path already" in answer.message


async def test_a_huge_body_is_413(control: Control) -> None:
    body = json.dumps({"name": "x" * MAX_BODY_OCTETS}).encode()
    answer = await control.request("POST", "clients", data=io.BytesIO(body))
    assert answer.status == 413 and "larger than" in answer.message


@pytest.mark.parametrize(
    ("method", "path", "status"),
    [
        ("GET", "nothing", 404),
        ("PUT", "clients", 405),
        ("GET", "clients/a%00b", 422),
        ("GET", "clients/%FF", 404),
        ("GET", "clients/" + "x" * 1000, 422),
    ],
)
async def test_odd_paths_are_answered_in_json(control: Control, method: str, path: str, status: int) -> None:
    answer = await control.request(method, path)
    assert answer.status == status and answer.data["error"]["message"], answer.text


async def test_an_error_of_our_own_tells_the_peer_nothing(
    control: Control, directory: Path, caplog: pytest.LogCaptureFixture
) -> None:
    async def fail(context: Context, request: Nothing) -> View:
        async with context.reading() as connection:
            await connection.execute("SELECT canary FROM nowhere")
        return View()

    async def write(context: Context, request: Nothing) -> View:
        async with context.reading() as connection:
            await connection.execute("INSERT INTO clients (name) VALUES ('canary')")
        return View()

    routes = (
        Route("GET", "/v1/fail", fail, "Fail", Nothing, View),
        Route("GET", "/v1/write", write, "Write while reading", Nothing, View),
    )
    server = ControlServer(control.house, socket_path=directory / "s", routes=routes)
    await server.start()
    for path in ("/v1/fail", "/v1/write"):
        status, text = await _get(directory / "s", path)
        assert status in (500, 503)
        assert "canary" not in text and "Traceback" not in text
    await server.close()
    assert "canary" in caplog.text


async def test_without_the_database_the_answer_is_503_and_heals(control: Control, directory: Path) -> None:
    house = House(
        database=await Database.open(f"postgresql://relayd@/relayd?host={directory}", acquire_timeout_seconds=1),
        seal=control.house.seal,
        wake=control.house.wake,
        version="0",
        node="n",
    )
    server = ControlServer(house, socket_path=directory / "s")
    await server.start()
    status, text = await _get(directory / "s", "/v1/clients")
    assert status == 503 and "the database cannot be reached" in text and str(directory) not in text
    await server.close()
    await house.database.close()


async def test_clashing_changes_do_not_overtake_each_other(control: Control) -> None:
    answers = await asyncio.gather(*(control.request("POST", "clients", {"name": "acme"}) for _ in range(8)))
    assert sorted(answer.status for answer in answers) == [200] + [409] * 7
    await control.ok("POST", "upstreams", {"name": "out", "provider": "capture", "directory": "/m"})
    await control.ok("POST", "domains", {"domain": "example.com", "client": "acme"})
    for number in range(5):
        address = f"a{number}@example.com"
        added, removed = await asyncio.gather(
            control.request("POST", "mailboxes", {"email_address": address}),
            control.request("DELETE", "upstreams/out"),
        )
        # Whoever came first, no mailbox is left with an upstream that is gone.
        assert (added.status, removed.status) in {(200, 409), (404, 200), (409, 200)}, (added.text, removed.text)
        if removed.status == 200:
            await control.ok("POST", "upstreams", {"name": "out", "provider": "capture", "directory": "/m"})
        else:
            await control.ok("DELETE", f"mailboxes/{address}")


async def test_openapi_describes_every_route(control: Control) -> None:
    document = await control.ok("GET", "openapi.json")
    described = {(method.upper(), path) for path, methods in document["paths"].items() for method in methods}
    assert described == {(route.method, route.path) for route in ROUTES}
    assert json.dumps(document).count("canary") == 0
    assert document["info"]["version"] == "0.0.test"


async def test_readers_see_one_moment(control: Control) -> None:
    context = Context(control.house, "test")
    async with context.reading() as connection:
        assert await connection.fetchval("SELECT count(*) FROM clients") == 0
        await control.ok("POST", "clients", {"name": "acme"})
        assert await connection.fetchval("SELECT count(*) FROM clients") == 0
        with pytest.raises(asyncpg.ReadOnlySQLTransactionError):
            await connection.execute("DELETE FROM clients")


async def _get(path: Path, target: str) -> tuple[int, str]:
    reader, writer = await asyncio.open_unix_connection(path)
    writer.write(f"GET {target} HTTP/1.1\r\nHost: relayd\r\nConnection: close\r\n\r\n".encode())
    raw = (await reader.read()).decode()
    writer.close()
    await writer.wait_closed()
    return int(raw.split()[1]), raw.partition("\r\n\r\n")[2]


def _as_nobody(call: str, path: Path) -> "subprocess.CompletedProcess[str]":
    # Becomes nobody after the imports, which only root may be able to read.
    program = (
        "import grp, http.client, os, pwd, sys; from pathlib import Path;"
        "from relayd.control.client import ControlClient;"
        f"os.setgroups([]); os.setgid(65534); os.setuid(65534); ControlClient([Path(sys.argv[1])]).{call}"
    )
    return subprocess.run([sys.executable, "-c", program, str(path)], capture_output=True, text=True)


@pytest.mark.skipif(os.getuid() != 0, reason="only root can become somebody else")
def test_a_group_that_the_service_is_not_in_names_the_remedy() -> None:
    with tempfile.TemporaryDirectory() as directory:
        Path(directory).chmod(0o777)
        program = (
            "import os, sys; from pathlib import Path; from relayd.control import unix_socket;"
            "os.setgroups([]); os.setgid(65534); os.setuid(65534);"
            f"unix_socket.listen(Path({directory!r}) / 'control.sock', mode=0o660, group='root')"
        )
        ran = subprocess.run([sys.executable, "-c", program], capture_output=True, text=True, timeout=60, check=False)
        assert not list(Path(directory).iterdir())
    assert "SupplementaryGroups=root to the unit: systemctl edit relayd" in ran.stderr

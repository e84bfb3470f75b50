import asyncio
import os
import shutil
import socket
import subprocess
import sys
from collections.abc import AsyncIterator, Iterator
from pathlib import Path

import aiohttp
import pytest
from prometheus_client import CollectorRegistry
from prometheus_client.parser import text_string_to_metric_families

from relayd.daemon.http import HttpEndpoint, Readiness
from relayd.daemon.sockets import bind
from relayd.metrics import Meter, MetricsPage, NodeState, forget_worker, prepare_directory
from relayd.rules.relay_events import Accepted, ClaimsInDoubt
from relayd.store.pool import Database
from tests.sample_events import sample

# Every event once, then a line to say so; ends, or is killed, when told.
WORKER = """
import sys
from relayd import metrics
from tests.sample_events import samples
for event in samples(text="word"):
    metrics.record(event)
print("ready", flush=True)
sys.stdin.read()
"""


class Node:
    """A supervisor's endpoint with what it shows."""

    def __init__(self, directory: Path, db: Database) -> None:
        self.readiness = Readiness(True)
        self.ready_workers = 0
        state = NodeState(workers_ready=lambda: self.ready_workers, workers_wanted=lambda: 2)
        self.meter = Meter(CollectorRegistry())
        self.listener = bind("127.0.0.1:0")
        self.url = f"http://127.0.0.1:{self.listener.getsockname()[1]}"
        page = MetricsPage(directory, db, node=state, meter=self.meter)
        self.endpoint = HttpEndpoint(sockets=[self.listener], metrics_page=page, readiness=self.ready)

    async def ready(self) -> Readiness:
        return self.readiness

    async def values(self) -> dict[str, float]:
        async with aiohttp.request("GET", self.url + "/metrics") as response:
            page = await response.text()
        return {
            each.name + "".join(f"/{value}" for value in each.labels.values()): each.value
            for family in text_string_to_metric_families(page)
            for each in family.samples
        }


@pytest.fixture
async def node(db: Database, tmp_path: Path) -> AsyncIterator[Node]:
    made = Node(tmp_path, db)
    await made.endpoint.start()
    yield made
    await made.endpoint.close()


def start_worker(directory: Path) -> "subprocess.Popen[bytes]":
    worker = subprocess.Popen(
        [sys.executable, "-c", WORKER],
        env={**os.environ, "PROMETHEUS_MULTIPROC_DIR": str(directory)},
        cwd=Path(__file__).parents[2],
        stdin=subprocess.PIPE,
        stdout=subprocess.PIPE,
    )
    assert worker.stdout and worker.stdout.readline() == b"ready\n"
    return worker


def end(worker: "subprocess.Popen[bytes]") -> None:
    worker.kill()
    worker.communicate()


@pytest.fixture
def workers(tmp_path: Path) -> Iterator[list["subprocess.Popen[bytes]"]]:
    prepare_directory(tmp_path)
    started = [start_worker(tmp_path) for _ in range(2)]
    yield started
    for each in started:
        end(each)


async def test_workers_are_summed_with_the_supervisors_own(
    node: Node, workers: list["subprocess.Popen[bytes]"]
) -> None:
    node.meter.record(sample(ClaimsInDoubt, count=5))
    node.meter.record(sample(Accepted))
    found = await node.values()
    assert found["relayd_messages_accepted_total"] == 3
    assert found["relayd_claims_in_doubt_total"] == 3 + 3 + 5
    assert found["relayd_message_size_bytes_count"] == 3
    assert found["relayd_message_size_bytes_bucket/1024.0"] == 3
    assert found["relayd_attempts_total/word/local/word"] == 2


async def test_a_killed_workers_counts_stay_through_its_restart(
    node: Node, workers: list["subprocess.Popen[bytes]"], tmp_path: Path
) -> None:
    before = await node.values()
    end(workers[0])
    forget_worker(tmp_path, workers[0].pid)
    counts = [name for name in before if name.endswith("_total") or "_bucket" in name or name.endswith("_count")]
    after = await node.values()
    assert {name: after[name] for name in counts} == {name: before[name] for name in counts}
    workers[0] = start_worker(tmp_path)
    assert (await node.values())["relayd_messages_accepted_total"] == 3


async def test_the_page_passes_promtool(node: Node, workers: list["subprocess.Popen[bytes]"], tmp_path: Path) -> None:
    promtool = shutil.which("promtool")
    if promtool is None:
        if os.environ.get("RELAYD_REQUIRE_PEERS") == "1":
            pytest.fail("promtool is not installed")
        pytest.skip("promtool is not installed")
    end(workers[0])
    forget_worker(tmp_path, workers[0].pid)
    async with aiohttp.request("GET", node.url + "/metrics") as response:
        page = await response.read()
    check = await asyncio.create_subprocess_exec(
        promtool, "check", "metrics", stdin=subprocess.PIPE, stdout=subprocess.PIPE, stderr=subprocess.STDOUT
    )
    told, _ = await check.communicate(page)
    assert (check.returncode, told.decode()) == (0, "")


async def test_documentation_lists_every_metric(node: Node, workers: list["subprocess.Popen[bytes]"]) -> None:
    async with aiohttp.request("GET", node.url + "/metrics") as response:
        names = {line.split()[2] for line in (await response.text()).splitlines() if line.startswith("# TYPE")}
    documented = (Path(__file__).parents[2] / "docs" / "metrics.md").read_text()
    listed = {line.split("`")[1] for line in documented.splitlines() if line.startswith("| `relayd_")}
    assert listed == names


async def test_metrics_say_their_format(node: Node) -> None:
    async with aiohttp.request("GET", node.url + "/metrics") as response:
        assert response.status == 200
        assert response.headers["Content-Type"] == "text/plain; version=0.0.4; charset=utf-8"
        assert (await response.text()).endswith("\n")


async def test_the_supervisors_state_is_shown_as_it_changes(node: Node) -> None:
    node.ready_workers = 2
    found = await node.values()
    assert (found["relayd_workers"], found["relayd_workers_wanted"]) == (2, 2)
    assert any(name.startswith("relayd_build_info/") for name in found)


async def test_health_is_that_the_process_answers(node: Node) -> None:
    node.readiness = Readiness(False, "down")
    async with aiohttp.request("GET", node.url + "/healthz") as response:
        assert (response.status, await response.json()) == (200, {"status": "alive"})


async def test_readiness_and_its_reason(node: Node) -> None:
    async with aiohttp.request("GET", node.url + "/readyz") as response:
        assert (response.status, await response.json()) == (200, {"status": "ready"})
    node.readiness = Readiness(False, "the database does not answer")
    async with aiohttp.request("GET", node.url + "/readyz") as response:
        assert response.status == 503
        assert await response.json() == {"status": "not ready", "reason": "the database does not answer"}


@pytest.mark.parametrize("path", ["/metrics", "/healthz", "/readyz"])
async def test_head_is_answered_without_a_body(node: Node, path: str) -> None:
    async with aiohttp.request("HEAD", node.url + path) as response:
        assert (response.status, await response.read()) == (200, b"")


@pytest.mark.parametrize("path", ["/metrics", "/healthz", "/readyz"])
@pytest.mark.parametrize("method", ["POST", "PUT", "DELETE", "PATCH", "OPTIONS", "TRACE"])
async def test_nothing_can_be_changed(node: Node, method: str, path: str) -> None:
    async with aiohttp.request(method, node.url + path) as response:
        assert response.status == 405


@pytest.mark.parametrize("path", ["/", "/metrics/", "/metricsx", "//metrics", "/%2e%2e/etc/passwd", "/debug"])
async def test_everything_else_is_not_found(node: Node, path: str) -> None:
    async with aiohttp.request("GET", node.url + path) as response:
        assert response.status == 404


async def test_a_bug_is_answered_without_internals(node: Node, caplog: pytest.LogCaptureFixture) -> None:
    async def broken() -> Readiness:
        raise RuntimeError("canary")

    node.endpoint._readiness = broken
    async with aiohttp.request("GET", node.url + "/readyz") as response:
        assert response.status == 500
        assert "canary" not in await response.text()
    assert "canary" in caplog.text


async def test_replies_do_not_name_the_software_below(node: Node) -> None:
    async with aiohttp.request("GET", node.url + "/nothing") as response:
        assert response.headers["Server"] == "relayd"


async def test_closing_gives_the_port_back(node: Node) -> None:
    port = node.listener.getsockname()[1]
    await node.endpoint.close()
    with socket.socket() as again:
        again.setsockopt(socket.SOL_SOCKET, socket.SO_REUSEADDR, 1)
        again.bind(("127.0.0.1", port))


async def test_bytes_that_are_not_http_are_refused(node: Node) -> None:
    reader, writer = await asyncio.open_connection("127.0.0.1", node.listener.getsockname()[1])
    writer.write(b"EHLO \x00\xff\r\n\r\n")
    assert b"400" in await reader.readline()
    writer.close()

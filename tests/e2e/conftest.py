"""A node to play with: migrated, not yet started."""

import os
import shutil
import tempfile
from collections.abc import Callable, Iterator
from pathlib import Path
from typing import Any

import pytest

from relayd.control.client import ControlClient, path_of
from relayd.embedded import EmbeddedPostgres
from tests.conftest import FreshDatabase
from tests.e2e.house import House
from tests.peers import exim
from tests.peers.sink import Sink


@pytest.fixture
def make_house(database: FreshDatabase) -> Iterator[Callable[..., House]]:
    """Nodes on this test's database; closed, with their processes, at the end."""
    houses: list[House] = []

    def make(**sections: Any) -> House:
        house = House(database.dsn, database.password, **sections)
        houses.append(house)
        return house

    yield make
    for house in houses:
        house.close()


@pytest.fixture
def house(make_house: Callable[..., House]) -> House:
    return make_house()


@pytest.fixture
def small_house(make_house: Callable[..., House]) -> House:
    """One worker: for what two would do no otherwise."""
    return make_house(processes=1)


@pytest.fixture
def house_on_own_postgres(own_postgres: EmbeddedPostgres) -> Iterator[House]:
    """A node whose Postgres the test may stop and kill."""
    house = House(own_postgres.dsn, own_postgres.password)
    yield house
    house.close()


@pytest.fixture
def sink() -> Iterator[Sink]:
    with Sink() as running:
        yield running


@pytest.fixture
def directory() -> Iterator[Path]:
    """One that users other than root may pass through."""
    if os.geteuid() != 0:
        pytest.skip("these servers are started by root alone")
    with tempfile.TemporaryDirectory(prefix="relayd-") as path:
        Path(path).chmod(0o755)
        yield Path(path)


def furnish(house: House, upstream_port: int, *, limit: str = "unlimited", sender: str = "app@example.com") -> None:
    """Client, upstream, domain and mailbox, over the control socket: a process for each would cost dearly."""
    control = ControlClient((house.socket,))
    upstream = {"provider": "smtp_relay", "host": "127.0.0.1", "port": upstream_port, "tls": "none"}
    control.post(path_of("clients"), {"name": "acme"})
    control.post(path_of("upstreams"), {"name": "sink", **upstream})
    control.post(path_of("domains"), {"domain": sender.partition("@")[2], "client": "acme"})
    units = None if limit == "unlimited" else int(limit)
    control.post(path_of("mailboxes"), {"email_address": sender, "daily_send_limit": units})


def need(*programs: str) -> None:
    """Skip where a peer is not installed; fail where RELAYD_REQUIRE_PEERS=1 says that it must be."""
    path = os.environ.get("PATH", "") + f":/usr/sbin:/sbin:{exim.UNPACKED}"
    missing = [program for program in programs if shutil.which(program, path=path) is None]
    if missing and os.environ.get("RELAYD_REQUIRE_PEERS") == "1":
        pytest.fail(f"not installed: {', '.join(missing)}")
    if missing:
        pytest.skip(f"not installed: {', '.join(missing)}")

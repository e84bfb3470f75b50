"""Caps of a node hold for the node, however many workers it has: not one connection less, not one more."""

import os
import signal
import socket
from collections.abc import Iterator
from contextlib import ExitStack, closing, contextmanager

import pytest

from tests.conftest import FreshDatabase
from tests.e2e.house import House, wait_until
from tests.e2e.reloading import reload

CAP = 40


@contextmanager
def node(database: FreshDatabase, processes: int, **submission: int) -> Iterator[House]:
    house = House(
        database.dsn, database.password, processes=processes, submission={"max_connections": CAP, **submission}
    )
    with closing(house):
        house.migrate()
        house.start()
        yield house


def greeted(house: House, stack: ExitStack, count: int, *, peers: int = 1) -> int:
    """How many of so many connections at once are greeted; they stay open."""
    opened = []
    for number in range(count):
        app = stack.enter_context(socket.socket())
        app.bind((f"127.0.0.{1 + number % peers}", 0))
        app.connect(("127.0.0.1", house.smtp_port))
        opened.append(app)
    replies = []
    for app in opened:
        app.settimeout(30)
        replies.append(app.recv(3))
    assert set(replies) <= {b"220", b"421"}
    return replies.count(b"220")


@pytest.mark.parametrize("processes", [2, 4])
def test_exactly_as_many_are_served_as_the_cap_says(database: FreshDatabase, processes: int) -> None:
    with node(database, processes) as house, ExitStack() as stack:
        assert greeted(house, stack, CAP + 20, peers=2) == CAP
        stack.close()
        wait_until(lambda: house.metric("relayd_sessions_open") == 0, what="no session")
        assert greeted(house, stack, CAP + 20, peers=2) == CAP


def test_exactly_as_many_of_one_peer(database: FreshDatabase) -> None:
    with node(database, 2, max_connections_per_peer=7) as house, ExitStack() as stack:
        assert greeted(house, stack, 20) == 7
        assert greeted(house, stack, 21, peers=3) == 14


def test_a_worker_that_is_killed_gives_back_what_it_had(database: FreshDatabase) -> None:
    with node(database, 2) as house, ExitStack() as stack:
        assert greeted(house, stack, CAP + 5) == CAP
        killed = house.worker_pids()
        for pid in killed:
            os.kill(pid, signal.SIGKILL)
        wait_until(lambda: house.metric("relayd_workers") == 2 and not set(killed) & set(house.worker_pids()))
        assert greeted(house, stack, CAP + 5) == CAP


def test_sessions_of_workers_that_a_reload_replaced_still_count(database: FreshDatabase) -> None:
    with node(database, 2) as house, ExitStack() as stack:
        assert greeted(house, stack, CAP - 10) == CAP - 10
        reload(house, max_connections=CAP + 5)
        held = house.metric("relayd_sessions_open")
        assert greeted(house, stack, CAP + 5) == CAP + 5 - held

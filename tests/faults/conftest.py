"""A Postgres of a test's own that may be harmed, over TCP; a pair of them; how patient a node is in short trials."""

from collections.abc import Iterator
from pathlib import Path
from typing import Any

import pytest

from tests.conftest import wanted_major
from tests.e2e.house import free_port
from tests.peers.postgres_pair import PostgresPair
from tests.peers.postgres_server import PostgresServer, stop_all


@pytest.fixture
def server(state_directory: Path) -> Iterator[PostgresServer]:
    """One server, durable."""
    running = PostgresServer(state_directory, free_port(), major=wanted_major())
    try:
        running.initialise()
        running.start()
        yield running
    finally:
        stop_all([running])


@pytest.fixture
def pair(state_directory: Path) -> Iterator[PostgresPair]:
    """A primary and its synchronous standby."""
    with PostgresPair(state_directory, major=wanted_major()) as running:
        yield running


@pytest.fixture
def short() -> dict[str, Any]:
    """What makes a trial short."""
    return {"major": wanted_major(), "rate": 50.0, "processes": 1}


@pytest.fixture
def impatient(short: dict[str, Any]) -> dict[str, Any]:
    """And what is silent is given up soon. Not for all: a busy machine may be silent for a moment, too."""
    return {**short, "database": {"statement_timeout_seconds": 1.5}}

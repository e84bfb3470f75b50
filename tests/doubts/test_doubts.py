"""The short form of `python -m tests.doubts`."""

from pathlib import Path

import pytest

from relayd.store.pool import Database
from tests.conftest import at_length
from tests.doubts.scene import Route, play
from tests.peers.mail import Authority

BRIEFLY = (Route.RETRY, Route.GMAIL_API)


@pytest.mark.parametrize(
    "route",
    [route if route in BRIEFLY else pytest.param(route, marks=at_length) for route in Route],
    ids=lambda route: route.value,
)
async def test_no_doubt_is_lost_and_none_is_doubled_but_by_choice(db: Database, tmp_path: Path, route: Route) -> None:
    report = await play(db, Authority(tmp_path), route, 20)
    assert report.is_well, str(report)

"""The short form of `python -m tests.doubts`."""

from pathlib import Path
from tempfile import TemporaryDirectory

import pytest

from relayd.store.pool import Database
from tests.conftest import at_length
from tests.doubts import smtp_sink
from tests.doubts.scene import Route, play
from tests.e2e.conftest import need
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


@at_length
@pytest.mark.parametrize("route", smtp_sink.ROUTES, ids=lambda route: route.value)
async def test_the_same_holds_of_a_real_server_that_takes_and_drops(db: Database, route: Route) -> None:
    need("smtp-sink")
    with TemporaryDirectory(prefix="relayd-doubts-") as directory:
        Path(directory).chmod(0o711)
        report = await smtp_sink.play(db, Path(directory), route, 20)
    assert report.is_well, str(report)

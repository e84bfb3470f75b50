"""The short form of `make failover`."""

from pathlib import Path

from tests.conftest import FreshDatabase, at_length
from tests.failover.drill import run


@at_length
def test_an_upstream_dies_and_comes_back_and_nothing_is_lost(database: FreshDatabase, tmp_path: Path) -> None:
    told = run(database, tmp_path, 200, rate=60)
    assert told.verdict.is_clean, told
    assert told.verdict.acknowledged == told.verdict.delivered >= 200, told
    assert 1 <= told.tried_while_open <= told.probes, told
    assert told.returned > 1, told

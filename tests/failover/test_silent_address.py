"""The short form of the drill with one silent address."""

from dataclasses import replace
from pathlib import Path

from tests.conftest import FreshDatabase, at_length
from tests.failover.silent_address import Told, run

WELL = Told(messages=3, arrived=3, longest_seconds=0.5, retries=0, warning="1 of 2 addresses does not work")


@at_length
def test_mail_goes_by_the_address_that_works(database: FreshDatabase, tmp_path: Path) -> None:
    told = run(database, tmp_path, 3, with_trial=False)
    assert told.is_well, told
    assert told.arrived == told.messages == 3 and told.warning is None


def test_every_broken_promise_is_named() -> None:
    assert WELL.is_well
    for changes in ({"arrived": 2}, {"arrived": 4}, {"longest_seconds": 31.0}, {"retries": 1}, {"warning": ""}):
        assert len(replace(WELL, **changes).failed_promises) == 1

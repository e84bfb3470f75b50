"""The short form of `make ledger`: a small race, two short histories, and bugs that show at once."""

from datetime import UTC, datetime, timedelta

import pytest

from tests.conftest import FreshDatabase
from tests.ledger.budget import Budget, Terms
from tests.ledger.bugs import BUGS, REWRITES, planted
from tests.ledger.history import run
from tests.ledger.race import Size, racing

SMALL = Size(processes=2, claimers=16, connections=6, limit=60)
NOON = datetime(2026, 10, 24, 12, tzinfo=UTC)
DAY = timedelta(days=1)


async def test_claimers_of_two_processes_take_exactly_the_limit(database: FreshDatabase) -> None:
    async with racing(database, SMALL) as race:
        for number in (1, 4):
            told = await race.round(number)
            assert told.is_well, told


async def test_the_race_catches_a_claim_that_reads_and_then_writes(database: FreshDatabase) -> None:
    async with racing(database, SMALL) as race:
        # It takes luck to meet it: as often as it needs, but not for ever.
        for number in (2, 4, 6, 8, 10, 12):
            told = await race.round(number, bug="naive-claim")
            if told.used > told.limit:
                return
    pytest.fail(f"six rounds without a unit too many, the last: {told}")


@pytest.mark.parametrize("seed", ["short-1", "short-2"])
async def test_a_random_history_passes_no_limit_and_loses_nothing(database: FreshDatabase, seed: str) -> None:
    told = await run(database, seed, 150)
    assert told.fault is None, told.fault
    assert told.replies > 10


def test_every_bug_fits_the_code_as_it_is_and_is_taken_out_again() -> None:
    for bug in BUGS:
        before = [getattr(module, constant) for rewrites in REWRITES.values() for module, constant, *_ in rewrites]
        with planted(bug):
            pass
        assert before == [
            getattr(module, constant) for rewrites in REWRITES.values() for module, constant, *_ in rewrites
        ]


def budget(limit: int, *, zone: str = "UTC", is_rolling: bool = False) -> Budget:
    return Budget("mailbox_day", "m", Terms(limit, 10, is_rolling, DAY, zone), exact=True)


def test_the_record_knows_days_of_25_hours_and_spans_of_24() -> None:
    calendar, rolling = budget(5, zone="Europe/Berlin"), budget(5, is_rolling=True)
    for each in (calendar, rolling):
        each.replies = [(NOON + timedelta(hours=hours), 5) for hours in (9, 10.5, 34.9, 35.5)]
    # There the 25th lasts from 22:00 on the 24th to 23:00 on the 25th.
    assert len(calendar.in_window(NOON + timedelta(hours=34.95))) == 2
    assert len(rolling.in_window(NOON + timedelta(hours=35))) == 2
    assert len(rolling.span_ending_at(NOON + timedelta(hours=34.9))) == 1


def test_the_record_rounds_the_part_of_bulk_down() -> None:
    assert [budget(limit).terms.bulk_limit for limit in (0, 1, 9, 10, 11)] == [0, 0, 8, 9, 9]

"""A short form of every trial; `make faults` runs the long one."""

import signal
from pathlib import Path
from typing import Any

import pytest

from tests.conftest import at_length
from tests.crash.ledger import Verdict
from tests.faults.crowd import Crowding, crowdings
from tests.faults.failover import promotions
from tests.faults.full_disk import Filling, Kind, fillings
from tests.faults.restarts import restarts
from tests.faults.silence import Silence, silences
from tests.peers.postgres_pair import Fate
from tests.peers.small_disk import CannotMount


def _clean(verdict: Any) -> Verdict:
    assert isinstance(verdict, Verdict)
    assert verdict.is_clean, str(verdict)
    return verdict


@at_length
def test_a_promoted_standby_takes_over_and_nothing_is_lost(
    tmp_path: Path, state_directory: Path, impatient: dict[str, Any]
) -> None:
    # The last lives on as a primary that nobody follows, with all of our connections to it.
    fates = [Fate.IMMEDIATE, Fate.READ_ONLY, Fate.ISOLATED]
    *_, verdict = promotions(fates, tmp_path, state_directory, **impatient)
    _clean(verdict)


@at_length
def test_a_primary_that_hangs_and_wakes_up_too_late_gets_nothing(
    tmp_path: Path, state_directory: Path, impatient: dict[str, Any]
) -> None:
    *_, verdict = promotions([Fate.HUNG], tmp_path, state_directory, **impatient)
    _clean(verdict)


@at_length
def test_restarts_lose_nothing(tmp_path: Path, state_directory: Path, short: dict[str, Any]) -> None:
    *_, verdict = restarts([signal.SIGINT, signal.SIGQUIT, signal.SIGKILL], tmp_path, state_directory, **short)
    assert _clean(verdict).unanswered == 0


@at_length
def test_a_silent_way_to_postgres_is_given_up_in_time_and_taken_again(
    tmp_path: Path, state_directory: Path, impatient: dict[str, Any]
) -> None:
    silence, verdict = silences(1, tmp_path, state_directory, **impatient)
    assert isinstance(silence, Silence) and silence.unanswered == 0 and not silence.was_ready
    assert _clean(verdict).unanswered == 0


@at_length
def test_a_crowded_postgres_is_used_with_the_connections_held_and_waited_for_without(
    tmp_path: Path, state_directory: Path, short: dict[str, Any]
) -> None:
    held, thrown_out, verdict = crowdings([False, True], tmp_path, state_directory, **short)
    assert isinstance(held, Crowding) and held.accepted >= 100
    assert isinstance(thrown_out, Crowding) and not thrown_out.accepted
    assert _clean(verdict).unanswered == 0


@at_length
def test_a_full_disk_is_told_apart_and_mail_is_taken_again_once_there_is_room(
    tmp_path: Path, short: dict[str, Any]
) -> None:
    try:
        tables, wal, verdict = fillings([Kind.TABLES, Kind.WAL], tmp_path, **short)
    except CannotMount as error:
        pytest.skip(f"needs a filesystem of its own: {error}")
    assert isinstance(tables, Filling) and tables.reply.startswith(b"451 4.3.1 ")
    assert isinstance(wal, Filling) and wal.reply.startswith(b"451 4.3.")
    assert not tables.was_ready and not wal.was_ready
    assert _clean(verdict).unanswered == 0

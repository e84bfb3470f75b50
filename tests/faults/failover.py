"""Promote the standby under load, again and again, whatever becomes of the primary before it."""

import time
from collections.abc import Iterator, Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import Any

from tests.crash.ledger import Verdict
from tests.e2e.house import wait_until
from tests.faults.trial import SURELY_NEW, Trial, trial
from tests.peers.postgres_pair import Fate, PostgresPair

# While a primary lives that does not know that it was replaced.
OVERTAKEN_MAIL = 100

SUPERVISORS = "SELECT FROM pg_stat_activity WHERE application_name = 'relayd supervisor'"


@dataclass(frozen=True)
class Promotion:
    """One of them. `seconds`: from the primary's end to mail being acknowledged by its successor."""

    fate: Fate
    seconds: float


def promotions(
    fates: Sequence[Fate],
    directory: Path,
    state: Path,
    *,
    major: int | None = None,
    patience_seconds: float = 60.0,
    between: int = SURELY_NEW,
    rate: float = 100.0,
    **sections: Any,
) -> Iterator[Promotion | Verdict]:
    """Each promotion as it is done, and last the verdict on all of them. `between`: messages from one to the next."""
    with (
        PostgresPair(state, major=major) as pair,
        trial(pair.dsn, pair.password, directory, rate=rate, **sections) as running,
    ):
        for fate in fates:
            yield Promotion(fate, _promote(pair, running, fate, patience_seconds))
            running.wait_for_mail(between)
        yield running.verdict(pair.primary)


def _promote(pair: PostgresPair, running: Trial, fate: Fate, patience_seconds: float) -> float:
    began = time.monotonic()
    pair.fail_over(fate)
    # Whatever is acknowledged from here on, but for what was under way, its successor has.
    wanted = running.load.acknowledged + SURELY_NEW
    wait_until(lambda: running.load.acknowledged >= wanted, seconds=patience_seconds, what="mail being accepted")
    seconds = time.monotonic() - began
    if fate is Fate.HUNG:
        # It wakes up and takes itself for the primary.
        pair.standby.go_on()
        running.wait_for_mail(OVERTAKEN_MAIL)
    if fate is Fate.ISOLATED:
        # Nor does the supervisor go on there, with its locks, though all that it reads is answered.
        wait_until(
            lambda: not pair.standby.execute(SUPERVISORS), seconds=patience_seconds, what="the supervisor's going"
        )
    pair.rebuild()
    return seconds

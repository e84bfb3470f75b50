"""The states are the same in the code, in the CHECKs and in docs/states.md."""

import re
from pathlib import Path

import pytest

from relayd.rules.states import LogEvent, PendingReason, Status

ROOT = Path(__file__).parents[3]
MIGRATION = (ROOT / "migrations" / "0003_queue.up.sql").read_text()
# The log's events have become more since.
EVENTS = (ROOT / "migrations" / "0007_upstreams.up.sql").read_text()
STATES = (ROOT / "docs" / "states.md").read_text()


def checked(column: str) -> set[str]:
    """The words that a column's own CHECK allows."""
    found = re.search(rf"CHECK \({column} IN \(([^)]*)\)\)", EVENTS if column == "event" else MIGRATION)
    assert found
    return set(re.findall(r"'(\w+)'", found.group(1)))


def test_code_and_checks_know_the_same_states() -> None:
    assert checked("status") == set(Status)
    assert checked("pending_reason") == set(PendingReason)
    assert set(LogEvent) <= checked("event")


@pytest.mark.parametrize("word", sorted(checked("status") | checked("pending_reason") | checked("event")))
def test_every_state_reason_and_event_is_documented(word: str) -> None:
    assert f"`{word}`" in STATES


def test_every_check_over_states_is_quoted() -> None:
    table = MIGRATION[MIGRATION.index("CREATE TABLE email_queue") :]
    table = table[: table.index(") WITH")]
    written = set(re.findall(r"^  (CHECK \(.*\)),?$", table, re.MULTILINE))
    assert written == set(re.findall(r"^(CHECK \(.*\))$", STATES, re.MULTILINE))
    assert written

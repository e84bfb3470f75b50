"""What the bench of limits makes of its figures."""

from pathlib import Path

import pytest

from bench.limits import __main__ as command
from bench.limits import crowd, report
from bench.limits.bench import arrivals_of, latency
from bench.limits.sink import read_notes
from bench.limits.source import Sent
from bench.limits.world import World

WORLD = World(clients=2, live=1, crowd=4, entries=40, crowd_clients=2, crowd_limit=3)
TIMES = {"p50": 0.02, "p95": 0.5, "p99": 0.7, "max": 0.9, "messages": 100, "missing": 2, "load": 1.5}
OPTIONS = vars(command.parse(["run", "--note", "A quiet day."]))
RESULTS = {
    "machine": {"cpu": "Some CPU", "cores": 2, "memory_gib": 4, "kernel": "6.1", "python": "3.11"},
    "postgres": {"version": "18.1"},
    "options": OPTIONS,
}


def rate(case, number, per_second):
    steps = {"claim": 4.0, "settle": 2.0}
    return {
        "case": case,
        "round": number,
        "workers": 2,
        "entries_per_second": per_second,
        "p50_ms": steps,
        "empty_claims": 3,
        "load": 2.0,
    }


def line_of(page, begins):
    (line,) = [line for line in page.splitlines() if line.startswith(begins)]
    return line


def test_what_was_not_measured_has_no_section():
    page = report.page(RESULTS)
    assert "##" not in page and "A quiet day." in page


def test_a_rate_is_compared_with_none_of_its_own_round():
    trials = [rate("none", 1, 1000), rate("none", 2, 500), rate("five rolling", 1, 500), rate("five rolling", 2, 450)]
    assert "0.70 (0.50–0.90)" in line_of(report.page({**RESULTS, "rates": trials}), "| five rolling")


def test_latency_is_shown_with_and_without_what_waits():
    trials = [{"waiting": waiting, "round": 1, **TIMES} for waiting in (1_000_000, 0)]
    page = report.page({**RESULTS, "latency": trials})
    assert page.index("| 0 | 1 |") < page.index("| 1,000,000 | 1 | 100 | 0.020 | 0.500 | 0.700 | 0.900 | 2 | 1.5 |")


def test_every_kind_of_sample_has_its_section():
    plan = {"step": "claim", "waiting": 0, "rows_read": 5, "buffers": 7, "milliseconds": 1.0}
    fair = {"scene": "many", "is_turnless": True, "client": "another", "taken": 9, **TIMES}
    terms = {"entries": 40, "limit": 3, "spread": 10}
    turn = {**terms, "begins": -60.0, "seconds": 60.0, "released": 0, **TIMES}
    release = {**terms, **crowd.release({0: 1.0}, WORLD, 10)}
    found = {"plans": [plan], "fairness": [fair], "turn": [turn], "release": [release]}
    chores = [{"chore": "sweep", "round": number, "seconds": number / 10} for number in (1, 2)]
    page = report.page({**RESULTS, **found, "chores": chores})
    assert line_of(page, "| claim") == "| claim | 0 | 5 (5–5) | 7 (7–7) | 1.0 (1.0–1.0) |"
    assert "without turns" in line_of(page, "| many")
    assert "| 40 | 3 | 10 s | -60 to 0 | 0 | 100 |" in page
    assert "| 40 | 3 | 10 s | 1 | 1, 0, 0, 0, 0 | 0 | 0 | 1 s | 1 | 1 |" in page
    assert line_of(page, "| sweep") == "| sweep | 0.100 | 0.200 (0.200–0.200) |"


def test_a_release_says_when_each_mailbox_began_and_who_sent_the_most():
    # Ten entries a mailbox: of the first two at 1 and 9 s, of the second one before its time, of the third one late.
    released = {0: 9.0, 1: 1.0, 10: -0.5, 20: 12.0}
    found = crowd.release(released, WORLD, 10.0)
    assert found["begun_by_slice"] == [2, 0, 0, 0, 0, 1]
    assert (found["mailboxes"], found["messages"], found["most_of_one"], found["too_early"]) == (3, 4, 2, 1)
    assert found["last_began"] == 12.0


def test_what_has_not_arrived_counts_with_the_time_it_has_waited():
    sent = Sent(
        replied_at={"live-ab-0@example.net": 10.0, "live-ab-1@example.net": 11.0, "live-ab-2@example.net": 12.0}
    )
    came = {"live-ab-0@example.net": 10.5, "live-ab-2@example.net": 11.9}
    arrivals = arrivals_of(sent, came, ["one", "two"], now=20.0)
    assert [(each.client, each.seconds) for each in arrivals] == [("one", 0.5), ("two", 9.0), ("one", 0.0)]
    found = latency(arrivals)
    assert (found["missing"], found["p50"], found["max"]) == (1, 0.5, 9.0)


def test_a_note_that_is_not_whole_yet_is_left_out(tmp_path: Path):
    notes = tmp_path / "notes"
    notes.write_text("1.5 a@x\n2.5 b@")
    assert list(read_notes(notes)) == [("a@x", 1.5)]


@pytest.mark.parametrize(
    ("arguments", "says"),
    [
        (["--live", "10", "--mailboxes", "10"], "--live must be less than --mailboxes"),
        (["--out", "/nowhere/at/all.json"], "make it first"),
    ],
)
def test_what_cannot_be_measured_is_refused_before_anything_is_made(arguments, says, capsys):
    assert command.main(arguments) == 2
    assert says in capsys.readouterr().err


@pytest.mark.parametrize("arguments", [["--mailboxes", "0"], ["--parts", "all"], ["--rate", "fast"]])
def test_a_run_without_bounds_is_refused(arguments, capsys):
    with pytest.raises(SystemExit):
        command.main(arguments)
    assert capsys.readouterr().err

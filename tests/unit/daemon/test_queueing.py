"""What a worker tells its supervisor of its queueing, and what is not worth telling."""

from relayd.daemon.queueing import REPEAT_SECONDS, QueueingReport
from relayd.rules.relay_events import BatchCommitted, RelayEvent, StoreLost

LOST = StoreLost("enqueue", "Postgres has no room")
QUEUED = BatchCommitted("enqueue", 1, 0.01)


def test_refusals_are_told_once_a_second_and_their_end_once() -> None:
    told: list[str] = []
    passed_on: list[RelayEvent] = []
    now = 100.0
    report = QueueingReport(passed_on.append, told.append, clock=lambda: now)
    events = [QUEUED, LOST, LOST, QUEUED, QUEUED, LOST]
    for event in events:
        report.emit(event)
    assert told == ["refusing", "queueing", "refusing"]
    now += REPEAT_SECONDS
    report.emit(LOST)
    assert told[3:] == ["refusing"]
    assert passed_on == [*events, LOST]


def test_other_steps_say_nothing_of_queueing() -> None:
    told: list[str] = []
    report = QueueingReport(lambda _: None, told.append, clock=lambda: 0.0)
    for event in (StoreLost("claim", "away"), BatchCommitted("settle", 1, 0.01)):
        report.emit(event)
    assert told == []

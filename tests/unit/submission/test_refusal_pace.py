"""Strangers who are refused again and again wait."""

from relayd.submission.refusal_pace import FREE_REFUSALS, MAX_PEERS, RefusalPace


class Clock:
    now = 0.0

    def __call__(self) -> float:
        return self.now


def test_a_peer_waits_from_so_many_refusals_on() -> None:
    pace = RefusalPace(Clock(), 1.0)
    delays = [pace.delay_seconds("192.0.2.1") for _ in range(FREE_REFUSALS + 5)]
    assert delays == [0.0] * FREE_REFUSALS + [1.0] * 5
    assert pace.delay_seconds("192.0.2.2") == 0.0
    assert [pace.delay_seconds("2001:db8::1") for _ in range(FREE_REFUSALS)][-1] == 0.0
    assert pace.delay_seconds("2001:db8::2") == 1.0, "the same customer"


def test_a_quiet_minute_is_enough_and_a_busy_one_is_not() -> None:
    clock = Clock()
    pace = RefusalPace(clock, 1.0)
    for _ in range(FREE_REFUSALS + 1):
        pace.delay_seconds("192.0.2.1")
    clock.now = 60.0
    assert pace.delay_seconds("192.0.2.1") == 1.0
    clock.now = 120.0
    pace.delay_seconds("192.0.2.9")
    clock.now = 180.0
    assert pace.delay_seconds("192.0.2.1") == 0.0


def test_more_peers_than_are_counted_wait_at_once() -> None:
    pace = RefusalPace(Clock(), 1.0)
    for number in range(MAX_PEERS):
        pace.delay_seconds(f"peer{number}")
    assert pace.delay_seconds("another") == 1.0 and len(pace._refusals) == MAX_PEERS

"""How failed logins are counted, slowed down, forgiven and forgotten."""

import json

from relayd.daemon.channel import _LIMIT
from relayd.rules.login_failures import MAX_FAILURES, MAX_KNOWN, MAX_PEERS, LoginFailures, login_key


class Clock:
    now = 1000.0

    def __call__(self) -> float:
        return self.now


def failing(failures: LoginFailures, peer: str, login: str, count: int) -> None:
    for _ in range(count):
        failures.fail(peer, login_key(login))


def test_each_failure_costs_more_up_to_a_longest_delay() -> None:
    failures = LoginFailures(Clock())
    delays = []
    for number in range(10):
        failures.fail("192.0.2.1", login_key(f"guess{number}"))
        delays.append(failures.delay_seconds("192.0.2.1", 1.0))
    assert delays == [1, 1, 1, 2, 4, 8, 15, 15, 15, 15]
    assert failures.delay_seconds("192.0.2.2", 1.0) == 1.0


def test_too_many_failures_block_the_peer_and_time_forgets_them() -> None:
    clock = Clock()
    failures = LoginFailures(clock)
    failing(failures, "192.0.2.1", "a", MAX_FAILURES - 1)
    assert not failures.is_blocked("192.0.2.1", "a")
    failing(failures, "192.0.2.1", "b", 1)
    assert failures.is_blocked("192.0.2.1", "a") and failures.is_blocked("192.0.2.1", "never tried")
    assert not failures.is_blocked("192.0.2.2", "a")
    clock.now += 60
    assert not failures.is_blocked("192.0.2.1", "a")
    failing(failures, "192.0.2.1", "a", 1)
    assert failures.is_blocked("192.0.2.1", "a"), "one try a minute"
    clock.now += 60 * MAX_FAILURES
    assert failures.delay_seconds("192.0.2.1", 1.0) == 1.0 and failures.rows()[0] == []


def test_a_success_forgives_its_own_login_alone() -> None:
    failures = LoginFailures(Clock())
    failing(failures, "192.0.2.1", "app", 5)
    failing(failures, "192.0.2.1", "victim", MAX_FAILURES - 1)
    assert failures.succeed("192.0.2.1", login_key("app"))
    assert not failures.succeed("192.0.2.1", login_key("app")), "no news"
    failing(failures, "192.0.2.1", "victim", 1)
    assert failures.is_blocked("192.0.2.1", "victim") and failures.is_blocked("192.0.2.1", "other")
    assert not failures.is_blocked("192.0.2.1", "app"), "it has succeeded there, so others do not lock it out"
    failing(failures, "192.0.2.1", "app", MAX_FAILURES)
    assert failures.is_blocked("192.0.2.1", "app"), "its own failures do"


def test_memory_is_bounded_and_a_snapshot_fits_into_the_channel() -> None:
    failures = LoginFailures(Clock())
    for number in range(MAX_PEERS + 5_000):
        failing(failures, f"2001:db8:{number >> 8:x}:{number & 255:x}::/64", f"login{number}", 1)
    for number in range(MAX_PEERS - 3_000, MAX_PEERS + 5_000):
        for each in range(60):
            failures.fail(f"2001:db8:{number >> 8:x}:{number & 255:x}::/64", login_key(f"{number}/{each}"))
    for number in range(MAX_KNOWN + 1_000):
        failures.succeed("198.51.100.1", login_key(str(number)))
    assert len(failures._peers) == MAX_PEERS and len(failures._known) == MAX_KNOWN
    assert all(sum(each.values()) <= 2 * MAX_FAILURES for _, each in failures._peers.values())
    assert len(json.dumps(failures.rows())) < _LIMIT / 2


def test_another_process_goes_on_from_a_snapshot() -> None:
    first, second = LoginFailures(Clock()), LoginFailures(Clock())
    failing(first, "192.0.2.1", "a", MAX_FAILURES)
    first.succeed("192.0.2.1", login_key("app"))
    second.load(*json.loads(json.dumps(first.rows())))
    assert second.is_blocked("192.0.2.1", "a") and not second.is_blocked("192.0.2.1", "app")

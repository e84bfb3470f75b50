"""How many log lines strangers may cause."""

from relayd.maillog import PeerQuota
from relayd.rules.outcome import Stage
from relayd.rules.relay_events import StoreLost
from relayd.rules.session_events import Cap, PeerLinesSummed, Reason, Refused, SessionRefused


class Clock:
    now = 0.0

    def __call__(self) -> float:
        return self.now


def refused(peer: str, number: int | None = None) -> Refused:
    return Refused(peer, None, None, Stage.RCPT, 503, "5.5.1", Reason.BAD_SEQUENCE, "x", number)


def test_a_peer_gets_so_many_lines_a_minute_and_then_one_sum():
    clock = Clock()
    quota = PeerQuota(clock, peer_lines=3, all_lines=100)
    admitted = [quota.admit(refused("192.0.2.1")) for _ in range(1000)]
    assert admitted.count(True) == 3 and admitted[:3] == [True] * 3
    assert quota.admit(refused("192.0.2.2")), "another peer has its own lines"
    assert quota.sums() == []
    clock.now = 60.0
    assert quota.sums() == [PeerLinesSummed("192.0.2.1", 997, 60.0)]
    assert quota.sums() == [] and quota.admit(refused("192.0.2.1"))


def test_the_addresses_of_an_ipv6_network_are_one_peer():
    quota = PeerQuota(Clock(), peer_lines=3, all_lines=100)
    admitted = [quota.admit(SessionRefused(f"2001:db8::{each:x}", Cap.CONNECTIONS)) for each in range(1, 50)]
    assert admitted.count(True) == 3
    assert quota.admit(SessionRefused("2001:db8:0:1::1", Cap.CONNECTIONS))


def test_many_peers_together_have_a_cap_and_a_bounded_table():
    clock = Clock()
    quota = PeerQuota(clock, peer_lines=3, all_lines=100)
    peers = [f"10.{each >> 16}.{each >> 8 & 255}.{each & 255}" for each in range(30_000)]
    assert sum(quota.admit(refused(peer)) for peer in peers) == 100
    clock.now = 61.0
    sums = quota.sums()
    assert len(sums) <= 21 and sum(each.unlogged for each in sums) == 29_900


def test_what_is_not_a_strangers_doing_is_always_logged():
    quota = PeerQuota(Clock(), peer_lines=1, all_lines=1)
    quota.admit(refused("192.0.2.1"))
    assert all(quota.admit(StoreLost("enqueue", "gone")) for _ in range(10))
    assert quota.admit(refused("192.0.2.1", number=6)), "its level decides, and it takes no line from others"

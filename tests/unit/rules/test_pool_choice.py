"""Who of a pool sends."""

from collections import Counter
from dataclasses import replace

import pytest

from relayd.rules.pool_choice import Standing, best, room

PLAIN = Standing(
    lane_id=0, may_send=True, left=100, limit=100, used_share=0.0, waiting=0, spam_rate=None, bounce_rate=None
)


def pool(*changes: dict[str, object]) -> list[Standing]:
    return [replace(PLAIN, lane_id=at, **change) for at, change in enumerate(changes)]  # type: ignore[arg-type]


@pytest.mark.parametrize(
    ("members", "chosen"),
    [
        (pool({"may_send": False}, {"used_share": 0.9, "left": 10}), 1),
        (pool({"left": 0}, {"left": 1, "used_share": 0.99}), 1),
        (pool({"left": 3, "waiting": 3}, {"left": 2, "used_share": 0.98}), 1),
        # Health goes before use, in coarse steps.
        (pool({"spam_rate": 0.002}, {"used_share": 0.9, "left": 10}), 1),
        (pool({"spam_rate": 0.0009, "used_share": 0.1}, {"used_share": 0.2}), 0),
        (pool({"bounce_rate": 0.05}, {"bounce_rate": 0.01, "used_share": 0.9}), 1),
        (pool({"spam_rate": 0.002, "bounce_rate": 0.0}, {"spam_rate": 0.0, "bounce_rate": 0.1}), 1),
        # The share counts, not the number: 20 of 200 is less used than 15 of 100.
        (pool({"used_share": 0.15, "left": 85}, {"used_share": 0.10, "limit": 200, "left": 180}), 1),
        (pool({"used_share": 0.1, "waiting": 20}, {"used_share": 0.2}), 1),
        # Without a limit: whoever has less to do.
        (pool({"left": None, "limit": None, "waiting": 5}, {"left": None, "limit": None, "waiting": 4}), 1),
        # Nobody has room: health does not pile all of it up on one.
        (pool({"left": 0, "used_share": 1.5}, {"left": 0, "used_share": 1.0, "spam_rate": 0.5}), 1),
        (pool({"may_send": False, "used_share": 0.9}, {"may_send": False, "used_share": 0.1}), 1),
        (pool({"left": 0, "limit": 0}, {"left": 5, "used_share": 0.95}), 1),
    ],
)
def test_room_goes_before_health_and_health_before_use(members: list[Standing], chosen: int) -> None:
    assert best(members, units=1, taken={}) == chosen


def test_a_message_goes_where_all_of_it_fits() -> None:
    members = pool({"left": 5}, {"left": 50, "used_share": 0.5})
    assert (best(members, units=5, taken={}), best(members, units=6, taken={})) == (0, 1)


def test_nobody_is_chosen_of_none() -> None:
    assert best([], units=1, taken={}) is None


def test_what_is_given_out_is_counted_and_shared_out_evenly() -> None:
    members = pool({"limit": 10, "left": 10}, {"limit": 20, "left": 20}, {"limit": 10, "left": 10, "spam_rate": 0.01})
    taken: Counter[int] = Counter()
    for _ in range(30):
        chosen = best(members, units=1, taken=taken)
        assert chosen is not None
        taken[members[chosen].lane_id] += 1
    assert taken == {0: 10, 1: 20}
    assert best(members, units=1, taken=taken) == 2
    assert [room(each, taken[each.lane_id]) for each in members] == [0, 0, 10]

"""Which loads are tried, and in which order."""

from itertools import groupby

from bench.names import NAMES
from bench.options import parse
from bench.plan import LARGE_OCTETS, SMALL_OCTETS, make_plan


def test_a_whole_run_has_every_combination_three_times() -> None:
    plan = make_plan(parse([]))
    assert plan.rounds == 3
    assert {(load.octets, load.is_reused, load.connections) for load in plan.loads} == {
        (octets, is_reused, connections)
        for octets in (SMALL_OCTETS, LARGE_OCTETS)
        for is_reused in (False, True)
        for connections in (20, 50)
    }
    assert {load.generator for load in plan.login_loads} == {"plain", "tls+auth"}


def test_the_systems_take_turns_at_each_load() -> None:
    turns = [turn for turn in make_plan(parse([])).turns() if turn[2].generator == "smtp-source"]
    for _, same in groupby(turns, key=lambda turn: (turn[0], turn[2])):
        assert [system for _, system, _ in same] == list(NAMES)


def test_latency_is_measured_at_half_of_small_messages_with_a_connection_each() -> None:
    reference = make_plan(parse([])).reference()
    assert reference and (reference.octets, reference.is_reused, reference.connections) == (SMALL_OCTETS, False, 50)


def test_only_what_is_chosen_is_tried() -> None:
    plan = make_plan(parse(["--only", "relayd", "--octets", "2048", "--connections", "7", "--sessions", "reused"]))
    ((_, system, load),) = [turn for turn in plan.turns() if turn[0] == 0]
    assert (system, load.octets, load.connections, load.is_reused) == ("relayd", 2048, 7, True)
    assert not plan.has_latency


def test_a_rate_asks_for_nothing_but_the_latency_at_it() -> None:
    plan = make_plan(parse(["--rate", "200", "--rate", "300", "--rounds", "2"]))
    assert plan.reference() is None and not list(plan.turns())
    loads = [load for rate in plan.rates for _, _, load in plan.latency_turns(rate)]
    assert [load.rate for load in loads] == [200] * 4 + [300] * 4

"""The connections of several processes, counted together: a cap is neither passed nor missed, whoever dies."""

import multiprocessing
import os
import signal
import time
from collections import Counter
from multiprocessing.connection import Connection

import pytest

from relayd.rules.session_events import Cap
from relayd.submission.connection_slots import ConnectionSlots

fork = multiprocessing.get_context("fork")


def take(slots: ConnectionSlots, peer: str = "192.0.2.1", most: int = 10, most_per_peer: int = 10) -> int | Cap:
    return slots.take(peer, most=most, most_per_peer=most_per_peer)


def test_each_cap_holds_and_a_free_slot_is_used_again() -> None:
    slots = ConnectionSlots()
    taken = [take(slots, f"192.0.2.{number}", most=3) for number in range(3)]
    assert taken == [0, 1, 2]
    assert take(slots, "192.0.2.9", most=3) is Cap.CONNECTIONS
    slots.release(1)
    assert take(slots, "192.0.2.9", most=3) == 1
    assert take(slots, "192.0.2.9", most=9, most_per_peer=1) is Cap.CONNECTIONS_PER_PEER
    assert take(slots, "192.0.2.10", most=9, most_per_peer=1) == 3
    assert take(slots, "192.0.2.11", most=2) is Cap.CONNECTIONS  # lowered by a reload


def test_a_dead_process_leaves_nothing() -> None:
    slots = ConnectionSlots()
    assert take(slots) == 0
    child = fork.Process(target=lambda: [take(ConnectionSlots(slots.descriptor)) for _ in range(5)])
    child.start()
    child.join()
    assert take(slots, most=6) is Cap.CONNECTIONS
    assert child.pid
    slots.release_all_of(child.pid)
    assert [take(slots, most=3), take(slots, most=3), take(slots, most=3)] == [1, 2, Cap.CONNECTIONS]


def _race(descriptor: int, tries: int, results: Connection) -> None:
    slots = ConnectionSlots(descriptor)
    got = []
    for number in range(tries):
        slot = take(slots, f"192.0.2.{number % 3}", most=50, most_per_peer=20)
        if isinstance(slot, int):
            got.append(slot)
        if number % 3 == 2 and got:
            slots.release(got.pop())
    results.send(got)
    results.recv()


@pytest.mark.parametrize("processes", [2, 4])
def test_processes_that_race_get_exactly_what_there_is(processes: int) -> None:
    slots = ConnectionSlots()
    pipes = [fork.Pipe() for _ in range(processes)]
    children = [fork.Process(target=_race, args=(slots.descriptor, 2000, theirs)) for _, theirs in pipes]
    for child in children:
        child.start()
    held = Counter(slot for ours, _ in pipes for slot in ours.recv())
    assert max(held.values()) == 1
    left = [take(slots, "198.51.100.1", most=50, most_per_peer=50) for _ in range(60)]
    assert sum(isinstance(each, int) for each in left) == 50 - held.total()
    for (ours, _), child in zip(pipes, children, strict=True):
        ours.send("end")
        child.join()
        assert child.pid
        slots.release_all_of(child.pid)
    slots.release_all_of(os.getpid())
    assert [take(slots, most=1), take(slots, most=1)] == [0, Cap.CONNECTIONS]


def test_a_process_that_was_stopped_with_the_lock_stops_nobody() -> None:
    slots = ConnectionSlots()

    def hold() -> None:
        with ConnectionSlots(slots.descriptor)._locked():
            os.kill(os.getpid(), signal.SIGSTOP)

    child = fork.Process(target=hold)
    child.start()
    time.sleep(0.3)
    assert [take(slots, most=2) for _ in range(3)] == [0, 1, Cap.CONNECTIONS]
    child.kill()
    child.join()

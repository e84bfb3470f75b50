"""A new sealing key, taken by a reload and rotated to while mail goes on, whatever is killed meanwhile."""

import urllib.error
import urllib.request
from collections.abc import Callable
from typing import Any

import pytest

from relayd.control.client import ControlClient, path_of
from relayd.errors import RelaydError
from relayd.seal import new_key
from tests.conftest import at_length
from tests.e2e.conftest import furnish
from tests.e2e.house import House, wait_until
from tests.e2e.mail import send
from tests.e2e.reloading import hang_up, wait_for_the_end_of
from tests.peers.sink import Sink


def exchange_key(house: House, key: str, *, keep: bool = True) -> None:
    """Make `key` the current one, of which the files are replaced as an operator would."""
    former = house.settings["seal"]["key_file"]
    path = house.directory / f"key-{len(list(house.directory.glob('key*')))}"
    path.write_text(key + "\n")
    path.chmod(0o600)
    house.settings["seal"] = {"key_file": str(path), "older_key_files": [former] if keep else []}
    house.write_config()


def reload(house: House) -> None:
    workers = house.worker_pids()
    hang_up(house)
    wait_for_the_end_of(workers, house)


def ask(house: House) -> ControlClient:
    """Without a process for each question."""
    return ControlClient((house.socket,))


def rotate(house: House, *, anyway: bool = False) -> dict[str, Any]:
    done: dict[str, Any] = ask(house).post(path_of("secrets", "rotate"), {"anyway": anyway}).data
    assert done["closed"] == [] and done["cursor"] is None
    return done


def keys_told(house: House) -> list[int]:
    """How many keys each node says that it has."""
    return [len(node["opening_keys"]) for node in ask(house).get(path_of("secrets")).data["nodes"]]


def values(house: House) -> dict[str, int]:
    """How many are sealed with the new key and with the old one."""
    keys = ask(house).get(path_of("secrets")).data["keys"]
    return {"new" if key["is_current"] else "old": key["values"] for key in keys}


def ready(house: House) -> tuple[int, str]:
    try:
        with urllib.request.urlopen(f"http://127.0.0.1:{house.http_port}/readyz", timeout=30) as answer:
            return answer.status, answer.read().decode()
    except urllib.error.HTTPError as error:
        return error.code, error.read().decode()


@at_length
@pytest.mark.parametrize("visit", [1, 2, 3], ids=lambda each: f"at batch {each}")
def test_a_rotation_that_is_killed_ends_right_when_it_is_run_again(
    make_house: Callable[..., House], sink: Sink, visit: int
) -> None:
    house = make_house(processes=1)
    house.start(RELAYD_FAILPOINTS=f"rotate-batch:{visit}")
    furnish(house, sink.port)
    for name in ("one", "two"):
        login = {"host": "smtp.example.net", "username": "u", "password": f"of-{name}"}
        ask(house).post(path_of("upstreams"), {"name": name, "provider": "smtp_relay", **login})
    refuse_key_that_opens_nothing(house)
    exchange_key(house, new_key())
    reload(house)
    wait_until(lambda: keys_told(house) == [2], what="the word that both keys are here")
    send(house, ["before@example.net"])
    # Or the kill might catch it in its attempt, and the retry of a doubt comes after a minute.
    wait_until(lambda: "before@example.net" in sink.recipients, what="the first message")

    with pytest.raises(RelaydError, match="without an answer"):
        rotate(house)
    assert house.process and house.process.wait(30) == -9
    house.start()
    left = values(house)
    # The word, two passwords, two DKIM keys.
    assert left["new"] + left["old"] == 5 and left["new"] > 0
    rotate(house)
    assert values(house) == {"new": 5, "old": 0}
    house.settings["seal"]["older_key_files"] = []
    house.write_config()
    reload(house)
    assert values(house) == {"new": 5}
    send(house, ["after@example.net"])
    wait_until(lambda: {"before@example.net", "after@example.net"} <= set(sink.recipients), what="both messages")
    assert all(b"DKIM-Signature" in arrival.content for arrival in sink.arrivals)


def refuse_key_that_opens_nothing(house: House) -> None:
    """A reload that forgets the former key changes nothing at all."""
    workers, good = house.worker_pids(), house.settings["seal"]
    exchange_key(house, new_key(), keep=False)
    hang_up(house)
    assert "reload refused" in house.log_text() and "the sealing key is not the one" in house.log_text()
    assert house.worker_pids() == workers and ready(house)[0] == 200
    house.settings["seal"] = good


@at_length
def test_a_node_that_lacks_the_new_key_says_so_and_goes_on_when_it_has_it(
    make_house: Callable[..., House], sink: Sink
) -> None:
    first, late = make_house(node="first", processes=1), make_house(node="late", processes=1)
    late.settings["seal"] = dict(first.settings["seal"])
    late.write_config()
    first.start()
    furnish(first, sink.port)
    late.start()
    new = new_key()
    exchange_key(first, new)
    reload(first)
    with pytest.raises(RelaydError, match="node late runs without the key"):
        rotate(first)
    assert ready(late)[0] == 200
    wait_until(lambda: keys_told(first) == [2, 1], what="the word that both keys are here")
    rotate(first, anyway=True)

    wait_until(lambda: ready(late)[0] == 503, what="the late node's notice")
    assert "sealing key" in ready(late)[1] and ready(first)[0] == 200
    assert "is sealed with key id" in late.log_text()
    with pytest.raises(AssertionError, match=r"4\.3\.0"):
        send(late, ["late@example.net"])
    exchange_key(late, new)
    reload(late)
    wait_until(lambda: ready(late)[0] == 200, what="the late node's recovery")
    send(late, ["late@example.net"])
    wait_until(lambda: set(sink.recipients) == {"late@example.net"}, what="the message")

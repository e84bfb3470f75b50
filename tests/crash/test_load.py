"""The load and the ledger on a relayd that nobody harms: all is well, and the ledger says so."""

from pathlib import Path

import pytest

from tests.conftest import FreshDatabase
from tests.crash.journal import read_journal
from tests.crash.ledger import compare
from tests.crash.load import Load
from tests.crash.loopback import NotLoopback
from tests.crash.recorder import Recorder, read_arrivals
from tests.crash.snapshot import take_snapshot
from tests.e2e.conftest import furnish
from tests.e2e.house import House, wait_until


@pytest.mark.parametrize("host", ["192.0.2.1", "localhost", "::", "0.0.0.0", "2001:db8::1", ""])
def test_nothing_but_loopback_is_spoken_to(host: str, tmp_path: Path) -> None:
    with pytest.raises(NotLoopback):
        Load(25, tmp_path / "journal", host=host)


def _recipient(number: int) -> str:
    """One in ten is refused for good, another one once."""
    return f"{ {3: 'refused', 6: 'deferred'}.get(number % 10, 'm') }{number}@example.net"


async def test_an_undisturbed_relayd_has_a_clean_ledger(house: House, database: FreshDatabase, tmp_path: Path) -> None:
    house.settings["delivery"]["first_retry_seconds"] = 0.2
    house.write_config()
    house.start()
    with Recorder(tmp_path / "arrivals") as sink:
        furnish(house, sink.port)
        with Load(house.smtp_port, tmp_path / "journal", recipient=_recipient, most=200, rate=200) as load:
            load.wait()
        assert load.acknowledged == 200
        wait_until(lambda: sink.delivered >= 200, what="180 messages and 20 bounces")
        wait_until(lambda: house.json("queue", "list")["items"] == [], what="an empty queue")
        connection = await database.connect()
        snapshot = await take_snapshot(connection)
        await connection.close()
    verdict = compare(
        read_journal(tmp_path / "journal"), read_arrivals(tmp_path / "arrivals"), snapshot, nobody_died=True
    )
    assert verdict.is_clean, str(verdict)
    assert (verdict.acknowledged, verdict.delivered, verdict.bounced) == (200, 180, 20)
    assert house.stop() == 0

"""The drill in short: nothing is lost and the log stays small. What it measures is for `make strangers`."""

from tests.conftest import FreshDatabase, at_length
from tests.peers.sink import Sink
from tests.strangers.drill import KINDS, drill, make_house


@at_length
def test_an_app_beside_strangers_loses_nothing(database: FreshDatabase) -> None:
    house = make_house(database.dsn, database.password)
    try:
        house.migrate()
        house.start()
        with Sink() as sink:
            phases, lost = drill(house, sink, 5.0)
    finally:
        house.close()
    assert [each.kind for each in phases] == ["alone", *KINDS]
    assert lost == 0 and all(each.seconds and not each.failed for each in phases)
    assert all(each.log_octets < 300_000 for each in phases)

"""relayd starts while Postgres has no room for it: it says so and ends; who started it tries again."""

from tests.conftest import at_length
from tests.e2e.house import House
from tests.faults.crowd import Crowd
from tests.peers.postgres_server import PostgresServer


@at_length
def test_a_crowded_postgres_at_the_start_is_named_and_the_next_start_succeeds(server: PostgresServer) -> None:
    house, crowd = House(server.dsn, server.password, processes=1), Crowd(server)
    try:
        house.migrate()
        crowd.enter(throwing_out=False)
        house.spawn()
        assert house.process
        assert house.process.wait(60) == 1
        [line] = [line for line in house.log_text().splitlines() if "cannot connect" in line]
        assert "53300" in line and "max_connections" in line and "database.connections" in line
        assert "Traceback" not in house.log_text()
        crowd.leave()
        house.start()
        assert house.stop() == 0
    finally:
        crowd.close()
        house.close()

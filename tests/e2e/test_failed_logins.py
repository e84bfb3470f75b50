"""Failed logins count per address over connections and workers."""

import smtplib
from base64 import b64encode

from relayd.rules.login_failures import MAX_FAILURES
from tests.conftest import FreshDatabase
from tests.e2e.house import House

WORKERS = 2


def test_guesses_count_over_connections_and_workers(database: FreshDatabase) -> None:
    house = House(
        database.dsn,
        database.password,
        trusted_networks=[],
        submission={"allow_plaintext_auth": True},
        processes=WORKERS,
    )
    try:
        house.run("migrate", "up", "--config", str(house.config))
        house.start()
        house.run("client", "add", "acme")
        house.run("domain", "add", "example.com", "--client", "acme")
        made = house.json("credential", "add", "app", "--client", "acme")
        secret = made["secret"]
        assert [login(house, "app", secret) for _ in range(4)] == [235] * 4

        guessing = [connected(house) for _ in range(MAX_FAILURES)]
        for number, client in enumerate(guessing):
            client.send(f"AUTH PLAIN {plain(f'user{number}', 'guess')}\r\n")
        assert guessing[0].getreply()[0] == 535  # the others wait longer
        assert [login(house, "other", "guess") for _ in range(12)] == [421] * 12, "whichever worker takes it"
        assert [login(house, "app", secret) for _ in range(12)] == [235] * 12, "it has logged in from there before"
        for client in guessing:
            client.close()

        # A worker that starts anew knows.
        house.run("reload")
        assert [login(house, "other", "guess") for _ in range(12)] == [421] * 12
        assert house.metric('relayd_refusals_total{reason="logins_blocked",stage="auth"}') >= 24
    finally:
        house.close()


def connected(house: House) -> smtplib.SMTP:
    client = smtplib.SMTP("127.0.0.1", house.smtp_port, timeout=30)
    client.ehlo("test")
    return client


def login(house: House, name: str, secret: str) -> int:
    client = connected(house)
    code, _ = client.docmd("AUTH", f"PLAIN {plain(name, secret)}")
    client.close()
    return code


def plain(name: str, secret: str) -> str:
    return b64encode(f"\0{name}\0{secret}".encode()).decode()

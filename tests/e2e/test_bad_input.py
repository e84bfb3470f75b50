"""What goes wrong at an operator's or an app's hand: each told clearly, with an exit code or an enhanced status code,
and nothing changed."""

import os
import smtplib
import socket
import subprocess
import sys
import urllib.request
from collections.abc import Iterator
from concurrent.futures import ThreadPoolExecutor
from contextlib import closing, contextmanager
from pathlib import Path

import pytest

from relayd.seal import new_key
from tests.command_line import run_in_terminal
from tests.conftest import FreshDatabase
from tests.e2e.conftest import furnish
from tests.e2e.house import House, free_port, wait_until
from tests.e2e.mail import send
from tests.e2e.test_dev import Dev, dev
from tests.peers.sink import Sink

__all__ = ["dev"]

MESSAGE = "From: app@example.com\r\nTo: you@example.net\r\n\r\nHello.\r\n"


def told(result: "subprocess.CompletedProcess[str]", *wanted: str, code: int = 1) -> None:
    """That a command failed as it should: with the code, and in one clear message."""
    text = result.stderr + result.stdout
    assert result.returncode == code, text
    assert "Traceback" not in text
    for each in wanted:
        assert each in text, text


def serve(house: House) -> "subprocess.CompletedProcess[str]":
    """`relayd serve` that is to fail."""
    return house.run("serve", "--config", str(house.config), check=False)


def files(directory: Path) -> set[str]:
    return {str(path.relative_to(directory)) for path in directory.rglob("*")}


async def state_of(database: FreshDatabase) -> tuple[object, ...]:
    """What a start that failed, or a message that was refused, must leave as it was."""
    connection = await database.connect()
    try:
        counts = [
            await connection.fetchval(f"SELECT count(*) FROM {table}")
            for table in ("clients", "email_domains", "email_mailboxes", "messages", "email_queue", "audit_logs")
        ]
        return (*counts, await connection.fetchval("SELECT seal_check FROM relayd_state"))
    finally:
        await connection.close()


@pytest.fixture
def node(database: FreshDatabase) -> Iterator[House]:
    """A node on a database that has its tables; not started."""
    with closing(House(database.dsn, database.password, processes=1)) as house:
        yield house


# The configuration.


def test_a_wrong_configuration_lists_every_error_with_its_line(node: House) -> None:
    house = node
    house.settings |= {"processes": "two", "delivery": {"poll_seconds": -1, "pol_seconds": 1}, "log": {"level": "loud"}}
    house.write_config()
    before = files(house.directory)
    lines = house.config.read_text().splitlines()
    for result in (serve(house), house.run("config", "check", str(house.config), check=False)):
        told(result)
        for key in ("processes", "poll_seconds", "pol_seconds", "level"):
            number = next(n for n, line in enumerate(lines, 1) if line.startswith(f"{key} "))
            assert f"{house.config}:{number}: " in result.stderr
        assert "loud" not in result.stderr
    assert files(house.directory) == before


def test_a_node_that_nobody_can_reach_is_warned_of(node: House) -> None:
    warning = "no app can submit mail: without a certificate nobody can log in, and no network is trusted"

    def warned() -> bool:
        node.write_config()
        ran = node.run("config", "check", str(node.config))
        assert ran.stdout == f"{node.config}: good\n"
        return warning in ran.stderr

    assert not warned()
    networks = node.settings.pop("trusted_networks")
    assert warned()
    node.start()
    assert node.stop() == 0
    assert warning in node.log_text()
    node.settings["submission"] |= {"allow_plaintext_auth": True}
    assert not warned()
    node.settings["submission"] |= {"allow_plaintext_auth": False}
    assert warned()
    node.settings["trusted_networks"] = networks
    assert not warned()


@pytest.mark.parametrize(
    ("text", "wanted"),
    [
        (None, "cannot be read"),
        ("node = \n", ":1: not valid TOML"),
        ("", "database: is required and missing"),
    ],
)
def test_a_configuration_that_is_none_is_told(tmp_path: Path, text: str | None, wanted: str) -> None:
    path = tmp_path / "relayd.toml"
    if text is not None:
        path.write_text(text)
    command = [sys.executable, "-m", "relayd", "serve", "--config", str(path)]
    told(subprocess.run(command, capture_output=True, text=True, timeout=60), str(path), wanted)


def test_a_sealing_key_that_is_not_the_databases_is_refused(node: House) -> None:
    node.start()
    node.stop()
    (node.directory / "key").write_text(new_key())
    told(serve(node), "the sealing key is not the one", "seal.older_key_files")


# The database.


def test_a_wrong_dsn_is_told(node: House) -> None:
    good, closed = node.settings["database"]["dsn"], str(free_port())
    for dsn, wanted in (
        ("mysql://relayd@127.0.0.1/relayd", "database.dsn: the database's DSN should look like postgresql://"),
        (f"postgresql://relayd@127.0.0.1:{closed}/relayd", f"cannot connect to Postgres: 127.0.0.1:{closed}: "),
        (good.replace("/test_", "/no_"), "does not exist"),
        (good.replace("relayd@", "intruder@", 1), "intruder"),
    ):
        node.settings["database"]["dsn"] = dsn
        node.write_config()
        told(serve(node), wanted)
    told(node.run("migrate", "up", "--config", str(node.config), check=False), "intruder")


def test_a_wrong_password_is_told_and_not_shown(node: House) -> None:
    (node.directory / "password").write_text("canary-of-a-password\n")
    result = serve(node)
    told(result, "password authentication failed")
    assert "canary" not in result.stderr + result.stdout


def test_a_database_without_tables_says_what_to_run(node: House) -> None:
    node.run("migrate", "down", "--to", "0", "--yes", "--config", str(node.config))
    told(serve(node), "relayd migrate up --config")


def test_a_way_back_asks_and_waits_for_the_last_node_to_stop(node: House, sink: Sink) -> None:
    config = ("--config", str(node.config))
    node.start()
    furnish(node, sink.port)
    told(node.run("migrate", "down", "--to", "0", "--yes", *config, check=False), "1 node runs on this database")
    assert node.stop() == 0
    for target, wanted in (
        (("--to", "99"), "there is no migration 99"),
        (("--to", "-1"), "there is no migration -1"),
        (("--steps", "0"), "--steps must be 1 or more"),
    ):
        told(node.run("migrate", "down", *target, "--yes", *config, check=False), wanted)
    refused = node.run("migrate", "down", "--to", "0", *config, check=False)
    told(refused, "lost for good: email_mailboxes: 1 row\n", "nothing was changed", "--yes")
    ran = run_in_terminal(("migrate", "down", "--to", "0", *config), answer="n\n")
    assert (ran.code, "0001_foundation? [y/N]" in ran.out, "nothing was changed" in ran.out) == (1, True, True), ran.out
    node.start()
    assert node.stop() == 0
    ran = run_in_terminal(("migrate", "down", *config), answer="y\n")
    assert (ran.code, "took back 00" in ran.out) == (0, True), ran.out


# What is in the way.


@contextmanager
def taken(port: int) -> Iterator[None]:
    with socket.socket() as listener:
        listener.setsockopt(socket.SOL_SOCKET, socket.SO_REUSEADDR, 1)
        listener.bind(("127.0.0.1", port))
        listener.listen()
        yield


async def test_a_taken_port_is_told(node: House, database: FreshDatabase) -> None:
    house = node
    before = await state_of(database)
    for port in (house.smtp_port, house.http_port):
        with taken(port):
            told(serve(house), f"cannot listen on 127.0.0.1:{port}", "taken")
    assert await state_of(database) == before
    assert not house.socket.exists()


def test_a_second_start_harms_nothing_of_the_first(node: House, sink: Sink) -> None:
    house = node
    house.start()
    furnish(house, sink.port)
    send(house, ["you@example.net"])
    told(serve(house), "taken")
    house.settings["submission"] = {"listen": [f"127.0.0.1:{free_port()}"]}
    house.settings["http"] = {"listen": f"127.0.0.1:{free_port()}"}
    house.settings["node"] = "other"
    house.write_config()
    told(serve(house), "another relayd answers", str(house.socket))
    send(house, ["you@example.net"])
    assert "relayd_messages_accepted_total 2.0" in metrics(house)
    assert house.json("status")["workers"] == 1


def metrics(house: House) -> str:
    with urllib.request.urlopen(f"http://127.0.0.1:{house.http_port}/metrics", timeout=30) as page:
        text: str = page.read().decode()
        return text


# The state directory of `relayd dev`.


def dev_is_told(dev: Dev, *wanted: str) -> None:
    dev.spawn()
    assert dev.process
    code = dev.process.wait(60)
    assert code == 1, dev.text()
    assert "Traceback" not in dev.text()
    for each in wanted:
        assert each in dev.text()


def test_a_state_directory_that_cannot_be_made_is_told(dev: Dev) -> None:
    dev.state.parent.mkdir(exist_ok=True)
    (dev.state.parent / "file").write_text("mine")
    dev.state = dev.state.parent / "file" / "state"
    dev_is_told(dev, "cannot use state directory", str(dev.state), "choose another with --state")
    assert (dev.state.parent).read_text() == "mine"


def test_a_state_directory_that_is_not_writable_is_told(dev: Dev) -> None:
    # Root may write anywhere but there.
    dev.state = Path("/sys/relayd") if os.getuid() == 0 else Path("/usr/relayd")
    dev_is_told(dev, "cannot use state directory", str(dev.state), "choose another with --state")
    assert not dev.state.exists()


def test_another_major_versions_data_is_left_alone(dev: Dev) -> None:
    data = dev.state / "postgres" / "data"
    data.mkdir(parents=True)
    (data / "PG_VERSION").write_text("9\n")
    dev_is_told(dev, "made by PostgreSQL 9", "install PostgreSQL 9", "move")
    assert files(data) == {"PG_VERSION"}


# Commands.


COMMANDS = (
    ("domain show nowhere.example", "there is no domain nowhere.example; there are: example.com"),
    ("domain records nowhere.example", "there is no domain nowhere.example"),
    ("domain set nowhere.example --status suspended", "there is no domain nowhere.example"),
    ("domain remove nowhere.example", "there is no domain nowhere.example"),
    ("mailbox add app@nowhere.example", "relayd domain add nowhere.example"),
    ("mailbox show nobody@example.com", "there is no mailbox nobody@example.com; there are: app@example.com"),
    ("mailbox set nobody@example.com --daily-limit 5", "there is no mailbox nobody@example.com"),
    ("mailbox remove nobody@example.com", "there is no mailbox nobody@example.com"),
    ("domain set example.com --default-mailbox nobody@example.com", "there is no mailbox nobody@example.com"),
    ("credential add app --client acme --sender nowhere.example", "client acme has no domain nowhere.example"),
    ("credential add app --client nobody", "there is no client nobody"),
    ("queue list --mailbox nobody@example.com", "there is no mailbox nobody@example.com"),
    ("queue cancel --domain nowhere.example --yes", "there is no domain nowhere.example"),
    ("queue cancel", "--state queued"),
    ("pause mailbox nobody@example.com", "there is no mailbox nobody@example.com"),
    ("explain 01890a5d-ac96-774b-bcce-b302099a8057", "relayd message find"),
)


@pytest.fixture
def running(node: House, sink: Sink) -> House:
    node.settings["trusted_networks"] = [{"network": "127.0.0.2/32", "client": "acme"}]
    node.settings["submission"] |= {"allow_plaintext_auth": True, "max_message_octets": 5000}
    node.write_config()
    node.start()
    assert "127.0.0.2/32 is refused while there is no active client acme" in node.log_text()
    furnish(node, sink.port)
    return node


async def test_commands_about_what_does_not_exist_are_told(running: House, database: FreshDatabase) -> None:
    before = await state_of(database)
    with ThreadPoolExecutor(4) as several:
        results = several.map(lambda row: running.run(*row[0].split(), check=False), COMMANDS)
        for (command, wanted), result in zip(COMMANDS, results, strict=True):
            assert result.stdout == "", command
            told(result, wanted)
    assert await state_of(database) == before


def test_a_command_without_a_relayd_says_how_to_start_one(tmp_path: Path) -> None:
    command = [sys.executable, "-m", "relayd", "--socket", str(tmp_path / "none"), "status"]
    told(subprocess.run(command, capture_output=True, text=True, timeout=60), "relayd is not running", "relayd serve")


def test_a_command_line_that_makes_no_sense_is_told(tmp_path: Path) -> None:
    for line, wanted in (
        ("domain add example.com", "--client is required"),
        ("domain ad", "relayd domain --help"),
        ("explain", "is required"),
        ("mailbox set app@example.com --daily-limit many", "--daily-limit"),
    ):
        command = [sys.executable, "-m", "relayd", *line.split()]
        told(subprocess.run(command, capture_output=True, text=True, timeout=60), wanted, code=2)


# Mail.


def connect(house: House, host: str = "127.0.0.2") -> smtplib.SMTP:
    """A session of a trusted host; 127.0.0.1 is a stranger."""
    client = smtplib.SMTP("127.0.0.1", house.smtp_port, timeout=30, source_address=(host, 0))
    client.ehlo("app.example.com")
    return client


def answers(house: House, content: str, *, secret: str | None = None) -> str:
    """The reply to a whole message whose envelope is in order."""
    with connect(house, "127.0.0.1" if secret else "127.0.0.2") as client:
        if secret:
            client.login("app", secret)
        assert client.mail("app@example.com")[0] == client.rcpt("you@example.net")[0] == 250
        code, text = client.data(content)
        return f"{code} {text.decode()}"


BODY = "\r\n\r\nHello.\r\n"
REFUSED = (
    ("To: you@example.net" + BODY, "550 5.6.0 Message refused: message has no From field"),
    ("From: app@example.com\r\nFrom: app@example.com" + BODY, "550 5.6.0 Message refused: message has 2 From fields"),
    ("From: app@example.com\r\nfrom : x@example.com" + BODY, "550 5.6.0 Message refused: header line 2"),
    ("From: app@example.com, boss@rival.example" + BODY, "550 5.6.0 Message refused: From names 2 mailboxes"),
    ("From: boss@rival.example <app@example.com>" + BODY, "550 5.6.0 Message refused: From holds an address inside"),
    ("From: us: app@example.com;" + BODY, "550 5.6.0 Message refused: From holds a group"),
    ("From: =?utf-8?q?boss=40rival=2Eexample?=" + BODY, "550 5.6.0 Message refused: From holds an encoded word but no"),
    ("From:" + BODY, "550 5.6.0 Message refused: From holds no address"),
    ("From: boss@rival.example" + BODY, "550 5.7.1 From <boss@rival.example> is not allowed; allowed: app@example.com"),
    ("From: app@sub.example.com" + BODY, "550 5.7.1 From <app@sub.example.com> is not allowed"),
    ("From: other@example.com" + BODY, "550 5.7.1 From <other@example.com> is not allowed"),
    ("From: app@example.com\r\n\r\n" + "x" * 70 * 80, "552 5.3.4 Message exceeds 5000 octets"),
    ("From: app@example.com\r\n" + "Received: x\r\n" * 51 + BODY, "554 5.4.6 "),
)


async def test_a_message_that_may_not_be_sent_is_refused(running: House, database: FreshDatabase, sink: Sink) -> None:
    before = await state_of(database)
    for content, wanted in REFUSED:
        assert answers(running, content.replace("x" * 70, "x" * 68 + "\r\n")).startswith(wanted), content[:80]
    with connect(running) as client:
        assert client.docmd("MAIL", "FROM:<app@example.com> SIZE=5001")[1].startswith(b"5.3.4 Message exceeds 5000")
        assert client.docmd("MAIL", "FROM:<boss@rival.example>")[1].startswith(b"5.7.1 reverse-path <boss@rival.exam")
        assert client.docmd("MAIL", "FROM:<not an address>")[1].startswith(b"5.1.7 Bad address")
        assert client.mail("app@example.com")[0] == 250
        assert client.docmd("DATA") == (554, b"5.5.1 No valid recipients")
        assert client.docmd("RCPT", "TO:<nobody>")[1].startswith(b"5.1.3 Bad address")
    assert await state_of(database) == before
    assert sink.arrivals == []


async def test_who_has_no_right_to_relay_is_refused(running: House, database: FreshDatabase) -> None:
    secret = running.json("credential", "add", "app", "--client", "acme", "--sender", "app@example.com")["secret"]
    running.run("mailbox", "add", "other@example.com")
    before = await state_of(database)
    with connect(running, "127.0.0.1") as stranger:
        assert stranger.docmd("MAIL", "FROM:<app@example.com>") == (530, b"5.7.0 Authentication required")
        assert stranger.docmd("RCPT", "TO:<you@example.net>") == (503, b"5.5.1 Send MAIL first")
        assert stranger.docmd("DATA") == (503, b"5.5.1 Send MAIL first")
        with pytest.raises(smtplib.SMTPAuthenticationError) as refused:
            stranger.login("app", "guess")
        assert refused.value.smtp_code == 535 and refused.value.smtp_error.startswith(b"5.7.8 ")
    wanted = "550 5.7.1 From <other@example.com> is not allowed; allowed: app@example.com"
    assert answers(running, "From: other@example.com" + BODY, secret=secret) == wanted
    with connect(running, "127.0.0.1") as app:
        app.login("app", secret)
        assert app.docmd("MAIL", "FROM:<other@example.com>")[1].startswith(b"5.7.1 reverse-path <other@example.com>")
    assert await state_of(database) == before


def test_a_login_that_is_taken_away_ends_in_a_session_that_is_open(running: House) -> None:
    secret = running.json("credential", "add", "app", "--client", "acme")["secret"]
    with connect(running, "127.0.0.1") as session:
        session.login("app", secret)
        assert session.sendmail("app@example.com", "you@example.net", MESSAGE) == {}
        running.run("credential", "set", "app", "--new-secret")

        def is_refused() -> bool:
            answer = session.docmd("MAIL", "FROM:<app@example.com>")
            session.rset()
            return answer == (530, b"5.7.0 Authentication required")

        wait_until(is_refused, what="the end of the old secret")

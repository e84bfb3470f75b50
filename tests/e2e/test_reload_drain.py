"""SIGHUP and SIGTERM: settings change, workers go, and no message that was acknowledged is lost or sent twice."""

import asyncio
import smtplib
import ssl
import threading
import time
import urllib.request
from collections.abc import Callable, Iterator
from contextlib import contextmanager
from pathlib import Path
from typing import Any

import pytest
import trustme

from relayd.seal import new_key
from tests.conftest import at_length
from tests.e2e.conftest import furnish
from tests.e2e.house import House, free_port, wait_until
from tests.e2e.mail import send
from tests.e2e.reloading import NEW_SIZE, greeting, reload, wait_for_the_end_of
from tests.peers.imap_server import ImapServer, imap_server
from tests.peers.sink import Sink


class Load:
    """Apps that hand in mail, each message to a recipient of its own, until told to stop."""

    def __init__(self, port: int) -> None:
        self.acknowledged: list[str] = []
        self.refusals: list[int] = []
        self._port = port
        self._stop = threading.Event()
        self._threads = [threading.Thread(target=self._run, args=(number,), daemon=True) for number in range(4)]

    def start(self) -> None:
        for thread in self._threads:
            thread.start()

    def stop(self) -> None:
        self._stop.set()
        for thread in self._threads:
            thread.join()

    def wait_for_more(self, count: int) -> None:
        wanted = len(self.acknowledged) + count
        wait_until(lambda: len(self.acknowledged) >= wanted, seconds=60, what=f"{count} messages more")

    def _run(self, thread: int) -> None:
        number = 0
        while not self._stop.is_set():
            number += 1
            recipient = f"t{thread}n{number}@example.net"
            try:
                self._hand_in(recipient)
            except (OSError, smtplib.SMTPException):
                time.sleep(0.02)
            else:
                self.acknowledged.append(recipient)

    def _hand_in(self, recipient: str) -> None:
        with smtplib.SMTP("127.0.0.1", self._port, timeout=60) as client:
            client.ehlo("app.example.com")
            replies = (
                lambda: client.mail("app@example.com"),
                lambda: client.rcpt(recipient),
                lambda: client.data("From: app@example.com\r\nSubject: load\r\n\r\nhi\r\n"),
            )
            for reply in replies:
                code, text = reply()
                if code != 250:
                    self.refusals.append(code)
                    raise smtplib.SMTPResponseException(code, text)


@contextmanager
def load(house: House) -> Iterator[Load]:
    running = Load(house.smtp_port)
    running.start()
    try:
        yield running
    finally:
        running.stop()


@pytest.fixture
def certificates(tmp_path: Path) -> Callable[[str], dict[str, str]]:
    """Settings of a new certificate, in files of the name given."""
    authority = trustme.CA()

    def issue(name: str) -> dict[str, str]:
        issued = authority.issue_cert("127.0.0.1", common_name=name)
        chain, key = tmp_path / f"{name}.chain", tmp_path / f"{name}.key"
        issued.cert_chain_pems[0].write_to_path(str(chain))
        issued.private_key_pem.write_to_path(str(key))
        return {"tls_certificate": str(chain), "tls_key": str(key)}

    return issue


def expect_once_each(sink: Sink, acknowledged: list[str]) -> None:
    wait_until(lambda: set(acknowledged) <= set(sink.recipients), seconds=60, what="all that was acknowledged")
    assert set(sink.recipients.values()) == {1}


def test_reload_takes_new_settings_and_a_new_certificate(
    make_house: Callable[..., House], certificates: Callable[[str], dict[str, str]]
) -> None:
    house = make_house(submission=certificates("first"))
    house.start()
    old_size, old_certificate = greeting(house)
    assert old_certificate
    old_workers = house.worker_pids()
    new = certificates("second")
    reload(house, max_message_octets=NEW_SIZE, **new)
    wait_for_the_end_of(old_workers, house)
    size, certificate = greeting(house)
    assert (old_size, size) == ("26214400", str(NEW_SIZE))
    assert certificate == ssl.PEM_cert_to_DER_cert(Path(new["tls_certificate"]).read_text())
    assert certificate != old_certificate


def test_reload_says_what_needs_a_restart_and_takes_the_rest(small_house: House) -> None:
    small_house.start()
    old_workers = small_house.worker_pids()
    small_house.settings["node"] = "another"
    small_house.settings["http"] = {"listen": f"127.0.0.1:{free_port()}"}
    reload(small_house, max_message_octets=NEW_SIZE, listen=[f"127.0.0.1:{free_port()}"])
    wait_for_the_end_of(old_workers, small_house)
    assert greeting(small_house)[0] == str(NEW_SIZE)
    (warning,) = [line for line in small_house.log_text().splitlines() if "need a restart" in line]
    assert all(key in warning for key in ("node", "submission.listen", "http"))
    with urllib.request.urlopen(f"http://127.0.0.1:{small_house.http_port}/readyz", timeout=30) as answer:
        assert answer.status == 200


@pytest.mark.parametrize(
    ("broken", "named"),
    [
        ({"max_recipients": "many"}, "submission.max_recipients"),
        ({"tls_certificate": "/nonexistent/chain", "tls_key": "/nonexistent/key"}, "/nonexistent/chain"),
    ],
    ids=["a wrong value", "a certificate that is not there"],
)
def test_a_broken_configuration_is_refused_whole(small_house: House, broken: dict[str, Any], named: str) -> None:
    small_house.start()
    workers = small_house.worker_pids()
    reload(small_house, max_message_octets=NEW_SIZE, **broken)
    assert "reload refused, everything stays as it was" in small_house.log_text()
    assert named in small_house.log_text()
    wait_until(lambda: small_house.worker_pids() == workers, what="the end of workers that could not start")
    assert greeting(small_house)[0] == "26214400"
    # It is not stuck: the mended configuration is taken.
    for key in broken:
        del small_house.settings["submission"][key]
    reload(small_house)
    wait_for_the_end_of(workers, small_house)
    assert greeting(small_house)[0] == str(NEW_SIZE)
    assert small_house.stop() == 0


def test_the_reload_command_waits_and_says_what_changed(small_house: House) -> None:
    small_house.start()
    small_house.settings["delivery"] |= {"drain_seconds": 7}
    small_house.settings["submission"] |= {"max_message_octets": NEW_SIZE}
    small_house.settings["node"] = "another"
    small_house.write_config()
    assert small_house.json("reload") == {
        "changed": ["delivery.drain_seconds", "submission.max_message_octets"],
        "needs_restart": ["node"],
    }
    assert greeting(small_house)[0] == str(NEW_SIZE)
    told = small_house.run("reload").stdout
    assert "no setting changed" in told and "needs a restart: node" in told


@pytest.mark.parametrize(
    ("broken", "named"),
    [
        ({"max_recipients": "many"}, "submission.max_recipients"),
        ({"tls_certificate": "/nonexistent/chain", "tls_key": "/nonexistent/key"}, "/nonexistent/chain"),
    ],
    ids=["a wrong value", "a certificate that is not there"],
)
def test_the_reload_command_fails_when_the_configuration_is_refused(
    small_house: House, broken: dict[str, Any], named: str
) -> None:
    small_house.start()
    workers = small_house.worker_pids()
    small_house.settings["submission"] |= broken
    small_house.write_config()
    refused = small_house.run("reload", check=False)
    assert refused.returncode == 1
    assert named in refused.stderr and "everything stays as it was" in refused.stderr
    assert small_house.worker_pids() == workers


@at_length
async def test_chores_go_on_with_the_new_keys_and_settings(make_house: Callable[..., House], tmp_path: Path) -> None:
    """An inbox's password that a rotation has sealed anew opens after the reload that brought the key."""
    authority = trustme.CA()
    authority.cert_pem.write_to_path(str(tmp_path / "ca"))
    context = ssl.SSLContext(ssl.PROTOCOL_TLS_SERVER)
    authority.issue_cert("127.0.0.1").configure_cert(context)
    async with imap_server(context) as inbox:
        house = make_house(processes=1, reports={"pull_seconds": 3600})
        await asyncio.to_thread(_rotate_beside_an_inbox, house, inbox, tmp_path)
    assert any(line.startswith("LOGIN") or "LOGIN" in line for line in inbox.asked)


def _rotate_beside_an_inbox(house: House, inbox: ImapServer, directory: Path) -> None:
    house.start()
    furnish(house, free_port(), sender=inbox.username)
    password = directory / "password"
    password.write_text(inbox.password)
    password.chmod(0o600)
    key = directory / "key"
    key.write_text(new_key() + "\n")
    key.chmod(0o600)
    house.settings["seal"] = {"key_file": str(key), "older_key_files": [house.settings["seal"]["key_file"]]}
    house.settings["reports"] = {"pull_seconds": 10}
    house.write_config()
    assert house.json("reload")["changed"] == [
        "reports.pull_seconds",
        "seal.key_file",
        "seal.older_key_files",
        "sealing keys",
    ]
    house.run(
        *("mailbox", "set", inbox.username, "--reports-imap-host", "127.0.0.1", "--reports-imap-port", str(inbox.port)),
        *("--reports-password-file", str(password), "--reports-ca-file", str(directory / "ca")),
    )
    wait_until(lambda: inbox.asked, what="a poll of the inbox, within the new pull_seconds")
    wait_until(lambda: len(house.json("secrets", "status")["nodes"][0]["opening_keys"]) == 2, what="both keys told")
    house.run("secrets", "rotate")
    inbox.asked.clear()
    wait_until(lambda: inbox.asked, what="a poll with the password that is sealed anew")
    assert "inbox_failed" not in house.log_text(), house.log_text()


@at_length
def test_reloading_under_load_loses_nothing(house: House, sink: Sink) -> None:
    house.start()
    furnish(house, sink.port)
    with load(house) as apps:
        for size in (100_000, 100_001):
            apps.wait_for_more(50)
            reload(house, max_message_octets=size)
        apps.wait_for_more(50)
    # A session that an old worker had just begun is asked to come again; nothing is refused for good.
    assert set(apps.refusals) <= {421}
    expect_once_each(sink, apps.acknowledged)
    assert house.stop() == 0


@at_length
def test_sigterm_under_load_drains_and_the_next_start_delivers_the_rest(house: House, sink: Sink) -> None:
    sink.delay_seconds = 0.2
    house.start()
    furnish(house, sink.port)
    house.run("upstream", "set", "sink", "--max-connections", "4")
    with load(house) as apps:
        apps.wait_for_more(100)
        assert house.stop() == 0
        assert len(apps.acknowledged) > len(sink.arrivals)  # so there is a rest
    sink.delay_seconds = 0
    house.start()
    expect_once_each(sink, apps.acknowledged)
    assert house.stop() == 0


@at_length
def test_an_attempt_that_outlasts_the_drain_is_cut_off_and_its_doubt_recorded(house: House, sink: Sink) -> None:
    house.settings["delivery"]["drain_seconds"] = 1
    house.write_config()
    house.start()
    furnish(house, sink.port)
    house.run("upstream", "set", "sink", "--on-uncertain", "hold")
    sink.delay_seconds = 3600
    queue_id = send(house, ["you@example.net"])
    wait_until(lambda: sink.waiting == 1, what="the dot")
    assert house.stop() == 0
    sink.delay_seconds = 0
    house.start()
    (entry,) = house.json("queue", "show", queue_id)["entries"]
    assert entry["status"] == "pending"
    assert "uncertain" in house.run("explain", queue_id).stdout
    assert sink.arrivals == []
    house.run("queue", "release", queue_id)
    wait_until(lambda: len(sink.arrivals) == 1, what="the message")

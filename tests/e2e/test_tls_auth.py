"""`relayd serve` as it is run in earnest: a Postgres of the system, logins under TLS, and Postfix behind it."""

import os
import smtplib
import ssl
import subprocess
import tempfile
from base64 import b64encode
from collections.abc import Iterator
from pathlib import Path

import pytest
import trustme

from relayd.embedded import EmbeddedPostgres
from relayd.errors import RelaydError
from tests.conftest import state_directory_of_its_own
from tests.e2e.conftest import need
from tests.e2e.house import House, free_port, wait_until
from tests.e2e.signatures import printed_records, signed_part, verified_algorithms
from tests.peers.postfix import Postfix, SmtpSink

SYSTEM_MAJOR = 15
BOTH = ["ed25519-sha256", "rsa-sha256"]
BODY = "first\n.dot\n..two dots\n\n  blanks \t\nlast"


class Authority:
    """A certificate authority of the tests' own."""

    def __init__(self, directory: Path) -> None:
        self.directory = directory
        self.file = directory / "authority.pem"
        self._authority = trustme.CA()
        self._authority.cert_pem.write_to_path(str(self.file))

    def issue(self, name: str) -> tuple[Path, Path, Path]:
        """The files of a new certificate: its chain, its key, and both in one."""
        issued = self._authority.issue_cert(name)
        chain, key, both = (self.directory / f"{name}.{kind}" for kind in ("chain", "key", "pem"))
        chain.write_bytes(b"".join(blob.bytes() for blob in issued.cert_chain_pems))
        key.write_bytes(issued.private_key_pem.bytes())
        both.write_bytes(issued.private_key_and_cert_chain_pem.bytes())
        return chain, key, both

    def context(self) -> ssl.SSLContext:
        return ssl.create_default_context(cafile=str(self.file))


class SecureHouse(House):
    """A node that asks for a login, with the client acme and the login app."""

    def __init__(self, postgres: EmbeddedPostgres, authority: Authority) -> None:
        chain, key, _ = authority.issue("127.0.0.1")
        self.implicit_port = free_port()
        self.authority = authority
        super().__init__(
            postgres.dsn,
            postgres.password,
            submission={
                "listen_implicit_tls": [f"127.0.0.1:{self.implicit_port}"],
                "tls_certificate": str(chain),
                "tls_key": str(key),
            },
            trusted_networks=[],
        )
        self.migrate()
        self.start()
        self.run("client", "add", "acme", "--tier", "Dominance")
        self.secret = self.json("credential", "add", "app", "--client", "acme")["secret"]

    def furnish(self, name: str, port: int, *options: str) -> str:
        """An upstream, a domain and a mailbox of one test alone; the mailbox's address."""
        self.run(
            "upstream", "add", name, "--provider", "smtp_relay", "--host", "127.0.0.1", "--port", str(port), *options
        )
        self.run("domain", "add", f"{name}.example", "--client", "acme")
        self.run("mailbox", "add", f"app@{name}.example", "--daily-limit", "unlimited", "--upstream", name)
        return f"app@{name}.example"

    def swaks(self, sender: str, *options: str, port: int | None = None) -> str:
        """Hand in one message to you@example.net; the queue id."""
        done = subprocess.run(
            ["swaks", "--server", "127.0.0.1", "--port", str(port or self.smtp_port), "--from", sender,
             "--to", "you@example.net", "--tls-verify", "--tls-ca-path", str(self.authority.file),
             "--auth-user", "app", "--auth-password", self.secret, "--body", BODY, *options],
            capture_output=True, text=True, check=False, timeout=60,
        )  # fmt: skip
        assert done.returncode == 0, done.stdout + done.stderr
        (reply,) = [line for line in done.stdout.splitlines() if "queued as" in line]
        return reply.partition("queued as ")[2].partition(",")[0]

    def entry(self, queue_id: str) -> str:
        """The state of the message's only entry."""
        (entry,) = self.json("queue", "show", queue_id)["entries"]
        return str(entry["status"])


@pytest.fixture(scope="module")
def system_postgres() -> Iterator[EmbeddedPostgres]:
    with state_directory_of_its_own() as state:
        try:
            server = EmbeddedPostgres(state, durable=False, major=SYSTEM_MAJOR)
            server.start()
        except RelaydError as error:
            if os.environ.get("RELAYD_REQUIRE_PEERS") == "1":
                raise
            pytest.skip(str(error))
        yield server
        server.stop()


@pytest.fixture(scope="module")
def house(system_postgres: EmbeddedPostgres, tmp_path_factory: pytest.TempPathFactory) -> Iterator[SecureHouse]:
    house = SecureHouse(system_postgres, Authority(tmp_path_factory.mktemp("authority")))
    yield house
    house.close()


@pytest.fixture
def open_directory() -> Iterator[Path]:
    """One that users other than root may pass through."""
    with tempfile.TemporaryDirectory(prefix="relayd-") as path:
        Path(path).chmod(0o755)
        yield Path(path)


@pytest.mark.parametrize("mechanism", ["PLAIN", "LOGIN"])
def test_starttls_and_a_login_in_and_smtp_sink_out(house: SecureHouse, open_directory: Path, mechanism: str) -> None:
    need("swaks", "smtp-sink")
    with SmtpSink(open_directory, free_port()) as sink:
        sender = house.furnish(f"sink-{mechanism.lower()}", sink.port, "--tls", "none")
        queue_id = house.swaks(sender, "--tls", "--auth", mechanism)
        wait_until(lambda: house.entry(queue_id) == "sent", what="sent")
        (message,) = sink.mail()
    assert verified_algorithms(signed_part(message), printed_records(house, sender.partition("@")[2])) == BOTH
    assert message.rstrip().endswith(BODY.replace("\n", "\r\n").encode())
    assert b"with ESMTPSA" in message


def test_implicit_tls_in(house: SecureHouse, open_directory: Path) -> None:
    need("swaks", "smtp-sink")
    with SmtpSink(open_directory, free_port()) as sink:
        sender = house.furnish("implicit", sink.port, "--tls", "none")
        queue_id = house.swaks(sender, "--tls-on-connect", "--auth", "PLAIN", port=house.implicit_port)
        wait_until(lambda: house.entry(queue_id) == "sent", what="sent")
        assert len(sink.mail()) == 1


def test_a_real_postfix_is_believed_by_its_certificate_only_and_delivers_both_signatures(
    house: SecureHouse, open_directory: Path
) -> None:
    need("swaks", "postfix")
    if os.geteuid() != 0:
        pytest.skip("Postfix is started by root alone")
    (open_directory / "stranger").mkdir()
    stranger = Authority(open_directory / "stranger")
    _, _, chain_file = house.authority.issue("127.0.0.1")
    with Postfix(open_directory, free_port(), chain_file=chain_file) as postfix:
        sender = house.furnish("postfix", postfix.port, "--ca-file", str(stranger.file))
        queue_id = house.swaks(sender, "--tls", "--auth", "PLAIN")
        explained = wait_until(lambda: _told(house, queue_id, "certificate"), what="the deferral's reason")
        assert "certificate not accepted" in explained
        assert house.entry(queue_id) == "queued"
        assert postfix.mail() == []
        house.run("upstream", "set", "postfix", "--ca-file", str(house.authority.file))
        house.run("queue", "retry", queue_id)
        wait_until(postfix.mail, what="the message in the Maildir")
        wait_until(lambda: house.entry(queue_id) == "sent", what="sent")
        (message,) = postfix.mail()
    assert b"using TLSv1" in message.partition(b"DKIM-Signature:")[0]
    assert verified_algorithms(signed_part(message), printed_records(house, "postfix.example")) == BOTH
    assert message.rstrip().endswith(BODY.replace("\n", "\r\n").encode())


def test_a_certificate_for_another_host_defers(house: SecureHouse, open_directory: Path) -> None:
    need("swaks", "postfix")
    if os.geteuid() != 0:
        pytest.skip("Postfix is started by root alone")
    _, _, chain_file = house.authority.issue("mx.example.net")
    with Postfix(open_directory, free_port(), chain_file=chain_file) as postfix:
        sender = house.furnish("misnamed", postfix.port, "--ca-file", str(house.authority.file))
        queue_id = house.swaks(sender, "--tls", "--auth", "PLAIN")
        explained = wait_until(lambda: _told(house, queue_id, "certificate"), what="the deferral's reason")
        assert "it is for mx.example.net, not for 127.0.0.1" in explained
        assert postfix.mail() == []


def test_wrong_secrets_are_refused_and_the_third_ends_the_connection(house: SecureHouse) -> None:
    with smtplib.SMTP("127.0.0.1", house.smtp_port, timeout=30) as client:
        client.starttls(context=house.authority.context())
        client.ehlo("app.example.com")
        wrong = b64encode(b"\0app\0" + b"0" * 32).decode()
        for _ in range(3):
            code, text = client.docmd("AUTH", f"PLAIN {wrong}")
            assert (code, text[:5]) == (535, b"5.7.8")
        code, text = client.getreply()
        assert (code, text[:5]) == (421, b"4.7.0")


def test_without_tls_there_is_no_login_and_without_a_login_no_mail(house: SecureHouse) -> None:
    with smtplib.SMTP("127.0.0.1", house.smtp_port, timeout=30) as client:
        client.ehlo("app.example.com")
        assert not client.has_extn("auth")
        right = b64encode(f"\0app\0{house.secret}".encode()).decode()
        assert client.docmd("AUTH", f"PLAIN {right}")[0] in (530, 538)
        code, text = client.mail("app@example.com")
        assert (code, text[:5]) == (530, b"5.7.0")
        client.starttls(context=house.authority.context())
        client.ehlo("app.example.com")
        assert client.has_extn("auth")
        code, text = client.mail("app@example.com")
        assert (code, text[:5]) == (530, b"5.7.0")


def test_a_login_sends_only_as_its_client(house: SecureHouse) -> None:
    with smtplib.SMTP("127.0.0.1", house.smtp_port, timeout=30) as client:
        client.starttls(context=house.authority.context())
        client.login("app", house.secret)
        code, text = client.mail("boss@elsewhere.example")
        assert (code, text[:5]) == (550, b"5.7.1")


def _told(house: House, queue_id: str, word: str) -> str:
    """What explain says, once it says this."""
    explained = house.run("explain", queue_id).stdout
    return explained if word in explained else ""

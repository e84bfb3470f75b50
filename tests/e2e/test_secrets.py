"""Secrets stay where they belong: canaries of every kind, looked for in everything that relayd shows of itself."""

import signal
import smtplib
import ssl
import urllib.request
from base64 import b64encode
from collections.abc import Iterable, Iterator
from contextlib import closing
from pathlib import Path

import pytest
import trustme

from relayd.seal import Seal, parse_key
from relayd.store.directory import dkim_key_row
from tests.conftest import FreshDatabase
from tests.e2e.conftest import furnish
from tests.e2e.house import House, wait_until
from tests.peers.sink import Sink

BODY = "canary-in-the-body-of-a-message"
GUESS = "canary-of-a-wrong-secret"
UPSTREAM = "canary-of-an-upstreams-password"
SETTING = "canary-in-a-setting"


@pytest.fixture
def authority() -> trustme.CA:
    return trustme.CA()


@pytest.fixture
def node(database: FreshDatabase, authority: trustme.CA) -> Iterator[House]:
    """As chatty as it can be, its database's password in the DSN, with a certificate."""
    with closing(House(database.dsn_with_password, database.password, processes=1, log={"level": "debug"})) as house:
        certificate = authority.issue_cert("127.0.0.1")
        for name, pem in (("tls.pem", certificate.cert_chain_pems[0]), ("tls.key", certificate.private_key_pem)):
            (house.directory / name).write_bytes(pem.bytes())
            (house.directory / name).chmod(0o600)
        house.settings["submission"] |= {
            "tls_certificate": str(house.directory / "tls.pem"),
            "tls_key": str(house.directory / "tls.key"),
        }
        del house.settings["database"]["password_file"], house.settings["trusted_networks"]
        house.write_config()
        yield house


class Shown:
    """What relayd has let out, by where."""

    def __init__(self) -> None:
        self._texts: dict[str, str] = {}

    def add(self, where: str, text: str | bytes) -> None:
        text = text if isinstance(text, str) else text.decode(errors="replace")
        self._texts[where] = self._texts.get(where, "") + text + "\n"

    def holds(self, where: str, text: str) -> bool:
        return text in self._texts[where]

    def assert_none(self, what: str, canary: bytes) -> None:
        """Not as it is, and not in the form in which SMTP, JSON or Postgres would carry it."""
        forms = {canary.hex(), *(b64encode(canary[skip:])[:-4].decode() for skip in range(3))}
        if canary.isascii():
            forms.add(canary.decode())
        for where, text in self._texts.items():
            assert not any(form in text for form in forms), f"{what} is in {where}"


async def test_no_secret_is_shown(
    node: House, database: FreshDatabase, sink: Sink, authority: trustme.CA, tmp_path: Path
) -> None:
    shown = Shown()
    node.start()
    furnish(node, sink.port)
    password = tmp_path / "upstream-password"
    password.write_text(UPSTREAM + "\n")
    password.chmod(0o600)
    # Its server takes no logins, so every attempt fails with its password at hand.
    for command in (
        f"upstream add guarded --provider smtp_relay --host 127.0.0.1 --port {sink.port} --tls none --username relay"
        f" --password-file {password} --allow-plaintext-auth",
        "mailbox add guarded@example.com --upstream guarded",
    ):
        shown.add("the CLI", node.run(*command.split()).stdout)
    secret = node.json("credential", "add", "app", "--client", "acme")["secret"]

    for command, error in refused(node, password).items():
        shown.add(f"the error of {command}", error)
    shown.add("SMTP replies", "\n".join(talk(node, secret, authority)))
    wait_until(lambda: len(sink.arrivals) == 1, what="the message")
    wait_until(lambda: node.json("queue", "list")["items"][0]["reason"], what="an attempt that failed")
    for pid in (node.process.pid if node.process else 0, *node.worker_pids()):
        for name in ("cmdline", "environ"):
            shown.add(f"/proc/{pid}/{name}", Path(f"/proc/{pid}/{name}").read_bytes())
    reload_what_is_wrong(node)
    for command in LISTINGS:
        shown.add(command, node.run(*command.split(), "--json").stdout)  # tables show a part of it
    queue_id = node.json("queue", "list")["items"][0]["queue_id"]
    for command in ("explain", "queue show", "message show"):
        shown.add(command, node.run(*command.split(), queue_id, "--json").stdout)
    for page in ("metrics", "healthz", "readyz"):
        with urllib.request.urlopen(f"http://127.0.0.1:{node.http_port}/{page}", timeout=30) as answer:
            shown.add(page, answer.read())
    shown.add("the log", node.log_text())

    # That they are looked for where something is said at all.
    assert shown.holds("the log", "event=accepted") and shown.holds("the log", "reload refused")
    assert shown.holds("audit list", "smtp_credentials") and shown.holds("audit list", "(sealed")
    assert shown.holds("SMTP replies", "535 5.7.8 ")
    for what, canary in await canaries(node, database, secret):
        shown.assert_none(what, canary if isinstance(canary, bytes) else canary.encode())


LISTINGS = (
    "client list",
    "domain list",
    "domain show example.com",
    "mailbox list",
    "mailbox show app@example.com",
    "upstream list",
    "upstream show guarded",
    "credential list",
    "credential show app",
    "queue list",
    "queue list --state sent",
    "message find",
    "status",
    "audit list",
)


def refused(node: House, password: Path) -> dict[str, str]:
    """Commands that fail with a secret in hand."""
    commands = (
        f"upstream add guarded --provider smtp_relay --host h --username u --password-file {password}",
        f"upstream add other --provider smtp_relay --host 127.0.0.1 --tls none --username u --password-file {password}",
        f"upstream add other --provider capture --directory /nowhere --username u --password-file {password}",
        f"upstream set nowhere --username u --password-file {password}",
    )
    results = {command: node.run(*command.split(), check=False) for command in commands}
    assert all(result.returncode == 1 and result.stderr for result in results.values())
    return {command: result.stderr + result.stdout for command, result in results.items()}


def talk(node: House, secret: str, authority: trustme.CA) -> Iterable[str]:
    """What an app is answered that says its secret in every wrong way, and at last in the right one."""
    context = ssl.create_default_context()
    authority.configure_trust(context)
    plain = b64encode(f"\0app\0{secret}".encode()).decode()
    wrong = b64encode(f"\0app\0{GUESS}".encode()).decode()
    with closing(smtplib.SMTP("127.0.0.1", node.smtp_port, timeout=30)) as client:
        client.ehlo("app.example.com")
        lines = [f"AUTH PLAIN {plain}", plain, secret, f"PASS {secret}", f"AUTH LOGIN {secret}", f"NOOP {secret}"]
        yield from (answer(client, line) for line in lines)
        client.starttls(context=context)
        client.ehlo("app.example.com")
        lines = [f"AUTH PLAIN {wrong}", f"AUTH CRAM-MD5 {secret}", f"AUTH PLAIN {secret}!", f"HELP {secret}"]
        yield from (answer(client, line) for line in lines)
        yield from (answer(client, line) for line in ("AUTH LOGIN", b64encode(b"app").decode(), plain))
    with smtplib.SMTP("127.0.0.1", node.smtp_port, timeout=30) as client:
        client.starttls(context=context)
        client.login("app", secret)
        yield answer(client, f"AUTH PLAIN {plain}")
        for sender in ("app@example.com", "guarded@example.com"):
            client.sendmail(sender, "you@example.net", f"From: {sender}\r\nSubject: Hello\r\n\r\n{BODY}\r\n")


def answer(client: smtplib.SMTP, line: str) -> str:
    code, text = client.docmd(line)
    return f"{code} {text.decode()}"


def reload_what_is_wrong(node: House) -> None:
    """SIGHUP on configurations that cannot be used, with a secret where it does not belong."""
    assert node.process
    good = node.config.read_text()
    dsn = node.settings["database"]["dsn"]
    for bad in (
        good + f'\n[seal2]\nkey = "{SETTING}"\n',
        good.replace(f'"{dsn}"', f'"{dsn.replace("postgresql:", "mysql:")}"'),
        good.replace(str(node.directory / "key"), str(node.directory / "tls.key")),
    ):
        assert bad != good
        already = node.log_text().count("reload refused")
        node.config.write_text(bad)
        node.process.send_signal(signal.SIGHUP)
        wait_until(lambda already=already: node.log_text().count("reload refused") > already, what="the refusal")
    node.config.write_text(good)


async def canaries(node: House, database: FreshDatabase, secret: str) -> list[tuple[str, str | bytes]]:
    key = (node.directory / "key").read_text().strip()
    found: list[tuple[str, str | bytes]] = [
        ("the database's password", database.password),
        ("the sealing key", key),
        ("a credential's secret", secret),
        ("a wrong secret", GUESS),
        ("an upstream's password", UPSTREAM),
        ("a message's body", BODY),
        ("a setting's value", SETTING),
        ("the certificate's key", (node.directory / "tls.key").read_text().splitlines()[1]),
    ]
    seal = Seal(parse_key(key.encode()))
    connection = await database.connect()
    try:
        for row in await connection.fetch("SELECT id, private_key_sealed FROM dkim_keys"):
            private = seal.open(row["private_key_sealed"], row=dkim_key_row(row["id"]))
            found += [("a DKIM key", private), ("a sealed DKIM key", row["private_key_sealed"][-32:])]
        for row in await connection.fetch("SELECT stored_key, server_key FROM smtp_credentials"):
            found += [("a verifier", each) for each in row]
    finally:
        await connection.close()
    return found

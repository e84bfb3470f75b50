"""Secrets stay where they belong: canaries of every kind, looked for in everything that relayd shows of itself."""

import json
import os
import re
import resource
import signal
import smtplib
import ssl
import urllib.request
from base64 import b64encode
from collections.abc import Iterable, Iterator
from contextlib import closing
from pathlib import Path
from typing import Any

import pytest
import trustme
from cryptography.hazmat.primitives.asymmetric import rsa
from cryptography.hazmat.primitives.serialization import Encoding, NoEncryption, PrivateFormat

from relayd.control.client import ControlClient, ServerRefused, path_of
from relayd.control.routes import ROUTES
from relayd.control.upstream_options import SECRETS
from relayd.seal import Seal, new_key, parse_key
from relayd.store.directory import dkim_key_row
from tests.conftest import FreshDatabase, at_length
from tests.e2e.conftest import furnish
from tests.e2e.house import House, wait_until
from tests.e2e.reloading import hang_up
from tests.e2e.shown import Shown
from tests.peers.echoing import EchoingServer, EchoingWeb
from tests.peers.sink import Sink

ROOT = Path(__file__).parents[2]
BODY = "canary-in-the-body-of-a-message"
GUESS = "canary-of-a-wrong-secret"
SETTING = "canary-in-a-setting"
# What differs in every spelling, and the first line of what is long.
PAIR = trustme.CA().issue_cert("relay.test")
UPSTREAM = {name: f"canary%of {name}/é+='\"<&>-{os.urandom(6).hex()}" for name in SECRETS} | {
    "client_key": PAIR.private_key_pem.bytes().decode()
}
KEY_LINE = UPSTREAM["client_key"].splitlines()[1]
# What grants live by: tokens are ASCII.
ACCESS_TOKEN = f"ya29.canary-access-token-{os.urandom(6).hex()}"
REFRESH_TOKEN = f"1//canary-refresh-token-{os.urandom(6).hex()}"
KEY_ID = f"canary-key-id-{os.urandom(6).hex()}"
TOKEN_PATH, DEAD_PATH = "/give", "/dead"
# By name: the provider, its mode, where its tokens come from. With a service account's key, or with a refresh token.
GRANTED = {
    "key-smtp": ("google_workspace", "xoauth2", TOKEN_PATH),
    "key-dead": ("google_workspace", "xoauth2", DEAD_PATH),
    "login-api": ("google_workspace", "gmail_api", TOKEN_PATH),
    "login-dead": ("google_workspace", "xoauth2", DEAD_PATH),
    "token-smtp": ("smtp_relay", None, TOKEN_PATH),
    "grid-api": ("sendgrid", "api", None),
}


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


async def test_no_secret_is_shown(
    node: House, database: FreshDatabase, sink: Sink, authority: trustme.CA, tmp_path: Path
) -> None:
    shown = Shown()
    node.start()
    furnish(node, sink.port)
    service_account = new_service_account()
    with (
        EchoingServer(takes_logins=False) as refusing,
        EchoingServer(takes_logins=True) as taking,
        EchoingWeb(ACCESS_TOKEN) as web,
    ):
        add_upstreams(node, tmp_path, shown, {"refusing": refusing.port, "taking": taking.port})
        add_granted(node, tmp_path, shown, service_account, web.url, refusing.port)
        secret = node.json("credential", "add", "app", "--client", "acme")["secret"]
        shown.add("SMTP replies", "\n".join(talk(node, secret, authority)))
        wait_until(lambda: len(sink.arrivals) == 1, what="the message")
        waiting = wait_until(lambda: tried(node), what="attempts that failed")
        try_out(node, shown)
        reload_what_is_wrong(node)
        rotate(node, shown)
        ask_everything(node, shown, waiting)
    for pid in (node.process.pid if node.process else 0, *node.worker_pids()):
        for name in ("cmdline", "environ"):
            shown.add(f"/proc/{pid}/{name}", contents_of(Path(f"/proc/{pid}/{name}")))
        limits = contents_of(Path(f"/proc/{pid}/limits"))
        assert re.search(rb"Max core file size +0 +0 ", limits) or not limits
    for page in ("metrics", "healthz", "readyz"):
        with urllib.request.urlopen(f"http://127.0.0.1:{node.http_port}/{page}", timeout=30) as answer:
            shown.add(page, answer.read())
    shown.add("the log", node.log_text())

    # That they are looked for where something is said at all.
    assert shown.holds("the log", "event=accepted") and shown.holds("the log", "reload refused")
    assert shown.holds("the log", "450") and shown.holds("the log", "***") and shown.holds("the log", "535")
    assert shown.holds("/v1/audit", "smtp_credentials") and shown.holds("/v1/audit", "(sealed, new)")
    assert shown.holds("SMTP replies", "535 5.7.8 ") and shown.holds("/v1/explain/{id}", "***")
    assert shown.holds("/v1/upstreams/{name}", "gets no token") and shown.holds("trials", "the grant is dead")
    assert shown.holds("the log", "grant_died") and shown.holds("/v1/audit", "google_service_account_sealed")
    assertions = [each for each in web.heard if each.startswith("eyJ")]
    assert assertions and REFRESH_TOKEN in web.heard
    found = await canaries(node, database, secret)
    found += [("an assertion", each) for each in assertions]
    found += [("a service account's key", line) for line in json.loads(service_account)["private_key"].split("\n")[1:3]]
    for what, canary in found:
        octets = canary if isinstance(canary, bytes) else canary.encode()
        shown.assert_none(what, octets)
        assert_would_be_found(what, octets)


def add_upstreams(node: House, directory: Path, shown: Shown, ports: dict[str, int]) -> None:
    """With every secret that an upstream can have, on the command line and the socket, well and badly."""
    control = ControlClient((node.socket,))
    files = {}
    for name, text in UPSTREAM.items():
        files[name] = directory / name
        files[name].write_text(text if name == "client_key" else text + "\n")
        files[name].chmod(0o600)
    certificate = directory / "certificate"
    certificate.write_bytes(PAIR.cert_chain_pems[0].bytes())
    for name, port in ports.items():
        login = {"tls": "none", "username": "relay", "password": UPSTREAM["password"], "allow_plaintext_auth": True}
        where = {"name": name, "provider": "smtp_relay", "host": "127.0.0.1", "port": port}
        shown.add("/v1/upstreams", control.post(path_of("upstreams"), {**where, **login}).text)
        control.post(path_of("mailboxes"), {"email_address": f"{name}@example.com", "upstream": name})
    options = [word for name, file in files.items() if name != "api_key" for word in (option(name), str(file))]
    options += ["--client-certificate-file", str(certificate)]
    loaded = ("upstream", "add", "loaded", "--provider", "smtp_relay", "--host", "h", "--username", "u", *options)
    grid = ("upstream", "add", "grid", "--provider", "sendgrid", option("api_key"), str(files["api_key"]))
    for command in (loaded, grid, ("upstream", "set", "loaded", *options)):
        shown.add("the CLI", node.run(*command).stdout)
    for command in (("upstream", "show", "loaded"), ("audit", "list")):
        shown.add("the CLI", node.run(*command).stdout)
    refused: tuple[tuple[str, ...], ...] = (
        loaded,
        (*loaded[:2], "other", *loaded[3:], "--tls", "none"),
        (*loaded[:2], "other", "--provider", "capture", "--directory", "/nowhere", *options),
        ("upstream", "set", "nowhere", *options),
        # What is no secret to the command line, typed where a file's name belongs.
        ("upstream", "set", "loaded", option("password"), str(certificate.with_name("nothing"))),
    )
    for command in refused:
        result = node.run(*command, check=False)
        assert result.returncode == 1 and result.stderr
        shown.add(f"the error of {command[:3]}", result.stderr + result.stdout)
    for name, text in UPSTREAM.items():
        for wrong in ([text], {"a": text}, text + "\0\n" * 40_000):
            with pytest.raises(ServerRefused) as caught:
                control.patch(path_of("upstreams", "loaded"), {name: wrong, "port": text})
            shown.add("refusals", f"{caught.value} {caught.value.hint}")


def new_service_account() -> str:
    """The text of a key file."""
    key = rsa.generate_private_key(public_exponent=65537, key_size=2048)
    content = {
        "type": "service_account",
        "private_key_id": KEY_ID,
        "private_key": key.private_bytes(Encoding.PEM, PrivateFormat.PKCS8, NoEncryption()).decode(),
        "client_email": "relay@project.iam.example.com",
        "client_id": "104000000000000000001",
        "token_uri": "https://oauth2.googleapis.com/token",
    }
    return json.dumps(content, indent=2)


def add_granted(node: House, directory: Path, shown: Shown, key: str, web: str, port: int) -> None:
    """Upstreams that log in by token, and an API that is called with a key; each with a mailbox."""
    control = ControlClient((node.socket,))
    control.patch(path_of("clients", "acme"), {"tier": "Dominance"})
    smtp = {"host": "127.0.0.1", "port": port, "tls": "none", "allow_plaintext_auth": True}
    client = {"oauth_client_id": "client", "oauth_client_secret": UPSTREAM["oauth_client_secret"]}
    for name, (provider, mode, path) in GRANTED.items():
        body: dict[str, Any] = {"name": name, "provider": provider, "mode": mode}
        body |= {"api_url": web} if mode in ("gmail_api", "api") else smtp
        body |= {"token_url": web + path} if path else {"api_key": UPSTREAM["api_key"]}
        if name.startswith(("login", "token")):
            body |= {**client, "refresh_token": REFRESH_TOKEN, "oauth_account": f"{name}@example.com"}
        if name.startswith("token"):
            body |= {"auth_mechanism": "XOAUTH2"}
        given = {option: value for option, value in body.items() if value is not None}
        shown.add("/v1/upstreams", control.post(path_of("upstreams"), given).text)
        control.post(path_of("mailboxes"), {"email_address": f"{name}@example.com", "upstream": name})
    file = directory / "key.json"
    file.write_text(key)
    file.chmod(0o600)
    for name in ("key-smtp", "key-dead"):
        told = node.run("upstream", "set-service-account", name, "--file", str(file))
        shown.add("the CLI", told.stdout + told.stderr)
    path = path_of("upstreams", "key-smtp", "service-account")
    for wrong in (key[:-40], key.replace("BEGIN", "BEGAN"), key.replace("service_account", "authorized_user"), [key]):
        with pytest.raises(ServerRefused) as caught:
            control.post(path, {"key": wrong})
        shown.add("refusals", f"{caught.value} {caught.value.hint}")
    file.write_text(key[:-40])
    told = node.run("upstream", "set-service-account", "key-smtp", "--file", str(file), check=False)
    assert told.returncode == 1
    shown.add("the CLI", told.stdout + told.stderr)


def try_out(node: House, shown: Shown) -> None:
    """`relayd upstream test` and `show` of all that repeat what they are told."""
    control = ControlClient((node.socket,))
    for name in ("refusing", "taking", *GRANTED):
        said = {"to": "you@example.net", "sender": f"{name}@example.com"}
        shown.add("trials", control.post(path_of("upstreams", name, "test"), said).text)
        # A rotation forgets which grants are dead.
        shown.add("/v1/upstreams/{name}", control.get(path_of("upstreams", name)).text)


def assert_would_be_found(what: str, canary: bytes) -> None:
    """Planted in what is looked through, as a log line, a login or a row would carry it."""
    for planted in (b"said: " + repr(canary).encode(), b64encode(b"user\0" + canary + b"\0"), canary.hex()):
        leaking = Shown()
        leaking.add("a planted leak", planted)
        with pytest.raises(AssertionError, match="is in a planted leak"):
            leaking.assert_none(what, canary)


def option(name: str) -> str:
    return f"--{name.replace('_', '-')}-file"


def tried(node: House) -> list[dict[str, Any]]:
    """The entries that no upstream took, once both upstreams that repeat everything have been tried."""
    listed = ControlClient((node.socket,)).get(path_of("queue")).data["items"]
    items = [item for item in listed if item["reason"]]
    return items if len(items) == 2 + len(GRANTED) else []


def contents_of(path: Path) -> bytes:
    try:
        return path.read_bytes()
    except PermissionError:
        return b""  # nobody but root may look, which is as well


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
        for sender in (f"{name}@example.com" for name in ("app", "refusing", "taking", *GRANTED)):
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


def rotate(node: House, shown: Shown) -> None:
    """A new key, and everything sealed anew."""
    (node.directory / "new-key").write_text(new_key() + "\n")
    (node.directory / "new-key").chmod(0o600)
    files = {"key_file": str(node.directory / "new-key"), "older_key_files": [str(node.directory / "key")]}
    node.settings["seal"] = files
    node.write_config()
    hang_up(node)
    control = ControlClient((node.socket,))
    wait_until(
        lambda: len(control.get(path_of("secrets")).data["nodes"][0]["opening_keys"]) == 2, what="word of both keys"
    )
    shown.add("the CLI", node.run("secrets", "rotate").stdout)


def ask_everything(node: House, shown: Shown, waiting: list[dict[str, Any]]) -> None:
    """Every question that the control socket answers, for every name that it knows."""
    control = ControlClient((node.socket,))
    names: dict[str, list[str]] = {
        "/v1/clients/": ["acme"],
        "/v1/domains/": ["example.com"],
        "/v1/mailboxes/": ["app@example.com", "taking@example.com"],
        "/v1/upstreams/": ["loaded", "grid", "refusing", "taking", *GRANTED],
        "/v1/credentials/": ["app"],
        "/v1/": [entry["queue_id"] for entry in waiting],
    }
    shown.add("the OpenAPI document", control.get("/v1/openapi.json").text)
    for route in ROUTES:
        if route.method != "GET" or route.path.endswith("/content"):
            continue  # what was handed in is given out again to who may ask
        known = next(names[prefix] for prefix in names if route.path.startswith(prefix))
        fillings = known if "{" in route.path else [""]
        for filling in fillings:
            path = path_of(*(filling if "{" in part else part for part in route.path.split("/")[2:]))
            try:
                shown.add(route.path, control.get(path).text)
            except ServerRefused as error:
                shown.add(route.path, f"{error} {error.hint}")
    shown.add("/v1/audit", control.get("/v1/audit", {"limit": 1000}).text)


async def canaries(node: House, database: FreshDatabase, secret: str) -> list[tuple[str, str | bytes]]:
    keys = {name: (node.directory / name).read_text().strip() for name in ("key", "new-key")}
    found: list[tuple[str, str | bytes]] = [
        ("the database's password", database.password),
        *((f"the sealing key in {name}", key) for name, key in keys.items()),
        *((f"the octets of the sealing key in {name}", parse_key(key.encode())) for name, key in keys.items()),
        ("a credential's secret", secret),
        ("a wrong secret", GUESS),
        *((f"an upstream's {name}", text if name != "client_key" else KEY_LINE) for name, text in UPSTREAM.items()),
        ("an access token", ACCESS_TOKEN),
        ("a refresh token", REFRESH_TOKEN),
        ("a service account's key's id", KEY_ID),
        ("a message's body", BODY),
        ("a setting's value", SETTING),
        ("the certificate's key", (node.directory / "tls.key").read_text().splitlines()[1]),
    ]
    seal = Seal(parse_key(keys["new-key"].encode()))
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


@at_length
@pytest.mark.parametrize("override", [pytest.param("", id="as it is"), pytest.param("1", id="its memory left open")])
def test_a_worker_that_crashes_leaves_no_core(node: House, override: str) -> None:
    """With the memory left open there is one, with the key in it: so it would be found."""
    pattern = Path("/proc/sys/kernel/core_pattern").read_text().strip()
    if "/" in pattern or pattern.startswith("|") or resource.getrlimit(resource.RLIMIT_CORE)[1] == 0:
        pytest.skip("cores do not go to the working directory here")

    def permit_cores() -> None:
        resource.setrlimit(resource.RLIMIT_CORE, (resource.RLIM_INFINITY,) * 2)
        os.chdir(node.directory)

    node.migrate()
    node.before_exec = permit_cores
    node.start(PYTHONPATH=str(ROOT), RELAYD_DUMPABLE=override)
    (worker,) = node.worker_pids()
    if os.geteuid() != 0:
        # The kernel gives what must not be looked at to root.
        assert (Path(f"/proc/{worker}/environ").stat().st_uid == 0) == (override == "")
    os.kill(worker, signal.SIGSEGV)
    wait_until(lambda: node.worker_pids() not in ([], [worker]), what="a successor")
    key = parse_key((node.directory / "key").read_bytes())
    cores = [path for path in node.directory.iterdir() if path.name.startswith("core")]
    held = [core for core in cores if key in core.read_bytes() or b64encode(key) in core.read_bytes()]
    assert bool(held) == bool(cores) == (override == "1")

"""relayd as its users run it: `relayd serve` with two workers, on a durable Postgres of its own.

The node serves two domains. One has the keys that `relayd domain add` makes, RSA-2048 and Ed25519; of the other the
Ed25519 key is retired, for the comparison with signers of one signature. There is no command for that yet.
"""

import asyncio
import contextlib
import shutil
import subprocess
import sys
import time
from collections.abc import Mapping
from http import HTTPStatus
from pathlib import Path
from urllib.request import urlopen

import asyncpg

from bench import process
from bench.errors import BenchError
from bench.loopback import endpoint, free_port
from bench.system import SENDER_DOMAIN, SINK_CONNECTIONS, Place
from bench.tls import make_certificate
from relayd.control.client import ControlClient, path_of
from relayd.embedded import EmbeddedPostgres
from relayd.errors import RelaydError
from relayd.seal import new_key

RSA_DOMAIN = f"rsa.{SENDER_DOMAIN}"
WORKERS = 2

# The other key signs no more. Index: dkim_keys_domain_id_selector_key.
RETIRE_ED25519 = """
UPDATE dkim_keys SET status = 'retired'
 WHERE algorithm = 'ed25519-sha256' AND domain_id = (SELECT id FROM email_domains WHERE domain = $1)
"""


# All clients are one peer here, whose share of connections would not be even over the workers.
_CONFIG = """\
node = "bench"
hostname = "relayd.example.com"
processes = {workers}
[database]
dsn = "{dsn}"
password_file = "{directory}/password"
[seal]
key_file = "{directory}/seal.key"
[submission]
listen = ["{listen}"]
tls_certificate = "{directory}/certificate.pem"
tls_key = "{directory}/tls.key"
max_connections_per_peer = 1000
[[trusted_networks]]
network = "127.0.0.0/8"
client = "acme"
[[trusted_networks]]
network = "::1/128"
client = "acme"
[http]
listen = "{http}"
[control]
socket = "{directory}/control.sock"
mode = "0600"
"""


class RelaydNode:
    """Postgres and the node, started and stopped together. `account` logs an app in."""

    def __init__(self, place: Place) -> None:
        self._place = place
        self._directory = place.directory
        self.port = free_port(place.address)
        self._http_port = free_port(place.address)
        self.account: Mapping[str, str] = {}
        self._postgres = EmbeddedPostgres(self._directory / "state")
        self._socket = self._directory / "control.sock"
        self._process: subprocess.Popen[bytes] | None = None

    def start(self) -> None:
        is_new = not self._directory.exists()
        self._directory.mkdir(parents=True, exist_ok=True)
        try:
            self._postgres.start()
        except RelaydError as error:
            raise BenchError(f"Postgres: {error}") from error
        if is_new:
            self._make_files()
        log = self._directory / "log"
        relayd = [sys.executable, "-m", "relayd"]
        config = ["--config", str(self._write_config())]
        if is_new:
            process.run([*relayd, "migrate", "up", *config], log=log)
        self._process = process.start([*relayd, "serve", *config], log=log)
        process.wait_for_path(self._socket, self._process, log)
        self._wait_for_workers(log)
        if is_new:
            self._furnish()

    def stop(self) -> None:
        process.stop(self._process)
        self._process = None
        self._postgres.stop()

    def discard(self) -> None:
        shutil.rmtree(self._directory, ignore_errors=True)

    def roots(self) -> Mapping[str, int]:
        assert self._process
        return {"relayd": self._process.pid, "postgres": self._postgres.pid}

    @property
    def _certificate(self) -> Path:
        return self._directory / "certificate.pem"

    def _make_files(self) -> None:
        make_certificate(self._place.address, certificate=self._certificate, key=self._directory / "tls.key")
        for name, text in (("seal.key", new_key()), ("password", self._postgres.password)):
            path = self._directory / name
            path.touch(mode=0o600)
            path.write_text(text + "\n")

    def _write_config(self) -> Path:
        # At each start: the directory of Postgres's socket may be another one.
        config = self._directory / "relayd.toml"
        config.write_text(
            _CONFIG.format(
                workers=WORKERS,
                directory=self._directory,
                dsn=self._postgres.dsn,
                listen=endpoint(self._place.address, self.port),
                http=endpoint(self._place.address, self._http_port),
            )
        )
        return config

    def _wait_for_workers(self, log: Path) -> None:
        assert self._process
        address = endpoint(self._place.address, self._http_port)
        end = time.monotonic() + process.START_SECONDS
        while time.monotonic() < end and self._process.poll() is None:
            with contextlib.suppress(OSError), urlopen(f"http://{address}/readyz", timeout=5) as answer:
                if answer.status == HTTPStatus.OK:
                    return
            time.sleep(0.05)
        raise BenchError(f"relayd is not ready: {process.last_words(log)}")

    def _furnish(self) -> None:
        control = ControlClient((self._socket,))
        upstream = {
            "provider": "smtp_relay",
            "host": self._place.address,
            "port": self._place.sink_port,
            "tls": "none",
            "max_connections": SINK_CONNECTIONS,
        }
        control.post(path_of("clients"), {"name": "acme"})
        control.post(path_of("upstreams"), {"name": "sink", **upstream})
        for domain in (SENDER_DOMAIN, RSA_DOMAIN):
            control.post(path_of("domains"), {"domain": domain, "client": "acme"})
            control.post(path_of("mailboxes"), {"email_address": f"app@{domain}", "daily_send_limit": None})
        made = control.post(path_of("credentials"), {"login": "bench", "client": "acme"}).data
        self.account = {"login": "bench", "secret": made["secret"], "certificate": str(self._certificate)}
        asyncio.run(self._retire_ed25519())
        # What the workers have seen of the trusted network's client, before it was there, they believe for a second.
        time.sleep(1.5)

    async def _retire_ed25519(self) -> None:
        connection = await asyncpg.connect(self._postgres.dsn, password=self._postgres.password)
        try:
            await connection.execute(RETIRE_ED25519, RSA_DOMAIN)
        finally:
            await connection.close()


class Relayd:
    """The node, seen by those who send from one of its domains."""

    def __init__(self, node: RelaydNode, domain: str) -> None:
        self.node = node
        self.sender = f"app@{domain}"

    @property
    def port(self) -> int:
        return self.node.port

    def start(self) -> None:
        self.node.start()

    def stop(self) -> None:
        self.node.stop()

    def discard(self) -> None:
        self.node.discard()

    def account(self) -> Mapping[str, str]:
        return self.node.account

    def roots(self) -> Mapping[str, int]:
        return self.node.roots()

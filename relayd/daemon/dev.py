"""Development mode: everything on one machine with nothing but Python, in the architecture of production.

An embedded Postgres, one worker, no login, every sender's domain made and signed for on first use, mail captured in a
Maildir.
"""

import asyncio
import os
import shutil
import sys
import tempfile
from dataclasses import replace
from pathlib import Path

from relayd.config.secret_file import read_secret
from relayd.config.settings import Settings
from relayd.daemon import sockets
from relayd.daemon.orders import Secrets
from relayd.daemon.storage import open_database
from relayd.daemon.supervisor import Supervisor
from relayd.embedded import EmbeddedPostgres
from relayd.errors import RelaydError
from relayd.seal import SealError, new_key, parse_key
from relayd.store import clients, migrate, upstreams
from relayd.store.ids import new_id
from relayd.store.upstreams import UpstreamRecord

CLIENT = "dev"
TIER = "Development"
UPSTREAM = "capture"
UNIX_PATH_OCTETS = 107

WELCOME = """
relayd is ready (development mode: no login, no TLS, this machine only).

  SMTP          127.0.0.1:{smtp_port}
  metrics       http://127.0.0.1:{http_port}/metrics
  mail lands in {maildir}  (a Maildir: any mail reader opens it, e.g. mutt -f {maildir})

Send a first message, with swaks:
  swaks --server 127.0.0.1:{smtp_port} --from app@example.com --to you@example.net
or with nothing but Python:
  {python} -c 'import smtplib; s = smtplib.SMTP("127.0.0.1", {smtp_port}); \
print(s.sendmail("app@example.com", "you@example.net", "From: app@example.com\\nSubject: hello\\n\\nIt works."))'
then look at it:
  cat {maildir}/new/*

Ask relayd:
{export}  {relayd} status
  {relayd} queue list
Ctrl-C stops it; what is queued stays queued.
"""


def run(state: Path, *, smtp_port: int, http_port: int, run_as: str | None) -> None:
    """Start, serve until stopped, stop. Raises RelaydError."""
    state = state.absolute()
    with EmbeddedPostgres(state, run_as=run_as) as postgres:
        keys = Secrets(postgres.password, _sealing_key(state / "seal.key"))
        settings = _settings(state, postgres.dsn, smtp_port, http_port)
        for address in (*settings.submission.listen, settings.http.listen):
            if address:
                # Before anything else is begun: a taken port is the most likely of all troubles.
                sockets.bind(address).close()
        maildir = state / "mail"
        asyncio.run(_prepare(settings, keys, maildir))
        supervisor = Supervisor(
            settings,
            keys,
            reread=None,
            provision_for=CLIENT,
            on_ready=lambda: _welcome(settings, maildir, smtp_port, http_port),
        )
        asyncio.run(supervisor.run())


def default_state() -> Path:
    """/var/lib/relayd for root, else where the XDG rules say."""
    if os.geteuid() == 0:
        return Path("/var/lib/relayd")
    base = os.environ.get("XDG_STATE_HOME", "")
    return (Path(base) if Path(base).is_absolute() and base else Path.home() / ".local" / "state") / "relayd"


def _settings(state: Path, dsn: str, smtp_port: int, http_port: int) -> Settings:
    return Settings.model_validate(
        {
            "node": "dev",
            "hostname": "localhost",
            "processes": 1,
            "database": {"dsn": dsn},
            "submission": {"listen": [f"127.0.0.1:{smtp_port}"]},
            "trusted_networks": [
                {"network": "127.0.0.0/8", "client": CLIENT},
                {"network": "::1/128", "client": CLIENT},
            ],
            "http": {"listen": f"127.0.0.1:{http_port}"},
            "control": {"socket": str(_control_socket(state)), "mode": "0600"},
            "tiers": [{"name": TIER}],
            "publish": {"spf_hosts": ["ip4:127.0.0.1"], "mx_host": "localhost"},
        }
    )


def _control_socket(state: Path) -> Path:
    path = state / "control.sock"
    if len(os.fsencode(path)) <= UNIX_PATH_OCTETS:
        return path
    return Path(tempfile.mkdtemp(prefix="relayd-")) / "control.sock"


def _sealing_key(path: Path) -> bytes:
    try:
        if not path.exists():
            descriptor = os.open(path, os.O_WRONLY | os.O_CREAT | os.O_EXCL, 0o600)
            with os.fdopen(descriptor, "w") as file:
                file.write(new_key() + "\n")
        return parse_key(read_secret(path))
    except OSError as error:
        raise RelaydError(f"cannot keep the sealing key in {path}: {error.strerror}") from error
    except SealError as error:
        raise RelaydError(f"{path}: {error}") from error


async def _prepare(settings: Settings, keys: Secrets, maildir: Path) -> None:
    """Migrate, and make the client and the upstream that everything in development mode belongs to."""
    database = await open_database(settings.database, keys.database_password, name="relayd dev")
    try:
        async with database.connection() as connection:
            await migrate.up(connection)
        async with database.transaction() as connection:
            if not any(each.name == CLIENT for each in await clients.living(connection)):
                await clients.add(connection, name=CLIENT, tier=TIER, may_send_bounces=True)
            known = {each.name: each for each in await upstreams.living(connection)}
            capture = known.get(UPSTREAM)
            if capture is None:
                await upstreams.add(
                    connection,
                    UpstreamRecord(new_id(), UPSTREAM, "capture", capture_directory=str(maildir)),
                )
            elif capture.capture_directory != str(maildir):
                # The state directory was moved, and the mail with it.
                await upstreams.save(connection, replace(capture, capture_directory=str(maildir)))
    finally:
        await database.close()


def _welcome(settings: Settings, maildir: Path, smtp_port: int, http_port: int) -> None:
    default = default_state() / "control.sock"
    export = "" if settings.control.socket == default else f"  export RELAYD_SOCKET={settings.control.socket}\n"
    text = WELCOME.format(
        smtp_port=smtp_port,
        http_port=http_port,
        maildir=maildir,
        python=sys.executable,
        export=export,
        relayd="relayd" if shutil.which("relayd") else f"{sys.executable} -m relayd",
    )
    sys.stdout.write(text)
    sys.stdout.flush()

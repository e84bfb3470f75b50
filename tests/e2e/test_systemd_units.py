"""The units say what systemd understands, keep their promises to the daemon, and shut it in tightly.

systemd-analyze exits 0 although it warns: its output is judged.
"""

import re
import shutil
import subprocess
import sys
import tomllib
from pathlib import Path

import pytest

from relayd.config.settings import DeliverySettings
from relayd.daemon.sockets import BACKLOG
from tests.e2e.conftest import need
from tests.e2e.sandboxed import allowed_calls, service_settings

ROOT = Path(__file__).parents[2]
UNITS = ROOT / "systemd"
SERVICE = UNITS / "relayd.service"
SOCKETS = (UNITS / "relayd.socket", UNITS / "relayd-submissions.socket")
WORST_EXPOSURE = 2.0

# What the daemon does beneath its own code; each line must work under the unit's restrictions.
USE_LIBRARIES = """
import asyncio, os, socket, ssl, subprocess, sys
import aiohttp, aiosmtpd.smtp, aiosmtplib, asyncpg, dkim, prometheus_client, pydantic
from cryptography.hazmat.primitives import hashes
from cryptography.hazmat.primitives.asymmetric import ed25519, padding, rsa
from cryptography.hazmat.primitives.ciphers.aead import AESGCM

rsa.generate_private_key(65537, 2048).sign(b"x", padding.PKCS1v15(), hashes.SHA256())
ed25519.Ed25519PrivateKey.generate().sign(b"x")
AESGCM(os.urandom(32)).encrypt(os.urandom(12), b"x", b"")
ssl.create_default_context()
path = sys.argv[1]
with socket.socket(socket.AF_UNIX) as control:
    control.bind(path)
    os.chown(path, -1, os.getgid())
    os.chmod(path, 0o660)

async def main():
    server = await asyncio.start_server(lambda reader, writer: writer.close(), "127.0.0.1", 0)
    reader, writer = await asyncio.open_connection("localhost", server.sockets[0].getsockname()[1])
    assert await reader.read() == b""
    writer.close()
    server.close()
    ours, theirs = socket.socketpair()
    worker = await asyncio.create_subprocess_exec(sys.executable, "-c", "pass", pass_fds=[theirs.fileno()])
    assert await worker.wait() == 0
    ours.close()
    theirs.close()
    await asyncio.to_thread(os.getpid)

asyncio.run(main())
for refused in (lambda: socket.socket(socket.AF_PACKET), lambda: os.setpriority(os.PRIO_PROCESS, 0, 0)):
    try:
        refused()
    except PermissionError:
        continue
    sys.exit("the restrictions do not hold")
"""


@pytest.fixture
def installed(tmp_path: Path) -> Path:
    """The units as they would be installed, but for a program that exists here."""
    for unit in (SERVICE, *SOCKETS):
        shutil.copy(unit, tmp_path)
    service = tmp_path / SERVICE.name
    text, count = re.subn(r"(?m)^(Exec\w+)=\S+", rf"\1={sys.executable}", service.read_text())
    assert count == 2
    service.write_text(text)
    return tmp_path


def analyze(*arguments: str | Path) -> str:
    need("systemd-analyze")
    done = subprocess.run(
        ["systemd-analyze", *map(str, arguments)], capture_output=True, text=True, timeout=60, check=False
    )
    return done.stdout + done.stderr


def systemd_version() -> int:
    return int(analyze("--version").split()[1])


def test_verify_prints_nothing(installed: Path) -> None:
    assert analyze("verify", *(installed / unit.name for unit in (SERVICE, *SOCKETS))) == ""


def test_verify_sees_a_wrong_setting(installed: Path) -> None:
    service = installed / SERVICE.name
    service.write_text(service.read_text().replace("KillMode=mixed", "KillMode=gently"))
    assert "gently" in analyze("verify", service)


def test_exposure_is_low(installed: Path) -> None:
    report = analyze("security", "--offline=true", "--no-pager", installed / SERVICE.name)
    overall = re.search(r"Overall exposure level for \S+: ([0-9.]+)", report)
    assert overall, report
    assert float(overall.group(1)) <= WORST_EXPOSURE


def test_the_libraries_work_under_the_restrictions(tmp_path: Path) -> None:
    need("systemd-analyze")
    done = subprocess.run(
        [
            *(sys.executable, Path(__file__).with_name("sandboxed.py"), SERVICE),
            *(sys.executable, "-c", USE_LIBRARIES, tmp_path / "control.sock"),
        ],
        capture_output=True,
        text=True,
        timeout=60,
        check=False,
    )
    assert (done.returncode, done.stderr) == (0, "")


def test_system_calls_that_only_root_needs_are_refused() -> None:
    need("systemd-analyze")
    allowed = allowed_calls(service_settings(SERVICE)["SystemCallFilter"])
    assert {"read", "sendmsg", "chown", "fchownat"} <= allowed
    assert not {"mount", "reboot", "setuid", "ptrace", "bpf", "init_module"} & allowed


def test_stopping_takes_longer_than_a_drain() -> None:
    time_out = int(service_settings(SERVICE)["TimeoutStopSec"][0])
    # Twice: the drain, then what the supervisor still has to close and write.
    assert time_out > 2 * DeliverySettings().drain_seconds


def test_credentials_are_those_of_the_example() -> None:
    example = tomllib.loads((ROOT / "config.example.toml").read_text())
    loaded = [value.partition(":")[0] for value in service_settings(SERVICE)["LoadCredential"]]
    assert loaded == [example["seal"]["key_credential"], example["database"]["password_credential"]]


@pytest.mark.parametrize("unit", SOCKETS, ids=lambda unit: unit.name)
def test_sockets_are_named_as_the_daemon_reads_them(unit: Path) -> None:
    lines = dict(line.split("=", 1) for line in unit.read_text().splitlines() if "=" in line and line[0] != "#")
    assert lines["FileDescriptorName"].startswith("submissions") == (unit.name == "relayd-submissions.socket")
    assert int(lines["Backlog"]) == BACKLOG
    # On a socket for both families an IPv4 peer would be in no IPv4 network that is trusted.
    assert lines["BindIPv6Only"] == "ipv6-only"


def test_sysusers_makes_the_user_of_the_service() -> None:
    need("systemd-sysusers")
    done = subprocess.run(
        ["systemd-sysusers", "--dry-run", UNITS / "sysusers.d" / "relayd.conf"],
        capture_output=True,
        text=True,
        timeout=60,
        check=False,
    )
    settings = service_settings(SERVICE)
    told = done.stdout + done.stderr
    assert done.returncode == 0, told
    # Silent where the user exists already.
    assert not told.strip() or f"'{settings['User'][0]}'" in told

"""Make the data directory (Postgres calls it a cluster): user, password and database of relayd's own.

All or nothing: made under another name and renamed when complete, so a kill in between leaves nothing to mend.
"""

import os
import secrets
import shutil
import signal
import subprocess
from pathlib import Path

from relayd.embedded.account import Account
from relayd.embedded.lifetime import die_with_parent
from relayd.embedded.programs import Programs
from relayd.errors import RelaydError

USER = "relayd"
DATABASE = "relayd"


def initialise(home: Path, programs: Programs, account: Account, *, durable: bool) -> None:
    """Make `home`/data and `home`/password."""
    unfinished = home / "data.new"
    shutil.rmtree(unfinished, ignore_errors=True)
    unfinished.mkdir(mode=0o700)
    password = secrets.token_urlsafe(32)
    _write_private(home / "password", password)
    # Ours is not for Postgres's user to read, and initdb wants a file.
    password_file = home / "password.new"
    _write_private(password_file, password)
    account.own(unfinished)
    account.own(password_file)
    try:
        _initdb(programs, unfinished, password_file, account, durable=durable)
    finally:
        password_file.unlink()
    _create_database(programs, unfinished, account, durable=durable)
    unfinished.rename(home / "data")
    _sync_directory(home)


def major_of(data: Path) -> int | None:
    """The major version that made `data`, or None if there is none yet."""
    try:
        return int((data / "PG_VERSION").read_text())
    except FileNotFoundError:
        if not data.exists():
            return None
        raise RelaydError(f"{data} is not Postgres's data (no PG_VERSION): move it away") from None


def read_password(home: Path) -> str:
    try:
        return (home / "password").read_text()
    except OSError as error:
        raise RelaydError(f"cannot read the password of the database, {home / 'password'}: {error.strerror}") from error


def environment() -> dict[str, str]:
    """Ours without what would bend Postgres (PGDATA, PGPORT, locale) or is none of its business."""
    unwanted = ("PG", "LC_", "LANG", "RELAYD_")
    kept = {name: value for name, value in os.environ.items() if not name.startswith(unwanted)}
    return {**kept, "LC_ALL": "C"}


def _initdb(programs: Programs, data: Path, password_file: Path, account: Account, *, durable: bool) -> None:
    # --no-locale: every machine then sorts alike, and no libc upgrade can spoil an index.
    options = ["--auth=scram-sha-256", "-k", "--encoding=UTF8", "--no-locale", "--no-instructions"]
    if not durable:
        options.append("--no-sync")
    command = [str(programs.initdb), "-D", str(data), "-U", USER, f"--pwfile={password_file}", *options]
    _run(command, account)


def _create_database(programs: Programs, data: Path, account: Account, *, durable: bool) -> None:
    # Single-user mode: needs neither a socket nor a driver.
    options = ["-c", "exit_on_error=on", "-c", f"fsync={'on' if durable else 'off'}"]
    command = [str(programs.postgres), "--single", "-D", str(data), *options, "postgres"]
    _run(command, account, f"CREATE DATABASE {DATABASE};\n")


def _run(command: list[str], account: Account, text: str = "") -> None:
    done = subprocess.run(  # noqa: S603
        command,
        cwd="/",
        env=environment(),
        input=text,
        capture_output=True,
        text=True,
        check=False,
        start_new_session=True,
        preexec_fn=die_with_parent(signal.SIGKILL),
        **account.popen_arguments(),
    )
    if done.returncode != 0:
        lines = (done.stderr or done.stdout).strip().splitlines()
        reasons = [line for line in lines if "error:" in line or "FATAL:" in line or "ERROR:" in line]
        raise RelaydError(f"{Path(command[0]).name} failed: {' / '.join(reasons or lines[-3:])}")


def _write_private(path: Path, text: str) -> None:
    path.unlink(missing_ok=True)
    descriptor = os.open(path, os.O_WRONLY | os.O_CREAT | os.O_EXCL, 0o600)
    with os.fdopen(descriptor, "w") as file:
        file.write(text)
        file.flush()
        os.fsync(file.fileno())


def _sync_directory(path: Path) -> None:
    descriptor = os.open(path, os.O_RDONLY)
    try:
        os.fsync(descriptor)
    finally:
        os.close(descriptor)

"""Start and stop a Postgres that lives and dies with this process, on a socket only, its data in the state.

A lock held for life says whose the directory is, so SIGKILL frees it; the kernel sends Postgres SIGINT (a fast,
clean shutdown) when the thread that spawned it ends, however it ends. Hence start() belongs to the main thread.
"""

import os
import shutil
import signal
import socket
import subprocess
import tempfile
import threading
import time
from collections.abc import Sequence
from pathlib import Path
from types import TracebackType
from typing import Any, Self
from urllib.parse import quote

from relayd.embedded import cluster
from relayd.embedded.account import Account, choose_account, make_directory
from relayd.embedded.lifetime import DirectoryLock, die_with_parent, running_postmaster
from relayd.embedded.programs import Programs, find_programs, make_reachable
from relayd.errors import RelaydError

_SOCKET_NAME = ".s.PGSQL.5432"
_LONGEST_SOCKET_PATH = 107  # bytes, of sockaddr_un
_PREDECESSOR_SECONDS = 60.0
_ORPHANS_SECONDS = 30.0
_FAST_SHUTDOWN_SECONDS = 60.0

_SETTINGS = {
    "listen_addresses": "",
    "port": "5432",
    "max_connections": "100",
    "shared_buffers": "128MB",
    "wal_compression": "on",
    "fsync": "on",
    "full_page_writes": "on",
    "synchronous_commit": "on",
    # A queue's rows are short-lived: vacuum early. Not fast, though: the queue itself is told to be (its table has no
    # cost delay), but bodies are many gigabytes that nobody waits for, and took half a processor.
    "autovacuum_naptime": "15s",
    "autovacuum_vacuum_scale_factor": "0.05",
    "autovacuum_analyze_scale_factor": "0.02",
    "timezone": "UTC",
    "log_timezone": "UTC",
    "log_checkpoints": "off",
    # Errors of statements go to the client; here they would only make the log grow.
    "log_min_messages": "log",
    # Whoever turns on the logging of statements gets them without what they carry: mail, and verifiers of passwords.
    "log_parameter_max_length": "0",
    "log_parameter_max_length_on_error": "0",
}
_NOT_DURABLE = {"fsync": "off", "full_page_writes": "off", "synchronous_commit": "off"}


class EmbeddedPostgres:
    """One Postgres on one state directory. After start(), `dsn` and `password` are what asyncpg needs.

    `run_as` names the user that root runs it as. `durable=False` is for tests alone: it may lose commits.
    `major` asks for programs of that version. Every failure is a RelaydError fit for the operator.
    """

    def __init__(
        self, state_directory: Path, *, run_as: str | None = None, durable: bool = True, major: int | None = None
    ) -> None:
        self._state = state_directory.absolute()
        self._home = self._state / "postgres"
        self._data = self._home / "data"
        self._run_as = run_as
        self._durable = durable
        self._major = major
        self._lock: DirectoryLock | None = None
        self._process: subprocess.Popen[bytes] | None = None
        self._socket_directory: Path | None = None

    @property
    def socket_directory(self) -> Path:
        if self._socket_directory is None:
            raise RuntimeError("not started")
        return self._socket_directory

    @property
    def dsn(self) -> str:
        """Without the password."""
        host = quote(str(self.socket_directory))
        return f"postgresql://{cluster.USER}@/{cluster.DATABASE}?host={host}&port=5432"

    @property
    def password(self) -> str:
        return cluster.read_password(self._home)

    @property
    def pid(self) -> int:
        if self._process is None:
            raise RuntimeError("not started")
        return self._process.pid

    @property
    def log_file(self) -> Path:
        return self._home / "log"

    def start(self) -> None:
        """Return when Postgres takes connections, however long recovery takes: giving up would not shorten it."""
        if threading.current_thread() is not threading.main_thread():
            raise RuntimeError("Postgres would get SIGINT when this thread ends: start it from the main thread")
        if self._process is not None and self._process.poll() is None:
            raise RelaydError(f"already running on this state directory (pid {self._process.pid}): {self._state}")
        try:
            account = choose_account(self._run_as, self._data)
            make_directory(self._home, account)
            # Paths and the reach of other users are judged without links.
            self._home = self._home.resolve()
            self._data = self._home / "data"
            _check_reach(account, self._home)
            if self._lock is None:
                self._lock = DirectoryLock(self._home / "lock", self._state)
        except OSError as error:
            raise RelaydError(
                f"cannot use state directory {self._state}: {error.strerror}; choose another with --state"
            ) from error
        try:
            self._start_locked(account)
        except BaseException as error:
            self.stop()
            if isinstance(error, OSError):
                raise RelaydError(f"cannot start Postgres in {self._home}: {error}") from error
            raise

    def stop(self) -> None:
        """Shut down fast but cleanly, wait for it, and free the directory. Harmless when nothing runs."""
        process, self._process = self._process, None
        if process is not None:
            process.send_signal(signal.SIGINT)
            try:
                process.wait(_FAST_SHUTDOWN_SECONDS)
            except subprocess.TimeoutExpired:
                # Immediate: nothing committed is lost, the next start recovers.
                process.send_signal(signal.SIGQUIT)
                process.wait()
        if self._socket_directory is not None and self._socket_directory.parent != self._home:
            shutil.rmtree(self._socket_directory, ignore_errors=True)
        self._socket_directory = None
        if self._lock is not None:
            self._lock.release()
            self._lock = None

    def __enter__(self) -> Self:
        self.start()
        return self

    def __exit__(
        self, kind: type[BaseException] | None, error: BaseException | None, trace: TracebackType | None
    ) -> None:
        self.stop()

    def _start_locked(self, account: Account) -> None:
        programs = make_reachable(_choose_programs(self._major, self._data), account, self._home)
        if not self._data.exists():
            cluster.initialise(self._home, programs, account, durable=self._durable)
        account.own(self._data)
        _wait_for_predecessor(self._data)
        self._socket_directory = _make_socket_directory(self._home, account)
        give_up_at = time.monotonic() + _ORPHANS_SECONDS
        while not self._runs(programs, account):
            # Postgres was killed, and its orphaned backends still hold the shared memory; they go by themselves.
            orphaned = "pre-existing shared memory block" in self._last_words()
            if not orphaned or time.monotonic() > give_up_at:
                raise RelaydError(f"Postgres did not start: {self._last_words()} (log: {self.log_file})")
            time.sleep(0.1)

    def _runs(self, programs: Programs, account: Account) -> bool:
        """Spawn it and wait until it takes connections; False if it ended instead."""
        settings = _SETTINGS if self._durable else {**_SETTINGS, **_NOT_DURABLE}
        arguments = ["-D", str(self._data), "-k", str(self.socket_directory)]
        for name, value in settings.items():
            arguments += ["-c", f"{name}={value}"]
        self._process = _spawn([str(programs.postgres), *arguments], self.log_file, account)
        while self._process.poll() is None:
            if _is_ready(self._data, self._process.pid):
                _try_socket(self.socket_directory)
                return True
            time.sleep(0.01)
        return False

    def _last_words(self) -> str:
        lines = self.log_file.read_text(errors="replace").splitlines()
        fatal = [line.partition("FATAL:")[2].strip() for line in lines if "FATAL:" in line]
        return fatal[-1] if fatal else (lines[-1] if lines else "it said nothing")


def _check_reach(account: Account, home: Path) -> None:
    closed = account.first_out_of_reach([*reversed(home.parents), home], "x")
    if closed is not None:
        raise RelaydError(
            f"Postgres does not run as root but as user {account.name}, who cannot enter {closed}:"
            " choose --state elsewhere, for example under /var/lib/relayd"
        )


def _choose_programs(major: int | None, data: Path) -> Programs:
    existing = cluster.major_of(data)
    if existing is None:
        return find_programs(major)
    try:
        if major in (None, existing):
            return find_programs(existing)
    except RelaydError:
        pass
    found = find_programs(major)
    raise RelaydError(
        f"{data} was made by PostgreSQL {existing}, which PostgreSQL {found.major} cannot read ({found.directory}):"
        f" install PostgreSQL {existing} (to go on with this data, or to dump it for the other),"
        f" or move {data} away to start with an empty database"
    )


def _wait_for_predecessor(data: Path) -> None:
    """Let a Postgres whose parent was killed finish its shutdown; then drop its pid file if it left one."""
    give_up_at = time.monotonic() + _PREDECESSOR_SECONDS
    while (pid := running_postmaster(data)) is not None:
        if time.monotonic() > give_up_at:
            raise RelaydError(f"another Postgres (pid {pid}) still runs on {data}: wait for it or stop it")
        time.sleep(0.02)
    # Postgres itself would take any living process with the old number for its predecessor.
    (data / "postmaster.pid").unlink(missing_ok=True)


def _make_socket_directory(home: Path, account: Account) -> Path:
    """A directory whose socket's path fits: in the state, else a fresh one where temporary files go."""
    directory = home / "socket"
    if _fits(directory):
        directory.mkdir(exist_ok=True)
    else:
        runtime = None if account.is_lent else os.environ.get("XDG_RUNTIME_DIR")
        bases = [Path(base) for base in (runtime, tempfile.gettempdir(), "/tmp") if base]  # noqa: S108
        base = next(base for base in bases if _fits(base / "relayd-12345678") and os.access(base, os.W_OK))
        directory = Path(tempfile.mkdtemp(prefix="relayd-", dir=base))
    directory.chmod(0o700)
    account.own(directory)
    return directory


def _fits(directory: Path) -> bool:
    # Postgres and asyncpg both read a list there: commas and quotes would end a name.
    is_plain = not set(str(directory)) & set(",\"'%?# ")
    return is_plain and len(os.fsencode(directory / _SOCKET_NAME)) <= _LONGEST_SOCKET_PATH


def _spawn(command: Sequence[str], log_file: Path, account: Account) -> "subprocess.Popen[bytes]":
    if log_file.exists():
        log_file.replace(log_file.with_suffix(".old"))
    settings: dict[str, Any] = account.popen_arguments()
    with log_file.open("wb") as log:
        log_file.chmod(0o600)
        return subprocess.Popen(  # noqa: S603
            command,
            cwd="/",
            env=cluster.environment(),
            stdin=subprocess.DEVNULL,
            stdout=log,
            stderr=log,
            # Out of our process group: Ctrl-C is ours to handle, and Postgres is stopped last.
            start_new_session=True,
            preexec_fn=die_with_parent(signal.SIGINT),
            **settings,
        )


def _is_ready(data: Path, pid: int) -> bool:
    try:
        lines = (data / "postmaster.pid").read_text().splitlines()
    except FileNotFoundError:
        return False
    return len(lines) > 7 and lines[0] == str(pid) and lines[7].strip() == "ready"


def _try_socket(directory: Path) -> None:
    with socket.socket(socket.AF_UNIX) as probe:
        probe.connect(str(directory / _SOCKET_NAME))

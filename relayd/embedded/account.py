"""As whom Postgres runs. It refuses root, so root lends it another user, and checks what that user can reach.

Modes of directories that were there before are never changed: who may enter them is their owner's decision.
"""

import os
import pwd
import stat
import subprocess
from collections.abc import Iterable
from dataclasses import dataclass
from pathlib import Path
from typing import Any, Literal

from relayd.errors import RelaydError

_PREFERRED = ("relayd", "postgres", "nobody")


@dataclass(frozen=True, slots=True)
class Account:
    """A user that Postgres runs as. `is_lent` if it is not the one that this process runs as."""

    name: str
    uid: int
    gid: int
    is_lent: bool

    def popen_arguments(self) -> dict[str, Any]:
        """Keyword arguments that make subprocess run a program as this user, without root's groups."""
        return {"user": self.uid, "group": self.gid, "extra_groups": []} if self.is_lent else {}

    def own(self, path: Path) -> None:
        """Give `path` and all below it to this user, unless it is theirs; links are not followed."""
        if not self.is_lent or path.stat().st_uid == self.uid:
            return
        os.chown(path, self.uid, self.gid, follow_symlinks=False)
        for directory, subdirectories, files in os.walk(path):
            for name in (*subdirectories, *files):
                os.chown(Path(directory, name), self.uid, self.gid, follow_symlinks=False)

    def first_out_of_reach(self, paths: Iterable[Path], permission: Literal["r", "x"]) -> Path | None:
        """The first of `paths` for which this user lacks `permission`, as the kernel judges it (ACLs included)."""
        if not self.is_lent:
            # Our own user: the open or exec itself says what is wrong.
            return None
        script = f'for path; do test -{permission} "$path" || {{ printf %s "$path"; exit 1; }}; done'
        done = subprocess.run(  # noqa: S603
            ["/bin/sh", "-c", script, "sh", *map(str, paths)],
            cwd="/",
            stdin=subprocess.DEVNULL,
            capture_output=True,
            text=True,
            check=False,
            **self.popen_arguments(),
        )
        return None if done.returncode == 0 else Path(done.stdout)


def choose_account(run_as: str | None, data_directory: Path) -> Account:
    """The user for this data: as told, else its owner, else the first of relayd, postgres, nobody that exists."""
    owner = data_directory.stat().st_uid if data_directory.exists() else None
    if os.geteuid() != 0:
        return _own_account(run_as, owner, data_directory)
    if run_as is not None:
        return _lent(_named(run_as))
    if owner:
        return _lent(_numbered(owner, data_directory))
    for name in _PREFERRED:
        try:
            return _lent(pwd.getpwnam(name))
        except KeyError:
            continue
    raise RelaydError("Postgres refuses to run as root, and there is no user relayd, postgres or nobody to run it as")


def _own_account(run_as: str | None, owner: int | None, data_directory: Path) -> Account:
    uid = os.geteuid()
    name = _user_name(uid)
    if run_as not in (None, name):
        raise RelaydError(f"only root can run Postgres as {run_as}; this process runs as {name}")
    if owner not in (None, uid):
        raise RelaydError(f"{data_directory} belongs to {_user_name(owner or 0)}; run relayd as that user")
    return Account(name, uid, os.getegid(), is_lent=False)


def _named(name: str) -> pwd.struct_passwd:
    try:
        return pwd.getpwnam(name)
    except KeyError:
        raise RelaydError(f"there is no user {name} to run Postgres as") from None


def _numbered(uid: int, data_directory: Path) -> pwd.struct_passwd:
    try:
        return pwd.getpwuid(uid)
    except KeyError:
        raise RelaydError(f"{data_directory} belongs to uid {uid}, which is no user here; chown it to one") from None


def _lent(entry: pwd.struct_passwd) -> Account:
    if entry.pw_uid == 0:
        raise RelaydError("Postgres refuses to run as root; name another user")
    return Account(entry.pw_name, entry.pw_uid, entry.pw_gid, is_lent=True)


def _user_name(uid: int) -> str:
    try:
        return pwd.getpwuid(uid).pw_name
    except KeyError:
        return f"uid {uid}"


def make_directory(path: Path, account: Account) -> None:
    """Make `path` and what is missing above it: private, but root's can be passed through by the lent user."""
    missing = [directory for directory in (path, *path.parents) if not directory.exists()]
    for directory in reversed(missing):
        directory.mkdir(mode=0o700)
        if account.is_lent:
            # Whatever the umask says: we have only just made it, so no one's decision is overruled.
            directory.chmod(stat.S_IRWXU | stat.S_IXGRP | stat.S_IXOTH)

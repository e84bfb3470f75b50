"""The control socket's file: made with the right mode from its first moment, and taken away only if it is ours."""

import errno
import grp
import os
import socket
import stat
from pathlib import Path

from relayd.errors import RelaydError

# sockaddr_un.sun_path, without its final NUL.
MAX_PATH_OCTETS = 107
_BACKLOG = 64


def check_length(path: Path) -> None:
    """Raises RelaydError for a path that the kernel cannot hold."""
    length = len(os.fsencode(path))
    if length > MAX_PATH_OCTETS:
        raise RelaydError(
            f"the control socket's path has {length} bytes and a Unix socket can have {MAX_PATH_OCTETS}: {path}; "
            "name a shorter one"
        )


def listen(path: Path, *, mode: int, group: str | None) -> socket.socket:
    """A listening socket at `path`. A stale file is replaced; raises RelaydError if another server answers there."""
    check_length(path)
    _clear(path)
    listening = socket.socket(socket.AF_UNIX, socket.SOCK_STREAM)
    try:
        _bind(listening, path)
        if group is not None:
            _give_to(path, group)
        path.chmod(mode)
        listening.listen(_BACKLOG)
        listening.setblocking(False)
    except OSError as error:
        listening.close()
        raise RelaydError(f"cannot make the control socket {path}: {error.strerror}") from error
    except BaseException:
        listening.close()
        path.unlink(missing_ok=True)
        raise
    return listening


def identity(path: Path) -> tuple[int, int]:
    """What tells this file from a later one at the same path."""
    status = path.stat()
    return status.st_dev, status.st_ino


def unlink_ours(path: Path, ours: tuple[int, int]) -> None:
    """Take the file away, unless another server has put its own there."""
    try:
        if identity(path) == ours:
            path.unlink()
    except FileNotFoundError:
        return


def _clear(path: Path) -> None:
    try:
        status = path.stat()
    except FileNotFoundError:
        return
    except OSError as error:
        raise RelaydError(f"cannot use the control socket {path}: {error.strerror}") from error
    if not stat.S_ISSOCK(status.st_mode):
        raise RelaydError(f"{path} is not a socket; move it away or name another control socket")
    with socket.socket(socket.AF_UNIX, socket.SOCK_STREAM) as probe:
        probe.settimeout(2)
        try:
            probe.connect(os.fspath(path))
        except OSError as error:
            if error.errno == errno.ECONNREFUSED:
                path.unlink(missing_ok=True)
                return
            if error.errno == errno.ENOENT:
                return
            raise RelaydError(f"cannot use the control socket {path}: {error.strerror or error}") from error
    raise RelaydError(f"another relayd answers on {path}; stop it first or name another control socket")


def _bind(listening: socket.socket, path: Path) -> None:
    # Closed to everybody until its group and mode are set. The umask is the process's, so no await in between.
    umask = os.umask(0o177)
    try:
        listening.bind(os.fspath(path))
    finally:
        os.umask(umask)


def _give_to(path: Path, group: str) -> None:
    try:
        os.chown(path, -1, _group_id(group))
    except PermissionError:
        raise RelaydError(
            f"control.group: relayd may not give its socket to the group {group}, since its user is not in it; under "
            f"systemd add SupplementaryGroups={group} to the unit: systemctl edit relayd"
        ) from None


def _group_id(group: str) -> int:
    try:
        return grp.getgrnam(group).gr_gid
    except KeyError:
        raise RelaydError(f"the control socket's group {group!r} does not exist on this machine") from None

"""Who is at the other end of the Unix socket: the kernel's word, not the peer's."""

import pwd
import socket
import struct

_CREDENTIALS = struct.Struct("3i")  # struct ucred: pid, uid, gid


def actor_of(connected: socket.socket) -> str:
    """The peer as the audit names it: `alice(1000)`."""
    packed = connected.getsockopt(socket.SOL_SOCKET, socket.SO_PEERCRED, _CREDENTIALS.size)
    _, uid, _ = _CREDENTIALS.unpack(packed)
    return f"{_user_name(uid)}({uid})"


def _user_name(uid: int) -> str:
    try:
        return pwd.getpwuid(uid).pw_name
    except KeyError:
        return "unknown"

"""The listening sockets: taken from systemd where it hands them over, else bound here. Workers inherit them."""

import logging
import os
import resource
import socket
from dataclasses import dataclass
from typing import Literal

from relayd.errors import RelaydError

Mode = Literal["starttls", "implicit"]

log = logging.getLogger(__name__)

_FIRST_INHERITED = 3
# Database, upstreams, metrics, listening sockets, libraries.
_OTHER_FILES = 500
BACKLOG = 1024


@dataclass(frozen=True, slots=True)
class ListeningSocket:
    """A bound, listening socket and how TLS begins on it."""

    socket: socket.socket
    mode: Mode

    @property
    def address(self) -> str:
        """`host:port` as it is bound."""
        host, port = self.socket.getsockname()[:2]
        return f"[{host}]:{port}" if ":" in host else f"{host}:{port}"


def listen(starttls: tuple[str, ...], implicit: tuple[str, ...]) -> list[ListeningSocket]:
    """systemd's sockets if it passed any (named `submissions` for implicit TLS), else the configured addresses.

    Raises RelaydError for an address that cannot be bound.
    """
    inherited = _from_systemd()
    if inherited:
        return inherited
    modes: list[tuple[str, Mode]] = [(address, "starttls") for address in starttls]
    modes += [(address, "implicit") for address in implicit]
    bound: list[ListeningSocket] = []
    try:
        for address, mode in modes:
            bound.append(ListeningSocket(bind(address), mode))
    except RelaydError:
        for each in bound:
            each.socket.close()
        raise
    return bound


def raise_file_limit(connections: int) -> None:
    """Let this process and its workers open as many files as they may; warn if so many connections do not fit.

    Each accepted connection is one file.
    """
    soft, hard = resource.getrlimit(resource.RLIMIT_NOFILE)
    if soft != hard:
        resource.setrlimit(resource.RLIMIT_NOFILE, (hard, hard))
    if hard != resource.RLIM_INFINITY and hard < connections + _OTHER_FILES:
        log.warning(
            "submission.max_connections = %d may not fit into the limit of %d open files: lower it, or raise the limit "
            "(LimitNOFILE= in the unit)",
            connections,
            hard,
        )


def bind(address: str) -> socket.socket:
    """A TCP socket listening on `host:port` (IPv6 in brackets). Raises RelaydError saying what is in the way."""
    host, _, port = address.rpartition(":")
    family = socket.AF_INET6 if host.startswith("[") else socket.AF_INET
    listener = socket.socket(family, socket.SOCK_STREAM)
    try:
        listener.setsockopt(socket.SOL_SOCKET, socket.SO_REUSEADDR, 1)
        if family is socket.AF_INET6:
            listener.setsockopt(socket.IPPROTO_IPV6, socket.IPV6_V6ONLY, 1)
        listener.bind((host.strip("[]"), int(port)))
        listener.listen(BACKLOG)
        listener.setblocking(False)
    except OSError as error:
        listener.close()
        raise RelaydError(f"cannot listen on {address}: {_advice(error)}") from error
    return listener


def _advice(error: OSError) -> str:
    match error.errno:
        case 98:
            return "the port is taken; stop what uses it (ss -ltnp shows it) or choose another port"
        case 13:
            return "no permission; ports below 1024 need CAP_NET_BIND_SERVICE or a systemd socket unit"
        case 99:
            return "this machine has no such address"
        case _:
            return error.strerror or str(error)


def _describe(inherited: socket.socket) -> str:
    name = inherited.getsockname()
    return f"{inherited.family.name} {name!r}" if name else inherited.family.name


def _from_systemd() -> list[ListeningSocket]:
    """sd_listen_fds(3): LISTEN_PID, LISTEN_FDS, LISTEN_FDNAMES. Raises RelaydError for a socket that is not TCP."""
    if os.environ.get("LISTEN_PID") != str(os.getpid()):
        return []
    count = int(os.environ.get("LISTEN_FDS", "0"))
    names = os.environ.get("LISTEN_FDNAMES", "").split(":")
    names += [""] * (count - len(names))
    for variable in ("LISTEN_PID", "LISTEN_FDS", "LISTEN_FDNAMES"):
        os.environ.pop(variable, None)
    found = []
    for offset in range(count):
        inherited = socket.socket(fileno=_FIRST_INHERITED + offset)
        if inherited.family not in (socket.AF_INET, socket.AF_INET6) or inherited.type != socket.SOCK_STREAM:
            raise RelaydError(
                f"systemd passed a socket that is not TCP ({_describe(inherited)}): ListenStream= in relayd.socket "
                "takes addresses with a port only"
            )
        inherited.setblocking(False)
        os.set_inheritable(inherited.fileno(), False)
        mode: Mode = "implicit" if names[offset].startswith("submissions") else "starttls"
        found.append(ListeningSocket(inherited, mode))
    return found

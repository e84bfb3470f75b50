"""The other end of the control socket, for the CLI: one request, one reply, nothing to install and no event loop."""

import http.client
import json
import os
import socket
import stat
from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import Any
from urllib.parse import quote, urlencode

from relayd.errors import RelaydError

TIMEOUT_SECONDS = 60.0
_START = "Start it with `relayd dev` or `relayd serve --config FILE`, or name its socket with --socket."
_SERVICE = "If it is a service, `systemctl status relayd` says why. "
# sd_booted(3): systemd is this machine's init.
_SYSTEMD = Path("/run/systemd/system")


class ServerRefused(RelaydError):
    """The server's answer was an error; `hint` is the next step that it names, if any."""

    def __init__(self, status: int, message: str, hint: str | None) -> None:
        super().__init__(message)
        self.status = status
        self.hint = hint


@dataclass(frozen=True, slots=True)
class Reply:
    """What the server answered: as it came, and read."""

    text: str
    data: Any


class ControlClient:
    """Speaks to the relayd on the first of `sockets` that answers."""

    def __init__(self, sockets: Sequence[Path]) -> None:
        self._sockets = sockets

    def get(self, path: str, query: Mapping[str, Any] | None = None) -> Reply:
        """Values of None are left out of the query; lists are repeated. Raises RelaydError, as all of these do."""
        present = {name: value for name, value in (query or {}).items() if value is not None}
        return self._request("GET", f"{path}?{urlencode(present, doseq=True)}" if present else path, None)

    def get_octets(self, path: str) -> bytes:
        """What is not JSON, exactly as stored."""
        status, content = self._exchange("GET", path, None)
        if status != http.client.OK:
            _read(status, content.decode(errors="replace"))
        return content

    def post(self, path: str, body: Mapping[str, Any], *, timeout_seconds: float = TIMEOUT_SECONDS) -> Reply:
        """Add something, or do something."""
        return self._request("POST", path, body, timeout_seconds)

    def patch(self, path: str, body: Mapping[str, Any]) -> Reply:
        """Change what the body names."""
        return self._request("PATCH", path, body)

    def delete(self, path: str) -> Reply:
        """Remove something."""
        return self._request("DELETE", path, None)

    def _request(
        self, method: str, target: str, body: Mapping[str, Any] | None, timeout_seconds: float = TIMEOUT_SECONDS
    ) -> Reply:
        status, content = self._exchange(method, target, body, timeout_seconds)
        return _read(status, content.decode(errors="replace"))

    def _exchange(
        self, method: str, target: str, body: Mapping[str, Any] | None, timeout_seconds: float = TIMEOUT_SECONDS
    ) -> tuple[int, bytes]:
        connection = _Connection(_connect(self._sockets, timeout_seconds))
        try:
            content = None if body is None else json.dumps(body)
            connection.request(method, target, content, {"Content-Type": "application/json"} if body else {})
            response = connection.getresponse()
            answer = response.read()
        except TimeoutError:
            raise RelaydError(f"relayd gave no answer within {timeout_seconds:.0f} seconds") from None
        except (OSError, http.client.HTTPException) as error:
            raise RelaydError(
                f"relayd closed the connection without an answer ({error or type(error).__name__})"
            ) from None
        finally:
            connection.close()
        return response.status, answer


def socket_candidates(environment: Mapping[str, str] = os.environ) -> tuple[Path, ...]:
    """Where a relayd on this machine listens, unless told otherwise; RELAYD_SOCKET alone if it is set."""
    if named := environment.get("RELAYD_SOCKET"):
        return (Path(named),)
    candidates = [Path("/run/relayd/control.sock"), Path("/var/lib/relayd/control.sock")]
    if runtime := environment.get("XDG_RUNTIME_DIR"):
        candidates.append(Path(runtime, "relayd", "control.sock"))
    state = environment.get("XDG_STATE_HOME")
    directory = Path(state) if state else Path(environment.get("HOME") or "/", ".local", "state")
    candidates.append(directory / "relayd" / "control.sock")
    return tuple(candidates)


def path_of(*parts: str) -> str:
    """A path of the control API; parts may hold any character: `path_of("mailboxes", "a/b@example.com")`."""
    return "/v1/" + "/".join(quote(part, safe="") for part in parts)


class _Connection(http.client.HTTPConnection):
    def __init__(self, connected: socket.socket) -> None:
        super().__init__("relayd")
        self.sock = connected


def _connect(sockets: Sequence[Path], timeout_seconds: float) -> socket.socket:
    denied: list[Path] = []
    for path in sockets:
        candidate = socket.socket(socket.AF_UNIX, socket.SOCK_STREAM)
        candidate.settimeout(timeout_seconds)
        try:
            candidate.connect(os.fspath(path))
        except PermissionError:
            denied.append(path)
        except OSError as error:
            if "too long" in str(error):
                candidate.close()
                raise RelaydError(f"the control socket's path is too long for a Unix socket: {path}") from None
        else:
            return candidate
        candidate.close()
    if denied:
        raise RelaydError(f"may not open {denied[0]}: {_whose(denied[0])}")
    looked = ", ".join(str(path) for path in sockets)
    advice = _SERVICE + _START if _SYSTEMD.is_dir() else _START
    raise RelaydError(f"relayd is not running here (looked for {looked}). {advice}")


def _whose(path: Path) -> str:
    try:
        if path.stat().st_mode & stat.S_IWGRP:
            return f"join the group {path.group()} or become {path.owner()}"
        return f"become {path.owner()} or root"
    except (OSError, KeyError):
        return "its directory is closed to you; become root or the user that runs relayd"


def _read(status: int, text: str) -> Reply:
    try:
        data = json.loads(text)
    except ValueError:
        raise RelaydError("the answer is not relayd's; does --socket name its control socket?") from None
    if status == http.client.OK:
        return Reply(text, data)
    error = data.get("error", {}) if isinstance(data, dict) else {}
    raise ServerRefused(status, error.get("message") or f"relayd answered {status}", error.get("hint"))

"""The client's side of the control socket: where it looks and what it says when nobody is there."""

import socket
import tempfile
import threading
from pathlib import Path

import pytest

from relayd.control.client import ControlClient, default_socket_path, path_of, socket_candidates
from relayd.errors import RelaydError


@pytest.mark.parametrize(
    ("environment", "expected"),
    [
        ({"RELAYD_SOCKET": "/x/s", "XDG_RUNTIME_DIR": "/run/user/7"}, ["/x/s"]),
        (
            {"XDG_RUNTIME_DIR": "/run/user/7", "HOME": "/home/a"},
            [
                "/run/relayd/control.sock",
                "/run/user/7/relayd/control.sock",
                "/home/a/.local/state/relayd/control.sock",
            ],
        ),
        (
            {"XDG_STATE_HOME": "/s", "HOME": "/home/a"},
            ["/run/relayd/control.sock", "/s/relayd/control.sock"],
        ),
    ],
)
def test_where_a_relayd_is_looked_for(environment: dict[str, str], expected: list[str]) -> None:
    assert socket_candidates(environment) == tuple(Path(path) for path in expected)


def test_a_server_listens_where_its_users_clients_look() -> None:
    for environment in ({"XDG_RUNTIME_DIR": "/run/user/7"}, {"HOME": "/home/a"}, {"RELAYD_SOCKET": "/x"}):
        for is_root in (True, False):
            assert default_socket_path(environment, is_root=is_root) in socket_candidates(environment)
    assert default_socket_path({}, is_root=True) == Path("/run/relayd/control.sock")
    assert default_socket_path({"XDG_RUNTIME_DIR": "/r"}, is_root=False) == Path("/r/relayd/control.sock")


def test_nobody_there_is_said_with_the_places_and_the_next_step() -> None:
    with tempfile.TemporaryDirectory() as directory:
        stale = Path(directory, "stale")
        with socket.socket(socket.AF_UNIX) as left_over:
            left_over.bind(str(stale))
        with pytest.raises(RelaydError, match=f"looked for {stale}, /nowhere/s.*Start it with") as error:
            ControlClient([stale, Path("/nowhere/s")]).get("/v1/clients")
        assert "--socket" in str(error.value)


def test_a_path_that_is_too_long_is_named() -> None:
    with pytest.raises(RelaydError, match="too long"):
        ControlClient([Path("/" + "x" * 200)]).get("/v1/clients")


def test_an_answer_that_is_not_relayds() -> None:
    with tempfile.TemporaryDirectory() as directory, socket.socket(socket.AF_UNIX) as other:
        other.bind(f"{directory}/s")
        other.listen()
        _answer_once(other, b"HTTP/1.1 200 OK\r\nContent-Length: 5\r\n\r\nhello")
        with pytest.raises(RelaydError, match="not relayd's"):
            ControlClient([Path(directory, "s")]).get("/v1/clients")
        _answer_once(other, b"220 mx.example ESMTP\r\n")
        with pytest.raises(RelaydError, match="without an answer"):
            ControlClient([Path(directory, "s")]).get("/v1/clients")


def test_names_cannot_leave_their_part_of_a_path() -> None:
    assert path_of("mailboxes", "../a/b?c#d%@example.com") == "/v1/mailboxes/..%2Fa%2Fb%3Fc%23d%25%40example.com"


def _answer_once(listening: socket.socket, reply: bytes) -> None:
    def serve() -> None:
        accepted, _ = listening.accept()
        with accepted:
            accepted.recv(65536)
            accepted.sendall(reply)

    threading.Thread(target=serve, daemon=True).start()

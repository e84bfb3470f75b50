"""Servers without tact: they repeat what they were told, logins and all, in their replies. In threads of their own."""

import base64
import http.server
import json
import socketserver
import threading
from types import TracebackType
from typing import Self
from urllib.parse import parse_qsl, quote


class _Server(socketserver.ThreadingTCPServer):
    daemon_threads = True
    takes_logins = False


class _Session(socketserver.StreamRequestHandler):
    def handle(self) -> None:
        self.wfile.write(b"220 echo ESMTP\r\n")
        heard: list[str] = []
        while line := self.rfile.readline(10_000).decode(errors="replace").strip():
            verb = line[:4].upper()
            heard += [line, *_decoded(line.split()[-1])]
            if verb == "EHLO":
                self.wfile.write(b"250-echo\r\n250 AUTH PLAIN LOGIN XOAUTH2\r\n")
            elif verb == "QUIT":
                return
            elif verb == "AUTH" and _takes_logins(self.server):
                self.wfile.write(f"235 2.7.0 {' '.join(heard)}\r\n".encode())
            else:
                code, enhanced = ("535", "5.7.8") if verb == "AUTH" else ("450", "4.7.1")
                lines = f"{code}-{enhanced} {' '.join(heard)}", f"{code} {enhanced} {quote(' '.join(heard), safe='')}"
                self.wfile.write("".join(f"{line}\r\n" for line in lines).encode())


class _InThread:
    """A server in a thread of its own. Use as a context manager."""

    def __init__(self, running: socketserver.BaseServer) -> None:
        self._running = running
        self._thread = threading.Thread(target=running.serve_forever, daemon=True)

    def __enter__(self) -> Self:
        self._thread.start()
        return self

    def __exit__(
        self, kind: type[BaseException] | None, error: BaseException | None, trace: TracebackType | None
    ) -> None:
        self._running.shutdown()
        self._running.server_close()
        self._thread.join()


class EchoingServer(_InThread):
    """`takes_logins`: it takes every login and refuses MAIL instead."""

    def __init__(self, *, takes_logins: bool) -> None:
        self._server = _Server(("127.0.0.1", 0), _Session)
        self._server.takes_logins = takes_logins
        super().__init__(self._server)

    @property
    def port(self) -> int:
        return int(self._server.server_address[1])


def _takes_logins(server: socketserver.BaseServer) -> bool:
    return isinstance(server, _Server) and server.takes_logins


def _decoded(word: str) -> list[str]:
    try:
        return base64.b64decode(word, validate=True).decode().split("\0")
    except ValueError:
        return []


class _Web(http.server.ThreadingHTTPServer):
    daemon_threads = True
    token = ""
    heard: list[str]


class _WebSession(http.server.BaseHTTPRequestHandler):
    server: _Web

    def do_GET(self) -> None:
        self.do_POST()

    def do_POST(self) -> None:
        body = self.rfile.read(int(self.headers.get("Content-Length", "0"))).decode(errors="replace")
        if "form-urlencoded" not in self.headers.get("Content-Type", ""):
            body = ""  # a message, which is no login
        form = [value for _, value in parse_qsl(body)]
        self.server.heard += form
        if self.path == "/give":
            return self._say(200, {"access_token": self.server.token, "expires_in": 3600})
        login = self.headers.get("Authorization", "").encode("latin-1").decode()
        said = " ".join((login, quote(login, safe=""), *form, body))
        self._say(403, {"error": "unauthorized_client", "error_description": said, "errors": [{"message": said}]})

    def _say(self, status: int, content: object) -> None:
        octets = json.dumps(content).encode()
        self.send_response(status)
        self.send_header("Content-Length", str(len(octets)))
        self.end_headers()
        self.wfile.write(octets)

    def log_message(self, format: str, *args: object) -> None:
        pass


class EchoingWeb(_InThread):
    """A token server and an API. `/give` answers with a token; all else refuses, and repeats what it was told.

    `heard` are the values of every form that came.
    """

    def __init__(self, token: str) -> None:
        self._server = _Web(("127.0.0.1", 0), _WebSession)
        self._server.token = token
        self.heard: list[str] = []
        self._server.heard = self.heard
        super().__init__(self._server)

    @property
    def url(self) -> str:
        return f"http://127.0.0.1:{self._server.server_address[1]}"

"""An SMTP server without tact: it repeats what it was told, logins and all, in its replies. In a thread of its own."""

import base64
import socketserver
import threading
from types import TracebackType
from typing import Self
from urllib.parse import quote


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
                self.wfile.write(b"250-echo\r\n250 AUTH PLAIN LOGIN\r\n")
            elif verb == "QUIT":
                return
            elif verb == "AUTH" and _takes_logins(self.server):
                self.wfile.write(f"235 2.7.0 {' '.join(heard)}\r\n".encode())
            else:
                code, enhanced = ("535", "5.7.8") if verb == "AUTH" else ("450", "4.7.1")
                lines = f"{code}-{enhanced} {' '.join(heard)}", f"{code} {enhanced} {quote(' '.join(heard), safe='')}"
                self.wfile.write("".join(f"{line}\r\n" for line in lines).encode())


class EchoingServer:
    """`takes_logins`: it takes every login and refuses MAIL instead."""

    def __init__(self, *, takes_logins: bool) -> None:
        self._server = _Server(("127.0.0.1", 0), _Session)
        self._server.takes_logins = takes_logins
        self._thread = threading.Thread(target=self._server.serve_forever, daemon=True)

    @property
    def port(self) -> int:
        return int(self._server.server_address[1])

    def __enter__(self) -> Self:
        self._thread.start()
        return self

    def __exit__(
        self, kind: type[BaseException] | None, error: BaseException | None, trace: TracebackType | None
    ) -> None:
        self._server.shutdown()
        self._server.server_close()
        self._thread.join()


def _takes_logins(server: socketserver.BaseServer) -> bool:
    return isinstance(server, _Server) and server.takes_logins


def _decoded(word: str) -> list[str]:
    try:
        return base64.b64decode(word, validate=True).decode().split("\0")
    except ValueError:
        return []

"""`relayd upstream login` and `relayd upstream set-service-account`: how an upstream comes to its grant."""

import stat
import sys
import time
import webbrowser
from http.server import BaseHTTPRequestHandler, HTTPServer
from pathlib import Path
from typing import Annotated
from urllib.parse import parse_qs, urlsplit

from cyclopts import Parameter

from relayd.cli import output
from relayd.cli.parameters import AsJson, Control, given
from relayd.cli.upstream_options import File, read_text
from relayd.control.client import path_of
from relayd.errors import Refusal, RelaydError

_NOWHERE = "http://127.0.0.1:1/"
_DONE = "relayd has what it needs; this window may be closed."
_BAD = "This redirect is not the one that relayd waits for. Nothing was stored."


def login(
    name: str,
    /,
    *,
    paste: Annotated[bool, Parameter(negative="")] = False,
    scope: list[str] | None = None,
    wait_seconds: int = 300,
    as_json: AsJson = False,
    control: Control,
) -> None:
    """Log an upstream in as a user: a browser asks the user, and relayd keeps what the user allows.

    Parameters
    ----------
    paste
        For a machine without a browser: open the address elsewhere, paste where that browser was sent to.
    scope
        What to ask for, where the provider is not Google; repeat it for several.
    wait_seconds
        How long to wait for the browser.
    """
    if paste:
        begun = control.post(path_of("upstreams", name, "login"), given({"redirect_uri": _NOWHERE, "scopes": scope}))
        output.hint(f"open this address in a browser, and log in:\n\n{begun.data['authorization_url']}\n")
        output.hint("the browser then fails to open a page of 127.0.0.1: paste its address, or the code in it:")
        answer = _pasted(sys.stdin.readline().strip(), begun.data["state"])
    else:
        with _Waiting(wait_seconds) as waiting:
            said = given({"redirect_uri": waiting.address, "scopes": scope})
            begun = control.post(path_of("upstreams", name, "login"), said)
            output.hint(
                f"open this address in a browser on this machine, and log in:\n\n{begun.data['authorization_url']}\n"
            )
            if sys.stderr.isatty():
                webbrowser.open(begun.data["authorization_url"])
            answer = waiting.redirect(begun.data["state"])
    reply = control.post(path_of("upstreams", name, "login", "finish"), answer)
    step = f"next, try it: relayd doctor google {name}"
    output.done(reply, f"upstream {name} is logged in as {reply.data['account']}", as_json=as_json, next_step=step)


def set_service_account(name: str, /, *, file: File, as_json: AsJson = False, control: Control) -> None:
    """Log an upstream in with a service account's key, which speaks for all mailboxes of a domain.

    Parameters
    ----------
    file
        The key file that Google made, or - for standard input.
    """
    if file != "-":
        _check_mode(Path(file))
    text = read_text(file, "key")
    if not text.strip():
        raise RelaydError(f"there is no key in {file}")
    reply = control.post(path_of("upstreams", name, "service-account"), {"key": text})
    data = reply.data
    client = data["client_id"] or f"of {data['account']}"
    step = (
        "next, in Google's Admin console (admin.google.com): Security, Access and data control, API controls, "
        f"Domain-wide delegation, Add new: client ID {client}, scopes {','.join(data['scopes'])}\n"
        f"then try it: relayd doctor google {name}; and delete the key file: relayd keeps the key sealed"
    )
    output.done(reply, f"upstream {name} uses service account {data['account']}", as_json=as_json, next_step=step)


def _check_mode(path: Path) -> None:
    try:
        mode = path.stat().st_mode
    except OSError:
        return  # reading it says what is wrong
    if stat.S_ISREG(mode) and mode & (stat.S_IROTH | stat.S_IWOTH | stat.S_IWGRP):
        who = "everybody may read" if mode & stat.S_IROTH else "others may change"
        raise Refusal(f"{path} holds a key, and {who} it; nothing was done", hint=f"chmod 600 {path}")


def _pasted(text: str, state: str) -> dict[str, str]:
    if not text:
        raise RelaydError("nothing was pasted; nothing was stored")
    if "://" not in text and "?" not in text:
        # The code alone: PKCE binds it to this login, without a state.
        return {"state": state, "code": text}
    return _answer(parse_qs(urlsplit(text).query), state)


def _answer(query: dict[str, list[str]], state: str) -> dict[str, str]:
    """What the daemon is told. Raises RelaydError for a redirect of another login."""
    if query.get("state") != [state]:
        raise Refusal("the redirect's state is not this login's; nothing was stored", hint="begin again")
    if "error" in query:
        return {"state": state, "error": query["error"][0][:200]}
    if len(query.get("code", ())) != 1:
        raise Refusal("the redirect has no code; nothing was stored", hint="begin again")
    return {"state": state, "code": query["code"][0]}


class _Waiting:
    """A server on this machine, for one redirect."""

    def __init__(self, seconds: float) -> None:
        self._query: dict[str, list[str]] | None = None
        self._state = ""
        waiting = self

        class Handler(BaseHTTPRequestHandler):
            timeout = 10.0

            def do_GET(self) -> None:
                waiting.take(self)

            def log_message(self, format: str, *args: object) -> None:
                """Its lines would show the code."""

        self._server = HTTPServer(("127.0.0.1", 0), Handler)
        self._seconds = seconds

    def __enter__(self) -> "_Waiting":
        return self

    def __exit__(self, *_: object) -> None:
        self._server.server_close()

    @property
    def address(self) -> str:
        """Where the browser is sent."""
        return f"http://127.0.0.1:{self._server.server_port}/"

    def redirect(self, state: str) -> dict[str, str]:
        """What the first redirect says. Raises RelaydError if none comes, or one of another login."""
        self._state = state
        ends_at = time.monotonic() + self._seconds
        while self._query is None:
            left = ends_at - time.monotonic()
            if left <= 0:
                raise Refusal(
                    f"no browser came back within {self._seconds:.0f} s; nothing was stored", hint="begin again"
                )
            self._server.timeout = left
            self._server.handle_request()
        return _answer(self._query, state)

    def take(self, request: BaseHTTPRequestHandler) -> None:
        """Browsers ask for more than they are sent to: only what has a state is the redirect."""
        query = parse_qs(urlsplit(request.path).query)
        if "state" not in query:
            return request.send_error(404)
        self._query = query
        is_ours = query["state"] == [self._state] and "code" in query
        text = (_DONE if is_ours else _BAD).encode()
        request.send_response(200 if is_ours else 400)
        request.send_header("Content-Type", "text/plain; charset=utf-8")
        request.send_header("Content-Length", str(len(text)))
        request.end_headers()
        request.wfile.write(text)

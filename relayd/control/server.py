"""The control server: HTTP and JSON on a Unix socket. Who may open the socket may do everything that it offers."""

from collections.abc import Awaitable, Callable, Sequence
from functools import cache
from pathlib import Path
from typing import Any

from aiohttp import web
from pydantic import BaseModel

from relayd.control import openapi, unix_socket
from relayd.control.errors import answering_errors
from relayd.control.http_server import HttpServer
from relayd.control.parsing import parse
from relayd.control.peer import actor_of
from relayd.control.route import Context, House, Octets, Route
from relayd.control.routes import ROUTES
from relayd.errors import BeyondTier
from relayd.rules.control_events import TierRefused
from relayd.store import operation_audit

MAX_BODY_OCTETS = 1 << 20
_DRAIN_SECONDS = 5.0


class ControlServer:
    """Serves `routes` in the name of the house, from start() to close()."""

    def __init__(
        self,
        house: House,
        *,
        socket_path: Path,
        mode: int = 0o660,
        group: str | None = None,
        routes: Sequence[Route] = ROUTES,
    ) -> None:
        self._socket_path = socket_path
        self._mode = mode
        self._group = group
        self._house = house
        self._server = HttpServer(
            _application(lambda: self._house, routes, house.version), shutdown_seconds=_DRAIN_SECONDS
        )
        self._ours: tuple[int, int] | None = None

    async def start(self) -> None:
        """Listen. Raises RelaydError when the socket cannot be made or another relayd answers on it."""
        listening = unix_socket.listen(self._socket_path, mode=self._mode, group=self._group)
        self._ours = unix_socket.identity(self._socket_path)
        await self._server.listen(listening)

    def exchange(self, house: House) -> None:
        """Serve the requests to come in the name of another house: after a reload."""
        self._house = house

    async def close(self) -> None:
        """Let requests under way end, for a few seconds, and take the socket's file away. Harmless when not started."""
        if self._ours is not None:
            # First, so that nobody comes to a door that is being closed.
            unix_socket.unlink_ours(self._socket_path, self._ours)
            self._ours = None
        await self._server.close()


def _application(house: Callable[[], House], routes: Sequence[Route], version: str) -> web.Application:
    application = web.Application(client_max_size=MAX_BODY_OCTETS, middlewares=[answering_errors])
    for route in routes:
        application.router.add_route(route.method, _any_name(route.path), _aiohttp_handler(house, route))

    @cache
    def document() -> dict[str, Any]:
        # A tenth of a second that few ask for.
        return openapi.document(routes, version=version)

    async def describe(request: web.Request) -> web.Response:
        return web.json_response(document())

    application.router.add_get(openapi.PATH, describe)
    return application


def _any_name(path: str) -> str:
    # aiohttp's own pattern leaves out braces, which a local part may hold.
    return path.replace("}", ":[^/]+}")


def _aiohttp_handler(
    house: Callable[[], House], route: Route
) -> Callable[[web.Request], Awaitable[web.StreamResponse]]:
    async def handle(http_request: web.Request) -> web.Response:
        if http_request.transport is None:
            raise web.HTTPBadRequest  # it has hung up already, so nobody reads this
        context = Context(house(), actor_of(http_request.transport.get_extra_info("socket")))
        request = await parse(route, http_request)
        try:
            return _response(await route.handler(context, request))
        except BeyondTier as refusal:
            await _record(context, route, refusal)
            raise

    return handle


async def _record(context: Context, route: Route, refusal: BeyondTier) -> None:
    """For the log, a metric and, now that the change was taken back, the audit trail."""
    noun = route.path.split("/")[2]
    context.house.emit(TierRefused(context.actor, noun, str(refusal)))
    async with context.writing() as connection:
        await operation_audit.record(connection, noun, "refused", {"reason": str(refusal)})


def _response(answer: BaseModel) -> web.Response:
    if isinstance(answer, Octets):
        return web.Response(body=answer.content, content_type="application/octet-stream")
    return web.Response(text=answer.model_dump_json(), content_type="application/json")

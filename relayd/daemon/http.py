"""The HTTP endpoint for Prometheus and load balancers: /metrics, /healthz, /readyz, and nothing else. Read only."""

import socket
from collections.abc import Awaitable, Callable, Sequence
from dataclasses import dataclass

from aiohttp import web

from relayd.control.http_server import HttpServer
from relayd.metrics import CONTENT_TYPE, MetricsPage

_CLOSE_SECONDS = 2.0


@dataclass(frozen=True, slots=True)
class Readiness:
    """Whether mail can be taken now. `reason` is shown to anyone who asks: no internals."""

    is_ready: bool
    reason: str = ""


class HttpEndpoint:
    """Serves on sockets that are bound and listen already; owns them from `start` on."""

    def __init__(
        self,
        *,
        sockets: Sequence[socket.socket],
        metrics_page: MetricsPage,
        readiness: Callable[[], Awaitable[Readiness]],
    ) -> None:
        self._sockets = sockets
        self._metrics_page = metrics_page
        self._readiness = readiness
        self._server = HttpServer(self._app(), shutdown_seconds=_CLOSE_SECONDS)

    async def start(self) -> None:
        """Serve."""
        for each in self._sockets:
            await self._server.listen(each)

    async def close(self) -> None:
        """Stop, closing the sockets."""
        await self._server.close()

    def _app(self) -> web.Application:
        app = web.Application()
        # GET routes answer HEAD as well.
        app.router.add_get("/metrics", self._metrics)
        app.router.add_get("/healthz", self._health)
        app.router.add_get("/readyz", self._ready)
        app.on_response_prepare.append(_set_headers)
        return app

    async def _metrics(self, _: web.Request) -> web.Response:
        return web.Response(body=await self._metrics_page.render(), headers={"Content-Type": CONTENT_TYPE})

    async def _health(self, _: web.Request) -> web.Response:
        return web.json_response({"status": "alive"})

    async def _ready(self, _: web.Request) -> web.Response:
        readiness = await self._readiness()
        if readiness.is_ready:
            return web.json_response({"status": "ready"})
        return web.json_response({"status": "not ready", "reason": readiness.reason}, status=503)


async def _set_headers(_: web.Request, response: web.StreamResponse) -> None:
    response.headers["Server"] = "relayd"
    response.headers["Cache-Control"] = "no-store"

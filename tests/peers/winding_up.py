"""The end of a server whose event loop ends with it: nothing may be left half open."""

import asyncio

from aiohttp import web

_TURNS = 5
"""From a connection that was taken to its first line of code, and from a close to the end of its transport."""


async def wind_up(server: asyncio.Server) -> None:
    """Close `server`, end every other task of the loop, and let the loop finish what it closed.

    A task that is cancelled before its first line closes nothing, and a connection that is being accepted while its
    server closes is left open: nothing more is accepted first, and what was accepted begins before it ends.
    """
    for listening in server.sockets:
        asyncio.get_running_loop().remove_reader(listening.fileno())
    await _turn()
    server.close()
    while others := asyncio.all_tasks() - {asyncio.current_task()}:
        for task in others:
            task.cancel()
        await asyncio.wait(others)
    await _turn()


async def hang_up(runner: web.AppRunner) -> None:
    """End a web server and its connections, those too whose client keeps them for later.

    TLS would say goodbye first and wait for the answer, for longer than the loop may live.
    """
    for connection in runner.server.connections if runner.server else ():
        if connection.transport is not None:
            connection.transport.abort()
    await runner.cleanup()
    await _turn()


async def _turn() -> None:
    for _ in range(_TURNS):
        await asyncio.sleep(0)

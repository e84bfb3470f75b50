"""What DNS says of a list or a route, asked as soon as it is made: upkeep asks again later."""

import asyncio
from contextlib import suppress
from datetime import timedelta
from uuid import UUID

from relayd.control.route import Context
from relayd.store import ways
from relayd.upkeep.check_alignments import check_alignments

# Nobody waits longer for a command: the rest is for upkeep.
SECONDS = 10.0


async def check_mailbox(context: Context, mailbox_id: UUID) -> list[str]:
    """Of a mailbox's list, committed before. Returns why upstreams could not take over, each in a sentence."""
    with suppress(TimeoutError):
        async with asyncio.timeout(SECONDS):
            await check_alignments(
                context.house.database, context.house.resolver, mailbox_id=mailbox_id, older_than=timedelta()
            )
    async with context.reading() as connection:
        return await ways.obstacles(connection, mailbox_id)


async def check_route(context: Context, route_id: UUID) -> list[str]:
    """Of a route, committed before. Returns why upstreams could not take over, each in a sentence."""
    with suppress(TimeoutError):
        async with asyncio.timeout(SECONDS):
            await check_alignments(
                context.house.database, context.house.resolver, route_id=route_id, older_than=timedelta()
            )
    async with context.reading() as connection:
        return await ways.route_obstacles(connection, route_id)

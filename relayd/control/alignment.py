"""What DNS says of a list or a route, asked as soon as it is made: upkeep asks again later."""

import asyncio
from contextlib import suppress
from datetime import timedelta
from uuid import UUID

from relayd.control.route import Context
from relayd.upkeep.check_alignments import check_alignments

# Nobody waits longer for a command: the rest is for upkeep.
SECONDS = 10.0


async def check_mailbox(context: Context, mailbox_id: UUID) -> None:
    """Of a mailbox's list, committed before."""
    with suppress(TimeoutError):
        async with asyncio.timeout(SECONDS):
            await check_alignments(
                context.house.database, context.house.resolver, mailbox_id=mailbox_id, older_than=timedelta()
            )


async def check_route(context: Context, route_id: UUID) -> None:
    """Of a route, committed before."""
    with suppress(TimeoutError):
        async with asyncio.timeout(SECONDS):
            await check_alignments(
                context.house.database, context.house.resolver, route_id=route_id, older_than=timedelta()
            )

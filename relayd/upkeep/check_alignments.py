"""Ask DNS whether upstreams may take over mail of a domain. What DNS does not answer stays as it was."""

import asyncio
from datetime import timedelta
from uuid import UUID

from relayd.dns.resolver import DnsUnavailable, Resolver
from relayd.rules.alignment import align
from relayd.store import alignments, steering
from relayd.store.alignments import Pair
from relayd.store.pool import Database

AGE = timedelta(hours=1)
AT_ONCE = 20
LONGEST_SECONDS = 8.0


async def check_alignments(
    database: Database,
    resolver: Resolver,
    *,
    mailbox_id: UUID | None = None,
    route_id: UUID | None = None,
    older_than: timedelta = AGE,
) -> None:
    """The pairs of one mailbox's list, of one route, or of all that are due; lanes follow. Safe to be cut off."""
    async with database.connection() as connection:
        pairs = await alignments.due(
            connection, older_than=older_than, limit=AT_ONCE, mailbox_id=mailbox_id, route_id=route_id
        )
    findings = await asyncio.gather(*(_find(resolver, pair) for pair in pairs))
    for pair, (is_aligned, why) in zip(pairs, findings, strict=True):
        async with database.connection() as connection:
            await alignments.put(connection, pair, is_aligned, why)
    for upstream_id in {pair.upstream_id for pair in pairs}:
        await steering.steer(database, upstream_id)


async def _find(resolver: Resolver, pair: Pair) -> tuple[bool | None, str]:
    try:
        # The other chores wait meanwhile.
        async with asyncio.timeout(LONGEST_SECONDS):
            finding = await resolver.follow(align(pair.sending))
    except TimeoutError:
        return None, f"DNS does not answer in {LONGEST_SECONDS:.0f} s"
    except DnsUnavailable as error:
        return None, str(error)
    return finding.is_aligned, finding.why

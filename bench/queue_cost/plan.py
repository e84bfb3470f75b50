"""What a claim reads: rows and buffers of its plan, node by node, from EXPLAIN (ANALYZE, BUFFERS)."""

import json
from collections.abc import Iterator, Mapping, Sequence
from typing import Any
from uuid import UUID

from bench.queue_cost import product
from relayd.daemon.storage import HOT_PATH
from relayd.store.connection import Connection


async def of_claim(
    connection: Connection, upstream_id: UUID, senders: Sequence[Mapping[str, Any]], *, batch: int
) -> dict[str, dict[str, Any]]:
    """Each statement of a claim: what it read. Nothing of it is kept."""
    found = {}
    lane_ids = [sender["lane_id"] for sender in senders[:batch]]
    for step, (statement, arguments) in product.claim_statements(upstream_id, lane_ids, batch=batch).items():
        transaction = connection.transaction()
        await transaction.start()
        try:
            for name, value in HOT_PATH.items():
                await connection.execute(f"SET LOCAL {name} = {value}")
            explained = await connection.fetchval(f"EXPLAIN (ANALYZE, BUFFERS, FORMAT JSON) {statement}", *arguments)
        finally:
            await transaction.rollback()
        found[step] = summed(json.loads(explained) if isinstance(explained, str) else explained)
    return found


def summed(explained: Sequence[Mapping[str, Any]]) -> dict[str, Any]:
    """Totals of a plan, and its scans: rows read (those that a filter took out too), buffers touched."""
    top = explained[0]["Plan"]
    scans = [
        {
            "node": node["Node Type"],
            "on": node.get("Index Name") or node.get("Relation Name", ""),
            "loops": node["Actual Loops"],
            "rows": round((node["Actual Rows"] + node.get("Rows Removed by Filter", 0)) * node["Actual Loops"]),
            "buffers": _buffers(node),
        }
        for node in nodes(top)
        if "Relation Name" in node and "Scan" in node["Node Type"]
    ]
    return {
        "rows_read": sum(scan["rows"] for scan in scans),
        "buffers": _buffers(top),
        "milliseconds": explained[0]["Execution Time"],
        "scans": scans,
    }


def nodes(node: Mapping[str, Any]) -> Iterator[Mapping[str, Any]]:
    """The node and all below it."""
    yield node
    for child in node.get("Plans", ()):
        yield from nodes(child)


def _buffers(node: Mapping[str, Any]) -> int:
    return int(node.get("Shared Hit Blocks", 0)) + int(node.get("Shared Read Blocks", 0))

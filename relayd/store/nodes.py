"""The nodes that share this database: which of them live, and which sealing keys each one has.

A node lives while it holds the lock of its name. One that holds a lock and has no row is of a version without rows.
"""

from collections.abc import Sequence
from dataclasses import dataclass

from relayd.store import locks
from relayd.store.connection import Connection

APPLICATION = "relayd supervisor"  # how the connections that hold nodes' names call themselves


@dataclass(frozen=True, slots=True)
class NodeRecord:
    """A living node. Keys are named by their ids."""

    name: str
    sealing_key: str
    opening_keys: tuple[str, ...]


# Keeps a rotation from beginning until this transaction has ended: the rotation then knows of this node, or this node
# of the rotation. Index: relayd_state_pkey.
LOCK_STATE = "SELECT FROM relayd_state FOR SHARE"

# Index: relayd_nodes_name_key.
TELL = """
INSERT INTO relayd_nodes (name, sealing_key, opening_keys) VALUES ($1, $2, $3)
ON CONFLICT (name) DO UPDATE SET sealing_key = EXCLUDED.sealing_key, opening_keys = EXCLUDED.opening_keys
"""

# Nodes with names made up by a machine come and go. A handful of rows, so no index.
FORGET = "DELETE FROM relayd_nodes WHERE updated_at < relayd_now() - interval '30 days' AND NOT name = ANY($1::text[])"

# A handful of rows, so no index.
LIST = "SELECT name, sealing_key, opening_keys FROM relayd_nodes ORDER BY name"


async def tell(connection: Connection, name: str, keys: Sequence[str]) -> None:
    """Say which keys a node has, the one that it seals with first. Call inside a transaction."""
    await connection.execute(LOCK_STATE)
    await connection.execute(TELL, name, keys[0], list(keys))
    living_names = [each.name for each in (await living(connection))[0]]
    await connection.execute(FORGET, [*living_names, name])


async def living(connection: Connection) -> tuple[list[NodeRecord], int]:
    """The nodes that live, by name, and how many others do of which nothing is known."""
    records = await _all(connection)
    held = await locks.held_by_anybody(connection, application=APPLICATION)
    alive = {locks.node_lock(record.name): record for record in records if locks.node_lock(record.name) in held}
    return list(alive.values()), sum(is_a_node for lock, is_a_node in held.items() if lock not in alive)


async def gone(connection: Connection) -> list[str]:
    """The names of nodes that have lived and do not now; one that has just lost its connection may be among them."""
    records = await _all(connection)
    held = await locks.held_by_anybody(connection, application=APPLICATION)
    return [record.name for record in records if locks.node_lock(record.name) not in held]


async def _all(connection: Connection) -> list[NodeRecord]:
    rows = await connection.fetch(LIST)
    return [NodeRecord(row["name"], row["sealing_key"], tuple(row["opening_keys"])) for row in rows]

"""Audit what an operator did that is no change of configuration, so that no trigger sees it."""

from collections.abc import Mapping
from typing import Any

from relayd.store.connection import Connection

# Who: `relayd.actor` of this transaction.
RECORD = """
INSERT INTO audit_logs (actor, action, table_name, row_name, after)
VALUES (relayd_actor(), 'operate', $1, $2, $3::jsonb)
"""


async def record(connection: Connection, table: str, deed: str, details: Mapping[str, Any]) -> None:
    """One row of action 'operate'; `deed` is what was done, in the words of the command."""
    await connection.execute(RECORD, table, deed, dict(details))

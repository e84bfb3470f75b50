"""How large the hot tables and their indexes are, how many of their rows are dead, how many updates stayed HOT."""

from typing import Any

from relayd.store.connection import Connection

HOT_TABLES = ("email_queue", "messages", "message_bodies", "email_delivery_logs", "mailbox_lanes", "email_mailboxes")

# TOAST counts as its table's. Pages are counted by their files, not by statistics.
TABLES = """
SELECT c.relname AS name, pg_table_size(c.oid) AS octets, s.n_live_tup AS live, s.n_dead_tup AS dead,
       s.n_tup_upd AS updates, s.n_tup_hot_upd AS hot_updates, s.autovacuum_count AS autovacuums
  FROM pg_class c JOIN pg_stat_user_tables s ON s.relid = c.oid WHERE c.relname = ANY($1::text[]) ORDER BY 1
"""
INDEXES = """
SELECT s.indexrelname AS name, s.relname AS on_table, pg_relation_size(s.indexrelid) AS octets, s.idx_scan AS scans,
       i.indisunique AS is_unique
  FROM pg_stat_user_indexes s JOIN pg_index i ON i.indexrelid = s.indexrelid ORDER BY s.relname, s.indexrelname
"""


async def sample(connection: Connection) -> dict[str, Any]:
    """As of now; row counts are as fresh as Postgres keeps them."""
    tables = [dict(row) for row in await connection.fetch(TABLES, list(HOT_TABLES))]
    indexes = [dict(row) for row in await connection.fetch(INDEXES)]
    return {
        "tables": {table.pop("name"): table for table in tables},
        "indexes": {index.pop("name"): index for index in indexes},
    }

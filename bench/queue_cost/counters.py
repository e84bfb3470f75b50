"""What Postgres counted while a trial ran: log written, whole pages in it, blocks. No noise of the machine in it."""

from relayd.store.connection import Connection

# The log is the cluster's, the blocks this database's. Workers flush their counts before they report.
COUNTERS = """
SELECT pg_wal_lsn_diff(pg_current_wal_insert_lsn(), '0/0')::float8 AS wal_octets,
       (SELECT wal_fpi FROM pg_stat_wal)::float8 AS wal_full_pages,
       blks_read::float8 AS blocks_read, (blks_read + blks_hit)::float8 AS blocks_touched
  FROM pg_stat_database WHERE datname = current_database()
"""
FLUSH = "SELECT pg_stat_force_next_flush()"


async def read(connection: Connection) -> dict[str, float]:
    """Since the cluster was made."""
    row = await connection.fetchrow(COUNTERS)
    assert row is not None
    return dict(row)


def per_entry(before: dict[str, float], after: dict[str, float], entries: int) -> dict[str, float]:
    """What one entry cost between the two."""
    return {name: (after[name] - before[name]) / entries if entries else 0.0 for name in before}

"""The audit trail, as the triggers wrote it: who changed what. Sealed columns come masked."""

from dataclasses import dataclass
from datetime import datetime
from typing import Any
from uuid import UUID

from relayd.store.connection import Connection


@dataclass(frozen=True, slots=True)
class AuditRecord:
    """One change of one row. `before` is None for an insert, `after` for a delete."""

    id: UUID
    created_at: datetime
    actor: str
    action: str
    table_name: str
    row_id: UUID | None
    row_name: str | None
    before: dict[str, Any] | None
    after: dict[str, Any] | None


# The newest first; NULL: any. $3 matches the actor with or without its uid. Index: audit_logs_pkey, read backwards.
LIST = """
SELECT id, created_at, actor, action, table_name, row_id, row_name, before, after FROM audit_logs
 WHERE ($1::text IS NULL OR table_name = $1) AND ($2::text IS NULL OR row_name = $2)
   AND ($3::text IS NULL OR actor = $3 OR split_part(actor, '(', 1) = $3)
   AND ($4::timestamptz IS NULL OR created_at >= $4)
 ORDER BY id DESC LIMIT $5
"""


async def newest(
    connection: Connection,
    *,
    table_name: str | None,
    row_name: str | None,
    actor: str | None,
    since: datetime | None,
    limit: int,
) -> list[AuditRecord]:
    """The newest changes first, narrowed by what is given."""
    rows = await connection.fetch(LIST, table_name, row_name, actor, since, limit)
    return [AuditRecord(**dict(row)) for row in rows]

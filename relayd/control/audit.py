"""The handler for the audit trail."""

from datetime import datetime
from typing import Annotated, Any
from uuid import UUID

from pydantic import AwareDatetime, Field

from relayd.control.route import Context, Request, Route, View
from relayd.control.values import Key
from relayd.store import audit
from relayd.store.audit import AuditRecord

# An operator thinks in the command line's nouns.
_TABLES = {
    "client": "clients",
    "upstream": "email_configurations",
    "domain": "email_domains",
    "mailbox": "email_mailboxes",
    "credential": "smtp_credentials",
    "key": "dkim_keys",
    "quota": "google_workspace_quota",
    "pool": "mailbox_pools",
    "suppression": "suppressions",
    "inbox": "mailbox_inboxes",
    "route": "mail_routes",
    "breaker": "upstream_breakers",
}


class ListAudit(Request):
    """Narrowed by what is given. `table`: a table or a noun. `actor`: with or without its uid."""

    table: Key | None = None
    row: Key | None = None
    actor: Key | None = None
    since: AwareDatetime | None = None
    limit: Annotated[int, Field(ge=1, le=1000)] = 50


class ChangeView(View):
    """A column that changed; sealed ones are masked."""

    column: str
    before: Any
    after: Any


class AuditView(View):
    """One change of one row: all of its columns for a new or deleted row, else those that differ."""

    id: UUID
    created_at: datetime
    actor: str
    action: str
    table: str
    row_id: UUID | None
    row: str | None
    changes: list[ChangeView]


class AuditList(View):
    """The newest first."""

    items: list[AuditView]


async def list_audit(context: Context, request: ListAudit) -> AuditList:
    """Who changed what."""
    table = _TABLES.get(request.table, request.table) if request.table else None
    async with context.reading() as connection:
        found = await audit.newest(
            connection,
            table_name=table,
            row_name=request.row,
            actor=request.actor,
            since=request.since,
            limit=request.limit,
        )
    return AuditList(items=[_view(record) for record in found])


def _view(record: AuditRecord) -> AuditView:
    before, after = record.before or {}, record.after or {}
    changed = [name for name in {**before, **after} if before.get(name) != after.get(name)]
    return AuditView(
        id=record.id,
        created_at=record.created_at,
        actor=record.actor,
        action=record.action,
        table=record.table_name,
        row_id=record.row_id,
        row=record.row_name,
        changes=[ChangeView(column=name, before=before.get(name), after=after.get(name)) for name in changed],
    )


ROUTES = (Route("GET", "/v1/audit", list_audit, "Who changed what", ListAudit, AuditList),)

"""Handlers for what came back: bounces, complaints, answers, and what they were taken for."""

from datetime import datetime
from typing import Annotated
from uuid import UUID

from pydantic import Field

from relayd.control.route import Context, Octets, Request, Route, View
from relayd.control.values import AnyId, Key
from relayd.errors import NotFound, Refusal
from relayd.rules.report_events import ReportKind, ReportStatus
from relayd.store import clients, inbound_reports
from relayd.store.connection import Connection
from relayd.store.inbound_reports import ReportRecord


class ListReports(Request):
    """Narrowed by what is given. `about`: a queue id or an entry's id."""

    client: Key | None = None
    status: ReportStatus | None = None
    kind: ReportKind | None = None
    about: AnyId | None = None
    limit: Annotated[int, Field(ge=1, le=1000)] = 50


class NamedReport(Request):
    """A report by its id."""

    id: AnyId


class ReportView(View):
    """A report. `queue_id` and `entry_id`: what it speaks of, where that was found."""

    id: UUID
    client: str
    source: str
    mailbox: str | None
    forward_path: str | None
    reverse_path: str | None
    peer: str | None
    size_octets: int
    status: str
    kind: str | None
    detail: str | None
    error: str | None
    queue_id: UUID | None
    entry_id: UUID | None
    received_at: datetime
    settled_at: datetime | None


class ReportList(View):
    """The newest first."""

    items: list[ReportView]


async def list_reports(context: Context, request: ListReports) -> ReportList:
    """What came, and what it was taken for."""
    async with context.reading() as connection:
        found = await inbound_reports.found(
            connection,
            client_id=(await clients.find(connection, request.client)).id if request.client else None,
            status=request.status,
            kind=request.kind,
            about=request.about,
            most=request.limit,
        )
    return ReportList.model_validate({"items": found})


async def show_report(context: Context, request: NamedReport) -> ReportView:
    """One of them."""
    async with context.reading() as connection:
        return ReportView.model_validate(await _find(connection, request.id))


async def report_content(context: Context, request: NamedReport) -> Octets:
    """As it came, byte for byte."""
    async with context.reading() as connection:
        await _find(connection, request.id)
        return Octets(content=await inbound_reports.content_of(connection, request.id) or b"")


async def retry_report(context: Context, request: NamedReport) -> ReportView:
    """Have one read again: after an upgrade that reads more, or once the message that it speaks of is known."""
    async with context.writing() as connection:
        report = await _find(connection, request.id)
        if report.status == ReportStatus.MATCHED:
            raise Refusal(
                "this report has been settled with its message already", hint=f"relayd report show {report.id}"
            )
        await inbound_reports.retry(connection, report.id)
        return ReportView.model_validate(await _find(connection, request.id))


async def _find(connection: Connection, report_id: UUID) -> ReportRecord:
    found = await inbound_reports.found(connection, report_id=report_id, most=1)
    if not found:
        raise NotFound(f"there is no report {report_id}", hint="relayd report list shows the newest")
    return found[0]


ROUTES = (
    Route("GET", "/v1/reports", list_reports, "List what came back", ListReports, ReportList),
    Route("GET", "/v1/reports/{id}", show_report, "Show a report", NamedReport, ReportView),
    Route("GET", "/v1/reports/{id}/content", report_content, "A report as it came", NamedReport, Octets),
    Route("POST", "/v1/reports/{id}/retry", retry_report, "Have a report read again", NamedReport, ReportView),
)

"""Handlers for the inboxes of mailboxes: where bounces and answers are read."""

from collections.abc import Set
from datetime import datetime
from typing import Annotated, Any, Literal

from pydantic import Field

from relayd.control.route import Context, Removed, Request, Route, View, changes
from relayd.control.upstream_options import Password, ServerPath
from relayd.control.values import Key, Line
from relayd.errors import BadValue
from relayd.store import inboxes, mailboxes
from relayd.store.inboxes import InboxRecord, seal_row

_PORTS = {"implicit": 993, "starttls": 143}
_ASCII = Field(min_length=1, max_length=255, pattern=r"^[ -~]+$")


class SetInbox(Request):
    """How a mailbox's inbox is read; what is left out stays, where it was read before."""

    email_address: Key
    kind: Literal["imap", "gmail_api"] = "imap"
    host: Annotated[str, _ASCII] | None = None
    port: Annotated[int, Field(ge=1, le=65535)] | None = None
    tls: Literal["implicit", "starttls"] = "implicit"
    ca_file: ServerPath | None = None
    username: Line | None = None
    password: Password | None = None
    folder: Annotated[str, _ASCII] = "INBOX"


class NamedInbox(Request):
    """The inbox of a mailbox."""

    email_address: Key


class InboxView(View):
    """How a mailbox's inbox is read, and how that goes."""

    kind: str
    imap_host: str | None
    imap_port: int | None
    imap_tls: str | None
    imap_username: str | None
    imap_folder: str | None
    failures: int
    last_error: str | None
    last_pulled_at: datetime | None
    next_pull_at: datetime | None


async def set_inbox(context: Context, request: SetInbox) -> InboxView:
    """Read from now on; what lies there already is left alone. Another host, user or folder begins anew."""
    wanted = changes(request, but="email_address")
    async with context.writing() as connection:
        mailbox = await mailboxes.find_to_change(connection, request.email_address)
        found = await inboxes.find(connection, mailbox.id)
        if request.kind == "gmail_api":
            if wanted.keys() - {"kind"}:
                raise BadValue(
                    "the Gmail API is read with the grant of the mailbox's upstream",
                    hint="leave out the options of IMAP",
                )
            columns: dict[str, Any] = {}
        else:
            columns = _imap(context, request, wanted.keys(), found, mailbox.email_address, seal_row(mailbox.id))
        await inboxes.save(
            connection,
            client_id=mailbox.client_id,
            mailbox_id=mailbox.id,
            email_address=mailbox.email_address,
            kind=request.kind,
            **columns,
        )
        saved = await inboxes.find(connection, mailbox.id)
    return InboxView.model_validate(saved)


async def remove_inbox(context: Context, request: NamedInbox) -> Removed:
    """Read it no more, and forget its password."""
    async with context.writing() as connection:
        mailbox = await mailboxes.find_to_change(connection, request.email_address)
        await inboxes.remove(connection, mailbox.id)
    return Removed(name=mailbox.email_address)


def _imap(
    context: Context, request: SetInbox, sent: Set[str], found: InboxRecord | None, address: str, row: str
) -> dict[str, Any]:
    """The columns: what was sent, else what was there, else the default."""
    before = found if found is not None and found.kind == "imap" else None
    host = request.host or (before and before.imap_host)
    if not host:
        raise BadValue("which IMAP server is not said", hint=f"relayd mailbox set {address} --reports-imap-host HOST")
    sealed = before and before.imap_password_sealed
    if request.password is not None:
        sealed = context.house.seal.seal(request.password.get_secret_value().encode(), row=row)
    elif before is not None and host != before.imap_host:
        # A secret is not sent to a place that it was not given for.
        raise BadValue("another server needs its password again", hint="give --reports-password-file too")
    if sealed is None:
        raise BadValue("the password is missing", hint="give --reports-password-file FILE, or - for standard input")
    tls = request.tls if "tls" in sent or before is None else str(before.imap_tls)
    is_as_before = before is not None and tls == before.imap_tls
    return {
        "imap_host": host,
        "imap_port": request.port or (before.imap_port if before and is_as_before else _PORTS[tls]),
        "imap_tls": tls,
        "imap_ca_file": request.ca_file if "ca_file" in sent or before is None else before.imap_ca_file,
        "imap_username": request.username or (before and before.imap_username) or address,
        "imap_password_sealed": sealed,
        "imap_folder": request.folder if "folder" in sent or before is None else before.imap_folder,
    }


_PATH = "/v1/mailboxes/{email_address}/inbox"
ROUTES = (
    Route("PATCH", _PATH, set_inbox, "Read a mailbox's inbox for reports and answers", SetInbox, InboxView),
    Route("DELETE", _PATH, remove_inbox, "Read a mailbox's inbox no more", NamedInbox, Removed),
)

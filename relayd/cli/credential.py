"""`relayd credential`."""

from datetime import timedelta
from typing import Annotated, Any, Literal

from cyclopts import App, Parameter

from relayd.cli import output
from relayd.cli.output import Column, Row, column
from relayd.cli.parameters import AsJson, Control, given
from relayd.control.client import Reply, path_of
from relayd.rules.duration import span_in_words

app = App(name="credential")

Senders = Annotated[list[str] | None, Parameter(name="--sender", negative="", consume_multiple=False)]
LongLines = Literal["reencode", "refuse"]
MailClass = Annotated[Literal["transactional", "bulk", "mailbox"] | None, Parameter(name="--class")]


def _deadline(row: Row) -> str:
    seconds = row["refuse_after_seconds"]
    return "never" if seconds is None else span_in_words(timedelta(seconds=seconds))


_COLUMNS = (
    column("login", whole=True),
    column("client"),
    Column("senders", lambda row: row["senders"] or "any of the client's"),
    Column("class", lambda row: row["mail_class"] or "the mailbox's"),
    column("is_active", "active"),
    column("created_at", "created"),
)
_DETAILS = (
    column("id"),
    *_COLUMNS,
    column("pool"),
    Column("refuses what leaves after", _deadline),
    Column("lines over 998 octets", lambda row: "are refused" if row["long_lines"] == "refuse" else "are made shorter"),
    column("updated_at", "changed"),
)


@app.command
def add(
    login: str,
    /,
    *,
    client: str,
    senders: Senders = None,
    mail_class: MailClass = None,
    refuse_after: str | None = None,
    long_lines: LongLines | None = None,
    as_json: AsJson = False,
    control: Control,
) -> None:
    """Add an SMTP login and show its secret, this once.

    Parameters
    ----------
    client
        Whose mail it may send.
    senders
        An address, or a domain, that it may send as; may be repeated. By default any of the client's.
    mail_class
        Of its mail, or mailbox: as the mailbox that sends it. The default.
    refuse_after
        Refuse for now what would leave later than in 15m, 2h, 3d; or never, the default.
    long_lines
        reencode what has lines over 998 octets so that they are shorter, the default, or refuse it.
    """
    body = {
        "login": login,
        "client": client,
        **given({"senders": senders, "long_lines": long_lines}),
        **_terms(mail_class, refuse_after),
    }
    _made(control.post(path_of("credentials"), body), f"credential {login} added", as_json)


@app.command(name="list")
def list_(*, client: str | None = None, as_json: AsJson = False, control: Control) -> None:
    """List the credentials.

    Parameters
    ----------
    client
        Only its own.
    """
    reply = control.get(path_of("credentials"), {"client": client})
    none = "no credentials yet; add one: relayd credential add LOGIN --client NAME"
    output.items(reply, _COLUMNS, as_json=as_json, none=none)


@app.command
def show(login: str, /, *, as_json: AsJson = False, control: Control) -> None:
    """Show a credential; never its secret."""
    output.details(control.get(path_of("credentials", login)), _DETAILS, as_json=as_json)


@app.command(name="set")
def set_(
    login: str,
    /,
    *,
    senders: Senders = None,
    any_sender: Annotated[bool, Parameter(negative="")] = False,
    mail_class: MailClass = None,
    refuse_after: str | None = None,
    long_lines: LongLines | None = None,
    active: Annotated[bool | None, Parameter(negative="--inactive")] = None,
    new_secret: Annotated[bool, Parameter(negative="")] = False,
    pool: str | None = None,
    as_json: AsJson = False,
    control: Control,
) -> None:
    """Change a credential; what is not given stays.

    Parameters
    ----------
    senders
        Instead of those that it has; may be repeated.
    any_sender
        Any address of the client's domains.
    mail_class
        Of its mail, or mailbox: as the mailbox that sends it.
    refuse_after
        Refuse for now what would leave later than in 15m, 2h, 3d; or never.
    long_lines
        reencode what has lines over 998 octets so that they are shorter, or refuse it.
    active
        An inactive credential opens nothing.
    new_secret
        Make a new secret and show it; the old one opens nothing any more.
    pool
        The pool of mailboxes that sends what it submits; none: header From's mailbox.
    """
    body: dict[str, Any] = given({"senders": senders, "is_active": active, "long_lines": long_lines}) | _terms(
        mail_class, refuse_after
    )
    if any_sender:
        body["senders"] = None
    if pool is not None:
        body["pool"] = None if pool == "none" else pool
    if new_secret:
        body["new_secret"] = True
    _made(control.patch(path_of("credentials", login), body), f"credential {login} changed", as_json)


@app.command
def remove(login: str, /, *, as_json: AsJson = False, control: Control) -> None:
    """Remove a credential: its app can log in no more."""
    output.done(control.delete(path_of("credentials", login)), f"credential {login} removed", as_json=as_json)


def _terms(mail_class: str | None, refuse_after: str | None) -> dict[str, Any]:
    terms: dict[str, Any] = given({"mail_class": mail_class, "refuse_after": refuse_after})
    nothing = {"mail_class": "mailbox", "refuse_after": "never"}
    return {name: None if value == nothing[name] else value for name, value in terms.items()}


def _made(reply: Reply, text: str, as_json: bool) -> None:
    secret = reply.data["secret"]
    if secret is None or as_json:
        return output.done(reply, text, as_json=as_json)
    output.done(reply, f"{text}\nsecret: {secret}", as_json=False, next_step="it is not shown again: keep it now")

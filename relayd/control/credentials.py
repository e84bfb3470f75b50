"""Handlers for credentials. The secret is made here, told once in the answer, and forgotten."""

import secrets
from collections.abc import Sequence
from dataclasses import replace
from datetime import datetime
from typing import Annotated, Literal
from uuid import UUID

from pydantic import Field

from relayd.control.route import Context, Removed, Request, Route, View, changes
from relayd.control.values import Deadline, Key, Login, Sender
from relayd.errors import Refusal
from relayd.rules.duration import parse_duration
from relayd.rules.mail_class import MailClass
from relayd.store import clients, credentials, domains, mailbox_pools
from relayd.store.connection import Connection
from relayd.store.credentials import CredentialRecord, Verifier
from relayd.submission.auth import make_verifier, new_secret

Senders = Annotated[list[Sender], Field(min_length=1, max_length=100)]
LongLines = Annotated[Literal["reencode", "refuse"], Field(description="What is done to lines over 998 octets")]


class AddCredential(Request):
    """A new login. `senders` left out: any address of the client's domains.

    `mail_class` null: as the mailbox. `refuse_after`: mail that would leave later than this is refused for now.
    """

    login: Login
    client: Key
    senders: Senders | None = None
    mail_class: MailClass | None = None
    refuse_after: Deadline | None = None
    long_lines: LongLines = "reencode"


class NamedCredential(Request):
    """A credential by its login."""

    login: Key


class SetCredential(Request):
    """What to change of a credential; what is left out stays. `senders` null: any. `new_secret`: the old one ends.

    `pool` null: header From's mailbox sends.
    """

    login: Key
    senders: Senders | None = None
    mail_class: MailClass | None = None
    refuse_after: Deadline | None = None
    long_lines: LongLines = "reencode"
    is_active: bool = True
    new_secret: bool = False
    pool: Key | None = None


class ListCredentials(Request):
    """`client`: only its own."""

    client: Key | None = None


class CredentialView(View):
    """A credential; nothing of its secret."""

    id: UUID
    login: str
    client: str
    senders: list[str] | None
    mail_class: str | None
    refuse_after_seconds: int | None
    long_lines: str
    is_active: bool
    pool: str | None
    created_at: datetime
    updated_at: datetime


class CredentialList(View):
    """Credentials by login."""

    items: list[CredentialView]


class MadeCredential(View):
    """A credential that was added or changed. `secret`, if one was made, is told this once."""

    credential: CredentialView
    secret: str | None


async def add_credential(context: Context, request: AddCredential) -> MadeCredential:
    """Refused if the login is taken or a sender is not the client's."""
    secret = new_secret()
    async with context.writing() as connection:
        client = await clients.find_to_use(connection, request.client)
        senders = _unique(request.senders)
        await _check_senders(connection, client.id, client.name, senders)
        credential = await credentials.add(
            connection,
            client_id=client.id,
            login=request.login,
            verifier=_verifier(secret),
            senders=senders,
            mail_class=request.mail_class,
            refuse_after_seconds=_seconds(request.refuse_after),
            long_lines=request.long_lines,
        )
    return MadeCredential(credential=CredentialView.model_validate(credential), secret=secret)


async def list_credentials(context: Context, request: ListCredentials) -> CredentialList:
    """By login."""
    async with context.reading() as connection:
        client_id = (await clients.find(connection, request.client)).id if request.client else None
        return CredentialList.model_validate({"items": await credentials.living(connection, client_id=client_id)})


async def show_credential(context: Context, request: NamedCredential) -> CredentialView:
    """One of them."""
    async with context.reading() as connection:
        return CredentialView.model_validate(await credentials.find(connection, request.login))


async def set_credential(context: Context, request: SetCredential) -> MadeCredential:
    """Sessions that are logged in follow within a second, at their next message, as new ones do."""
    wanted = changes(request, but="login")
    secret = new_secret() if wanted.pop("new_secret", False) else None
    if "refuse_after" in wanted:
        wanted["refuse_after_seconds"] = _seconds(wanted.pop("refuse_after"))
    async with context.writing() as connection:
        credential = await credentials.find_to_change(connection, request.login)
        if "pool" in wanted:
            name = wanted.pop("pool")
            owner = (credential.client_id, credential.client)
            pool = await mailbox_pools.find_to_use(connection, *owner, name) if name else None
            await mailbox_pools.use_for_credential(connection, credential.id, pool)
        if "senders" in wanted:
            wanted["senders"] = _unique(request.senders)
            await _check_senders(connection, credential.client_id, credential.client, wanted["senders"])
        changed: CredentialRecord = replace(credential, **wanted)
        saved = await credentials.save(connection, changed, _verifier(secret) if secret else None)
    return MadeCredential(credential=CredentialView.model_validate(saved), secret=secret)


async def remove_credential(context: Context, request: NamedCredential) -> Removed:
    """Its app can log in no more."""
    async with context.writing() as connection:
        await credentials.remove(connection, await credentials.find_to_change(connection, request.login))
    return Removed(name=request.login)


async def _check_senders(connection: Connection, client_id: UUID, client: str, senders: Sequence[str] | None) -> None:
    wanted = {sender.rpartition("@")[2] for sender in senders or ()}
    foreign = sorted(wanted - await domains.owned(connection, client_id, sorted(wanted)))
    if foreign:
        raise Refusal(
            f"client {client} has no domain {', '.join(foreign)}",
            hint=f"relayd domain list --client {client} shows what it has",
        )


def _seconds(duration: str | None) -> int | None:
    return None if duration is None else int(parse_duration(duration).total_seconds())


def _unique(senders: Sequence[str] | None) -> list[str] | None:
    return None if senders is None else list(dict.fromkeys(senders))


def _verifier(secret: str) -> Verifier:
    made = make_verifier(secret, salt=secrets.token_bytes(16))
    return Verifier(made.salt, made.iterations, made.stored_key, made.server_key)


_PATH = "/v1/credentials/{login}"
ROUTES = (
    Route("POST", "/v1/credentials", add_credential, "Add a credential", AddCredential, MadeCredential),
    Route("GET", "/v1/credentials", list_credentials, "List the credentials", ListCredentials, CredentialList),
    Route("GET", _PATH, show_credential, "Show a credential", NamedCredential, CredentialView),
    Route("PATCH", _PATH, set_credential, "Change a credential", SetCredential, MadeCredential),
    Route("DELETE", _PATH, remove_credential, "Remove a credential", NamedCredential, Removed),
)

"""From an upstream's row to the grant that its tokens are asked for with."""

import json
from collections.abc import Callable, Sequence

from relayd.rules.grant_events import GrantDied
from relayd.seal import Seal, SealError
from relayd.store import upstreams
from relayd.store.connection import Connection
from relayd.store.pool import Database
from relayd.store.upstreams import UpstreamRecord
from relayd.upstream.grants import TOKEN_URL, Grant, ServiceAccountGrant, UserGrant
from relayd.upstream.oauth import NoGrant, SharedTokens
from relayd.upstream.scopes import scopes_of
from relayd.upstream.tokens import TokenSource, TokenUnavailable


def grant_of(record: UpstreamRecord, seal: Seal, scopes: Sequence[str] | None = None) -> Grant | None:
    """None: nobody has logged in yet. `scopes`: instead of those of its mode; of a user's grant they are fixed.

    Raises SealError.
    """
    token_url = record.token_url or TOKEN_URL
    if record.google_service_account_sealed is not None:
        key = json.loads(_opened(record, seal, "google_service_account", record.google_service_account_sealed))
        return ServiceAccountGrant(record.name, key, tuple(scopes or scopes_of(record.mode)), token_url)
    if record.oauth_refresh_token_sealed is not None and record.oauth_client_id is not None:
        secret = record.oauth_client_secret_sealed
        return UserGrant(
            record.name,
            record.oauth_client_id,
            _opened(record, seal, "oauth_client_secret", secret) if secret is not None else "",
            _opened(record, seal, "oauth_refresh_token", record.oauth_refresh_token_sealed),
            token_url,
        )
    return None


def token_source(
    record: UpstreamRecord,
    seal: Seal,
    database: Database,
    emit: Callable[[GrantDied], None],
    clock: Callable[[], float],
    *,
    scopes: Sequence[str] | None = None,
) -> TokenSource:
    """The upstream's tokens; one that says what to do where nobody has logged in yet. Raises SealError."""
    grant = grant_of(record, seal, scopes)
    if grant is None:
        login = f"relayd upstream login {record.name}"
        key = f"relayd upstream set-service-account {record.name} --file KEY.json"
        choice = f"{login}, or {key}" if record.provider_type == "google_workspace" else login
        return NoGrant(f"upstream {record.name} has no grant yet: {choice}")

    async def current(connection: Connection) -> Grant:
        try:
            now = await upstreams.find_by_id(connection, record.id)
            found = grant_of(now, seal, scopes) if now is not None else None
        except SealError as error:
            raise TokenUnavailable(str(error)) from error
        if found is None or found.digest != grant.digest:
            raise TokenUnavailable(f"upstream {record.name} was given another login meanwhile")
        return found

    return SharedTokens(
        grant,
        current,
        upstream_id=record.id,
        upstream=record.name,
        database=database,
        seal=seal,
        emit=emit,
        ca_file=record.smtp_ca_file,
        clock=clock,
    )


def _opened(record: UpstreamRecord, seal: Seal, column: str, sealed: bytes) -> str:
    return seal.open(sealed, row=record.seal_row(column)).decode()

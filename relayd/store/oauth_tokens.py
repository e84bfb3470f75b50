"""Access tokens (table oauth_tokens), one for each account that a grant speaks for, shared by all workers and nodes.

Who wants to fetch one takes its lease first; everybody else goes on with the old one or waits. A lease is held across
network I/O, so it is a row's column and no transaction. All times are the database's.
"""

from dataclasses import dataclass, field
from datetime import datetime
from enum import StrEnum
from uuid import UUID

from relayd.store.connection import Connection


@dataclass(frozen=True, slots=True)
class TokenKey:
    """Whose token of which grant. `subject` "" is the grant's own account."""

    upstream_id: UUID
    subject: str
    grant_digest: bytes


class Failure(StrEnum):
    """oauth_tokens.failure: out of reach for now, not for this account, or not for anybody until somebody mends it."""

    UNAVAILABLE = "unavailable"
    ACCOUNT = "account"
    DEAD = "dead"


@dataclass(frozen=True, slots=True)
class TokenRecord:
    """What is known. Seconds count from now and are negative for what is past; None: there is none."""

    id: UUID
    access_token_sealed: bytes | None = field(repr=False)
    fresh_seconds: float | None
    good_seconds: float | None
    retry_seconds: float | None
    is_being_fetched: bool
    failure: str | None
    error: str | None


@dataclass(frozen=True, slots=True)
class TokenAges:
    """The tokens of one upstream. Seconds since the oldest was fetched, and until the first ends; None: no token."""

    tokens: int
    oldest_seconds: float | None
    first_expires_seconds: float | None


@dataclass(frozen=True, slots=True)
class DeadGrant:
    """A grant that gives no token until somebody mends it."""

    upstream_id: UUID
    subject: str
    died_at: datetime
    error: str


def seal_row(token_id: UUID) -> str:
    """The identity under which an access token is sealed."""
    return f"oauth_tokens/{token_id}/access_token"


# Index: oauth_tokens_upstream_id_subject_grant_digest_key.
FIND = """
SELECT id, access_token_sealed, extract(epoch FROM refresh_at - relayd_now())::float8 AS fresh_seconds,
       extract(epoch FROM expires_at - relayd_now())::float8 AS good_seconds,
       extract(epoch FROM retry_at - relayd_now())::float8 AS retry_seconds,
       COALESCE(refreshing_until > relayd_now(), false) AS is_being_fetched, failure, error
  FROM oauth_tokens WHERE upstream_id = $1 AND subject = $2 AND grant_digest = $3
"""

# One of all who want it gets a row back: who comes later sees the lease, or the token that it has led to.
# Index: oauth_tokens_upstream_id_subject_grant_digest_key.
LEASE = """
INSERT INTO oauth_tokens AS t (client_id, upstream_id, subject, grant_digest, refreshing_by, refreshing_until)
SELECT u.client_id, u.id, $2, $3, $4, relayd_now() + make_interval(secs => $5)
  FROM email_configurations u WHERE u.id = $1
ON CONFLICT (upstream_id, subject, grant_digest) DO UPDATE
   SET refreshing_by = EXCLUDED.refreshing_by, refreshing_until = EXCLUDED.refreshing_until
 WHERE (t.refreshing_until IS NULL OR t.refreshing_until <= relayd_now())
   AND (t.refresh_at IS NULL OR t.refresh_at <= relayd_now())
   AND (t.retry_at IS NULL OR t.retry_at <= relayd_now())
RETURNING id
"""

# Only by the holder of the lease. Index: oauth_tokens_pkey.
KEEP = """
UPDATE oauth_tokens
   SET access_token_sealed = $3, refresh_at = relayd_now() + make_interval(secs => $4),
       expires_at = relayd_now() + make_interval(secs => $5), refreshing_by = NULL, refreshing_until = NULL,
       failure = NULL, failed_at = NULL, retry_at = NULL, died_at = NULL, error = NULL
 WHERE id = $1 AND refreshing_by = $2
RETURNING upstream_id, subject, grant_digest
"""

# Of the grant before; another that serves beside this one, for other scopes, stays.
# Index: oauth_tokens_upstream_id_subject_grant_digest_key.
FORGET_OTHERS = """
DELETE FROM oauth_tokens
 WHERE upstream_id = $1 AND subject = $2 AND grant_digest <> $3
   AND (died_at IS NOT NULL OR COALESCE(expires_at, updated_at) <= relayd_now() - interval '1 day')
"""

# Only by the holder of the lease. Index: oauth_tokens_pkey.
FAIL = """
UPDATE oauth_tokens t
   SET refreshing_by = NULL, refreshing_until = NULL, failed_at = relayd_now(), error = left($3, 1000),
       retry_at = relayd_now() + make_interval(secs => $4), failure = $5,
       died_at = CASE WHEN $5 = 'dead' THEN COALESCE(t.died_at, relayd_now()) END
  FROM (SELECT id, died_at FROM oauth_tokens WHERE id = $1 FOR UPDATE) before
 WHERE t.id = before.id AND t.refreshing_by = $2
RETURNING $5 = 'dead' AND before.died_at IS NULL
"""

# Whether another account has a good token of the same grant. Index: oauth_tokens_upstream_id_subject_grant_digest_key.
SERVES_OTHERS = """
SELECT EXISTS (SELECT FROM oauth_tokens WHERE upstream_id = $1 AND subject <> $2 AND grant_digest = $3
                  AND expires_at > relayd_now() AND died_at IS NULL)
"""

# The refused token itself, not one that has come since, and not soon again: a server that takes none at all would make
# every login fetch one. Index: oauth_tokens_upstream_id_subject_grant_digest_key.
DROP = """
UPDATE oauth_tokens SET access_token_sealed = NULL, refresh_at = NULL, expires_at = NULL, refused_at = relayd_now()
 WHERE upstream_id = $1 AND subject = $2 AND grant_digest = $3 AND access_token_sealed = $4
   AND (refused_at IS NULL OR refused_at <= relayd_now() - make_interval(secs => $5))
"""

# Of one upstream; what still gives tokens in another way is not dead. Index: oauth_tokens_dead.
DEAD = """
SELECT t.upstream_id, t.subject, t.died_at, t.error FROM oauth_tokens t
 WHERE t.upstream_id = $1 AND t.died_at IS NOT NULL
   AND NOT EXISTS (SELECT FROM oauth_tokens o WHERE o.upstream_id = t.upstream_id AND o.subject = t.subject
                      AND o.died_at IS NULL AND o.expires_at > relayd_now())
 ORDER BY t.subject LIMIT 100
"""

# Of one upstream: how old its tokens are. Index: oauth_tokens_upstream_id_subject_grant_digest_key.
AGES = """
SELECT count(expires_at) AS tokens, max(extract(epoch FROM relayd_now() - updated_at))::float8 AS oldest_seconds,
       min(extract(epoch FROM expires_at - relayd_now()))::float8 AS first_expires_seconds
  FROM oauth_tokens WHERE upstream_id = $1 AND expires_at IS NOT NULL
"""


async def find(connection: Connection, key: TokenKey) -> TokenRecord | None:
    """What there is for the key."""
    row = await connection.fetchrow(FIND, key.upstream_id, key.subject, key.grant_digest)
    return TokenRecord(**dict(row)) if row else None


async def lease(connection: Connection, key: TokenKey, *, holder: str, seconds: float) -> UUID | None:
    """The right to fetch a token; the id of its row. None: another fetches it, has just done so, or it is too early."""
    found: UUID | None = await connection.fetchval(
        LEASE, key.upstream_id, key.subject, key.grant_digest, holder, seconds
    )
    return found


async def keep(
    connection: Connection, token_id: UUID, *, holder: str, sealed: bytes, fresh_seconds: float, good_seconds: float
) -> None:
    """Store what was fetched and end the lease; harmless if the lease was lost. Wants a transaction."""
    row = await connection.fetchrow(KEEP, token_id, holder, sealed, fresh_seconds, good_seconds)
    if row is not None:
        await connection.execute(FORGET_OTHERS, row["upstream_id"], row["subject"], row["grant_digest"])


async def fail(
    connection: Connection, token_id: UUID, *, holder: str, failure: Failure, error: str, retry_seconds: float
) -> bool:
    """Record that nothing was fetched and end the lease. True: the grant was alive until now."""
    return bool(await connection.fetchval(FAIL, token_id, holder, error, retry_seconds, failure))


async def serves_others(connection: Connection, key: TokenKey) -> bool:
    """Whether the grant is alive for other accounts, so that what fails now speaks of this one."""
    return bool(await connection.fetchval(SERVES_OTHERS, key.upstream_id, key.subject, key.grant_digest))


async def drop(connection: Connection, key: TokenKey, sealed: bytes, *, not_within_seconds: float) -> None:
    """Forget a token that a server has refused, unless one was dropped as recently as that."""
    await connection.execute(DROP, key.upstream_id, key.subject, key.grant_digest, sealed, not_within_seconds)


async def dead(connection: Connection, upstream_id: UUID) -> list[DeadGrant]:
    """What an operator has to mend of one upstream."""
    return [DeadGrant(**dict(row)) for row in await connection.fetch(DEAD, upstream_id)]


async def ages(connection: Connection, upstream_id: UUID) -> TokenAges:
    """How old the tokens of one upstream are."""
    row = await connection.fetchrow(AGES, upstream_id)
    assert row is not None
    return TokenAges(**dict(row))

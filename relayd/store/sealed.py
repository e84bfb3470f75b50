"""Every sealed value there is, by table and column, and how values are exchanged for others while relayd works.

The one registry: a column that is not in it would be forgotten by a rotation, so a test holds it against the catalogue.
The word in relayd_state has a module of its own, `sealcheck`.
"""

from collections.abc import Sequence
from dataclasses import dataclass, field
from uuid import UUID

from relayd.seal import HEAD_OCTETS, key_id_of
from relayd.store.connection import Connection
from relayd.store.upstreams import keep_tokens


@dataclass(frozen=True, slots=True)
class SealedColumn:
    """A column of sealed values. `key` is the table's primary key, `label` a column that tells people which row it is.

    Values are sealed for `row(key)`: `table/<key>/column`, without the column's `_sealed`.
    """

    table: str
    column: str
    label: str
    key: str = "id"

    def __str__(self) -> str:
        return f"{self.table}.{self.column}"

    def row(self, key: UUID) -> str:
        """The identity that the value of one row is sealed for."""
        return f"{self.table}/{key}/{self.column.removesuffix('_sealed')}"


SEALED_COLUMNS = (
    SealedColumn("email_configurations", "smtp_password_sealed", "name"),
    SealedColumn("email_configurations", "smtp_client_key_sealed", "name"),
    SealedColumn("email_configurations", "api_key_sealed", "name"),
    SealedColumn("email_configurations", "oauth_client_secret_sealed", "name"),
    SealedColumn("email_configurations", "oauth_refresh_token_sealed", "name"),
    SealedColumn("email_configurations", "google_service_account_sealed", "name"),
    SealedColumn("oauth_tokens", "access_token_sealed", "subject"),
    SealedColumn("mailbox_inboxes", "imap_password_sealed", "email_address", key="mailbox_id"),
    SealedColumn("dkim_keys", "private_key_sealed", "selector"),
)


@dataclass(frozen=True, slots=True)
class SealedValue:
    """A value as it was read; `label` is for people."""

    key: UUID
    label: str
    sealed: bytes = field(repr=False)


# In these the names of a SealedColumn are filled in: identifiers cannot be parameters, and come from this file alone.

# How many values there are under each key. Index: none, it reads the whole table, of configuration, when asked.
COUNT = (
    "SELECT substring({column} FOR {head}) AS head, count(*) AS many FROM {table} WHERE {column} IS NOT NULL GROUP BY 1"
)

# The next ones in the order of their key; those of removed rows as well. Index: the primary key.
READ = """
SELECT {key} AS key, {label} AS label, {column} AS sealed FROM {table}
 WHERE {column} IS NOT NULL AND ($1::uuid IS NULL OR {key} > $1) ORDER BY {key} LIMIT $2
"""

# Those that were changed since they were read. Index: the primary key.
READ_AGAIN = """
SELECT {key} AS key, {label} AS label, {column} AS sealed FROM {table}
 WHERE {column} IS NOT NULL AND {key} = ANY($1::uuid[]) ORDER BY {key}
"""

# Only where the value is still the one that was read. Rows are locked in the order of their key. Index: primary key.
EXCHANGE = """
WITH target AS MATERIALIZED (
  SELECT t.{key} AS key FROM {table} t WHERE t.{key} = ANY($1::uuid[]) ORDER BY t.{key} FOR NO KEY UPDATE)
UPDATE {table} t SET {column} = v.after
  FROM target, unnest($1::uuid[], $2::bytea[], $3::bytea[]) AS v(key, before, after)
 WHERE t.{key} = target.key AND v.key = target.key AND t.{column} = v.before
RETURNING t.{key} AS key
"""


async def count(connection: Connection, column: SealedColumn) -> dict[str | None, int]:
    """How many values of a column are sealed under each key, by its id. None: what is no sealed value."""
    counts: dict[str | None, int] = {}
    for row in await connection.fetch(_statement(COUNT, column)):
        key_id = key_id_of(row["head"])
        counts[key_id] = counts.get(key_id, 0) + row["many"]
    return counts


async def read(connection: Connection, column: SealedColumn, after: UUID | None, limit: int) -> list[SealedValue]:
    """The next values of a column in the order of their rows' keys, from after a key on."""
    return [SealedValue(**dict(row)) for row in await connection.fetch(_statement(READ, column), after, limit)]


async def read_again(connection: Connection, column: SealedColumn, keys: Sequence[UUID]) -> list[SealedValue]:
    """The values that these rows have now; without those that are gone."""
    return [SealedValue(**dict(row)) for row in await connection.fetch(_statement(READ_AGAIN, column), keys)]


async def exchange(
    connection: Connection, column: SealedColumn, values: Sequence[tuple[SealedValue, bytes]]
) -> set[UUID]:
    """Store the new value beside each, where the old one still stands. Returns the keys of the rows so changed.

    In a transaction: a grant that is sealed anew stays the same, and keeps its access tokens.
    """
    await keep_tokens(connection)
    rows = await connection.fetch(
        _statement(EXCHANGE, column),
        [value.key for value, _ in values],
        [value.sealed for value, _ in values],
        [after for _, after in values],
    )
    return {row["key"] for row in rows}


def _statement(template: str, column: SealedColumn) -> str:
    return template.format(
        table=column.table, column=column.column, key=column.key, label=column.label, head=HEAD_OCTETS
    )

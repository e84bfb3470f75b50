"""Clients, domains, mailboxes and quotas of a history: in the database, and as we remember them."""

import math
import random
from dataclasses import dataclass, field
from datetime import datetime, timedelta
from typing import Any
from uuid import UUID

from relayd.store.connection import Connection
from tests.ledger.budget import Budget, Terms

DAY, HOUR = timedelta(days=1), timedelta(hours=1)
# Half-hour changes, a day that begins at one o'clock, a midnight that comes twice.
ZONES = (
    "UTC",
    "Europe/Berlin",
    "America/New_York",
    "Australia/Lord_Howe",
    "America/Sao_Paulo",
    "Atlantic/Azores",
    "America/Havana",
)
# What a row of each table says, and how we call it.
TABLES = {
    "client": "clients",
    "domain": "email_domains",
    "mailbox": "email_mailboxes",
    "quota": "google_workspace_quota",
}


@dataclass(eq=False)
class Row:
    """A row that says limits: its columns as they were last set, and what it hangs on."""

    kind: str
    name: str
    id: UUID
    columns: dict[str, Any]
    parents: dict[str, "Row"] = field(default_factory=dict)
    lanes: dict[str, int] = field(default_factory=dict)  # of a mailbox, by class
    upstream: UUID | None = None  # of a quota

    def __repr__(self) -> str:
        return self.name


class House:
    """Two clients with three domains and five mailboxes, two upstreams, four quotas."""

    def __init__(self, connection: Connection, dice: random.Random, zones: tuple[str, ...]) -> None:
        self._connection = connection
        self._dice = dice
        self.zones = zones
        # Few kinds of limits, so that each is the smallest somewhere.
        self._limited = set(dice.sample(("client", "domain", "mailbox", "day", "hour"), dice.choice((1, 1, 2, 5))))
        self.rows: list[Row] = []
        self.upstreams: list[UUID] = []
        self.budgets: dict[tuple[str, UUID], Budget] = {}

    def of(self, kind: str) -> list[Row]:
        """The rows of that kind."""
        return [row for row in self.rows if row.kind == kind]

    async def build(self, now: datetime) -> None:
        """Puts them into the database."""
        for number, on_uncertain in enumerate(("retry", "hold")):
            upstream = self._id()
            await self._connection.execute(
                "INSERT INTO email_configurations (id, name, provider_type, capture_directory, on_uncertain)"
                " VALUES ($1, $2, 'capture', '/nowhere', $3)",
                *(upstream, f"up{number}", on_uncertain),
            )
            self.upstreams.append(upstream)
        clients = [await self._add("client", f"c{n}", self._shared("client"), {}, {"name": f"c{n}"}) for n in range(2)]
        for number, client in enumerate((clients[0], clients[0], clients[1])):
            name = f"d{number}.example"
            said = self._shared("domain")
            said["own_daily_limit"] = said.pop("daily_send_limit")
            del said["bulk_reserve_percent"]
            domain = await self._add("domain", name, said, {"client": client}, {"domain": name})
            for which in range(2 if number < 2 else 1):
                said = {
                    **self._window(),
                    "daily_send_limit": self._limit("mailbox"),
                    "is_paced": self._dice.random() < 0.2,
                }
                said["status"] = "active"
                said["upstream_id"] = self._dice.choice(self.upstreams)
                parents = {"client": client, "domain": domain}
                await self._add("mailbox", f"m{which}@{name}", said, parents, {"email_address": f"m{which}@{name}"})
        mailboxes = self.of("mailbox")
        for number, mailbox in enumerate((None, None, mailboxes[0], mailboxes[4])):
            said = {**self._window(), "daily_limit": self._limit("day", 2), "hourly_limit": self._limit("hour")}
            said["bulk_reserve_percent"] = self._dice.choice((0, 0, 30))
            fixed = {"upstream_id": self.upstreams[number % 2]}
            parents = {"mailbox": mailbox} if mailbox else {}
            await self._add("quota", f"q{number}", said, parents, fixed)
        for mailbox in mailboxes:
            rows = await self._connection.fetch("SELECT class, id FROM mailbox_lanes WHERE mailbox_id = $1", mailbox.id)
            mailbox.lanes = {row["class"]: row["id"] for row in rows}
        self._follow(now, exact=True)

    async def change(self, row: Row, column: str, value: Any, now: datetime) -> None:
        """The owner says something else."""
        row.columns[column] = value
        await self._connection.execute(f"UPDATE {TABLES[row.kind]} SET {column} = $2 WHERE id = $1", row.id, value)
        self._follow(now, exact=False)

    def budgets_of(self, mailbox: Row, upstream: UUID, lane_class: str) -> list[Budget]:
        """All that a send of this class from this mailbox by this upstream has to fit."""
        owners = {quota.id for quota in self.of("quota") if self._concerns(quota, mailbox, upstream)}
        if lane_class != "dsn":
            owners |= {mailbox.id, mailbox.parents["domain"].id, mailbox.parents["client"].id}
        return [budget for (_, owner), budget in self.budgets.items() if owner in owners]

    def random_change(self) -> tuple[Row, str, Any]:
        """Something that an operator may say."""
        row = self._dice.choice(self.rows)
        column = self._dice.choice([name for name in row.columns if name != "status"])
        match column:
            case "time_zone":
                return row, column, self._dice.choice(self.zones)
            case "limit_window":
                return row, column, self._dice.choice(("calendar", "rolling"))
            case "is_paced":
                return row, column, not row.columns[column]
            case "upstream_id":
                return row, column, self._dice.choice(self.upstreams)
            case "bulk_reserve_percent":
                return row, column, self._dice.choice((0, 10, 30, 50, 100))
            case _:
                return row, column, self._changed_limit(row.columns[column])

    def _changed_limit(self, limit: int | None) -> int | None:
        lower = 0 if limit is None else self._dice.randint(0, limit)
        higher = (limit or 0) + self._dice.randint(1, 10)
        return self._dice.choice((lower, lower, higher, higher, None, 0, 3))

    def _follow(self, now: datetime, *, exact: bool) -> None:
        wanted = {(kind, row.id): (row, terms) for row in self.rows for kind, terms in self._said_by(row).items()}
        for key in self.budgets.keys() - wanted.keys():
            del self.budgets[key]
        for key, (row, terms) in wanted.items():
            if key in self.budgets:
                self.budgets[key].change(terms, now)
            else:
                self.budgets[key] = Budget(key[0], row, terms, exact)

    def _said_by(self, row: Row) -> dict[str, Terms]:
        said = row.columns
        client = row.parents.get("client", row)
        reserve = client.columns.get("bulk_reserve_percent", 0)
        is_rolling, zone = said["limit_window"] == "rolling", said["time_zone"]

        def terms(limit: int | None, span: timedelta = DAY) -> Terms:
            return Terms(limit, reserve, is_rolling, span, zone)

        match row.kind:
            case "mailbox":
                limit = said["daily_send_limit"]
                found = {"mailbox_day": terms(limit)}
                if said["is_paced"] and limit is not None:
                    found["mailbox_hour"] = Terms(math.ceil(limit / 24), reserve, False, HOUR, zone)
                return found
            case "quota":
                limits = {"provider_day": (said["daily_limit"], DAY), "provider_hour": (said["hourly_limit"], HOUR)}
                return {kind: terms(*each) for kind, each in limits.items() if each[0] is not None}
            case _:
                limit = said["daily_send_limit" if row.kind == "client" else "own_daily_limit"]
                return {} if limit is None else {f"{row.kind}_day": terms(limit)}

    def _concerns(self, quota: Row, mailbox: Row, upstream: UUID) -> bool:
        return quota.upstream == upstream and quota.parents.get("mailbox", mailbox) is mailbox

    async def _add(
        self, kind: str, name: str, said: dict[str, Any], parents: dict[str, Row], fixed: dict[str, Any]
    ) -> Row:
        row = Row(kind, name, self._id(), said, parents, upstream=fixed.get("upstream_id"))
        columns = {"id": row.id, **said, **fixed, **{f"{parent}_id": each.id for parent, each in parents.items()}}
        places = ", ".join(f"${number}" for number in range(1, len(columns) + 1))
        await self._connection.execute(
            f"INSERT INTO {TABLES[kind]} ({', '.join(columns)}) VALUES ({places})", *columns.values()
        )
        self.rows.append(row)
        return row

    def _shared(self, kind: str) -> dict[str, Any]:
        return {
            **self._window(),
            "daily_send_limit": self._limit(kind, 2),
            "bulk_reserve_percent": self._dice.choice((0, 0, 20, 50)),
        }

    def _window(self) -> dict[str, Any]:
        return {
            "limit_window": self._dice.choice(("calendar", "calendar", "rolling")),
            "time_zone": self._dice.choice(self.zones),
        }

    def _limit(self, kind: str, times: int = 1) -> int | None:
        limit = self._dice.choice((None, *(times * n for n in (1, 2, 3, 5, 8, 12))))
        return limit if kind in self._limited else None

    def _id(self) -> UUID:
        return UUID(int=self._dice.getrandbits(128))

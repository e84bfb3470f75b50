"""What one request of the control socket is: its path, the models that it takes and gives, and its handler.

A request's model holds the path's parameters together with the query's (GET) or the JSON body's (other methods).
"""

import time
from collections.abc import AsyncIterator, Awaitable, Callable, Mapping, Sequence
from contextlib import asynccontextmanager
from dataclasses import dataclass, field
from typing import Any

from pydantic import BaseModel, ConfigDict

from relayd.control.pending_logins import PendingLogins
from relayd.control.running_trials import RunningTrials
from relayd.control.values import Key
from relayd.dns.resolver import Resolver
from relayd.errors import BadValue
from relayd.intake.bounce import Bouncer
from relayd.rules.control_events import ControlEvent
from relayd.rules.grant_events import GrantEvent
from relayd.rules.tiers import Tier, by_name
from relayd.rules.warm_up import DEFAULT_SCHEDULE, Schedule
from relayd.seal import Seal
from relayd.store.connection import Connection
from relayd.store.outlook import Terms
from relayd.store.pool import Database
from relayd.store.upstreams import UpstreamRecord
from relayd.upstream.steps import Probe
from relayd.upstream.table import OperatorRule

# Index: none; it speaks of this transaction alone. The audit triggers read it.
SET_ACTOR = "SELECT set_config('relayd.actor', $1, true)"


class Request(BaseModel):
    """Base of all that a peer sends: nothing unknown is taken, so that a typing error is not a silent no."""

    model_config = ConfigDict(extra="forbid", frozen=True)


class Nothing(Request):
    """A request without parameters."""


class View(BaseModel):
    """Base of all that a peer is sent; read from a record of the store by attribute."""

    model_config = ConfigDict(extra="forbid", frozen=True, from_attributes=True)


class Octets(View):
    """An answer that is not JSON: bytes, exactly."""

    content: bytes


class Named(Request):
    """A request that speaks of one thing by its name and needs no more."""

    name: Key


class Removed(View):
    """What was removed."""

    name: str


@dataclass(frozen=True, slots=True)
class Publishing:
    """What a domain's DNS records say beyond its keys; see `rules.dns_records.records_for`."""

    spf_hosts: Sequence[str] = ()
    mx_host: str | None = None
    dmarc_policy: str = "none"
    dmarc_rua: str | None = None
    report_mx_host: str | None = None  # the host whose port 25 is relayd's, for bounce domains


@dataclass(frozen=True, slots=True)
class Reloaded:
    """The names of the settings that a reload changed, and of those that only a restart changes."""

    changed: Sequence[str]
    needs_restart: Sequence[str]


@dataclass(frozen=True, slots=True)
class House:
    """What every handler may use, the same for all requests of a server."""

    database: Database
    seal: Seal
    wake: Callable[[], None]  # mail may be able to go: the scheduler looks at once
    version: str
    node: str
    workers: Callable[[], int] | None = None  # how many are alive, where somebody knows
    publishing: Publishing = field(default_factory=Publishing)
    tiers: Mapping[str, Tier] = field(default_factory=lambda: by_name(()))
    schedule: Schedule = DEFAULT_SCHEDULE
    release_spread_seconds: float = 300.0
    verdicts: Sequence[OperatorRule] = ()
    probe_of: Callable[[UpstreamRecord], Probe] | None = None  # what tries an upstream, where somebody knows
    emit: Callable[[ControlEvent | GrantEvent], None] = lambda event: None
    logins: PendingLogins = field(default_factory=PendingLogins)
    trials: RunningTrials = field(default_factory=lambda: RunningTrials(time.monotonic))
    bouncer: Bouncer | None = None  # who tells senders of what an operator calls failed
    resolver: Resolver = field(default_factory=Resolver)
    reload: Callable[[], Awaitable[Reloaded]] | None = None  # None where no configuration file can be read anew

    @property
    def terms(self) -> Terms:
        """What an estimate of when mail leaves needs of the configuration."""
        return Terms(self.schedule, self.release_spread_seconds)


@dataclass(frozen=True, slots=True)
class Context:
    """One request's view of the house: who asks, and the database in their name."""

    house: House
    actor: str

    @asynccontextmanager
    async def reading(self) -> AsyncIterator[Connection]:
        """One unchanging view of the database; a write fails."""
        async with (
            self.house.database.connection() as connection,
            connection.transaction(isolation="repeatable_read", readonly=True),
        ):
            yield connection

    @asynccontextmanager
    async def writing(self) -> AsyncIterator[Connection]:
        """A transaction whose changes are audited under the peer's name. Wake the house after it, not in it."""
        async with self.house.database.transaction() as connection:
            await connection.execute(SET_ACTOR, self.actor)
            yield connection


# Carries out a request of its route's model. Refusals are raised; what is returned has been committed.
Handler = Callable[[Context, Any], Awaitable[BaseModel]]


@dataclass(frozen=True, slots=True)
class Route:
    """One line of the table of routes. `path` is aiohttp's: `/v1/clients/{name}`. GET reads, other methods write."""

    method: str
    path: str
    handler: Handler
    summary: str
    request: type[Request]
    response: type[BaseModel]


def changes(request: Request, *, but: str | tuple[str, ...]) -> dict[str, Any]:
    """The fields that the peer sent, except those that name the thing. Raises BadValue if nothing is left."""
    naming = (but,) if isinstance(but, str) else but
    sent = {name: getattr(request, name) for name in request.model_fields_set if name not in naming}
    if not sent:
        raise BadValue("nothing to change was given")
    return sent

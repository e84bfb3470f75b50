"""The pool's member that sends a message. What is known of the members is a second old, what was given out since is
counted here, so that a message costs no query."""

from collections import Counter
from dataclasses import dataclass, field
from uuid import UUID

from relayd.intake.submission import Identity
from relayd.mail.reply import Reply
from relayd.rules.mail_class import MailClass, mail_class
from relayd.rules.pool_choice import best
from relayd.store import pool_standing
from relayd.store.directory import SendingMailbox
from relayd.store.pool import Database
from relayd.store.pool_standing import Member, SendingPool
from relayd.store.timed_cache import TimedCache


@dataclass(frozen=True, slots=True)
class Chosen:
    """Who sends, as which class, and whether under its own address."""

    mailbox: SendingMailbox
    mail_class: MailClass
    rewrites_from: bool


@dataclass(frozen=True, slots=True)
class _Roster:
    """A pool as it stood a moment ago; None once it is removed. `taken`: units by lane, given out since."""

    pool: SendingPool | None
    members: list[Member]
    taken: Counter[int] = field(default_factory=Counter)


class Pools:
    """Chooses members. One a worker: workers do not see what others give out until they look again."""

    def __init__(self, database: Database) -> None:
        self._database = database
        self._ids: TimedCache[tuple[UUID, str], UUID | None] = TimedCache(self._load_id)
        self._rosters: TimedCache[UUID, _Roster] = TimedCache(self._load_roster)

    async def named(self, identity: Identity, name: str) -> UUID | Reply:
        """The pool of that name if the identity's client owns one, else the refusal. Raises StoreUnavailable."""
        found = await self._ids.get((identity.client.id, name))
        if found is None:
            return Reply(550, "5.7.1", f"X-Relayd-Pool: client {identity.client.name} has no pool {name}")
        return found

    async def choose(self, identity: Identity, pool_id: UUID, asked: MailClass | None, *, units: int) -> Chosen | Reply:
        """Who sends this message of so many recipients, and as which class; or the refusal. Raises StoreUnavailable."""
        roster = await self._rosters.get(pool_id)
        if roster.pool is None:
            return Reply(550, "5.7.1", "The pool of mailboxes that was to send this has been removed")
        members = [each for each in roster.members if _may_send_for(identity, each)]
        classes = [
            mail_class(asked=asked, credential=identity.mail_class, mailbox=each.mailbox.mail_class) for each in members
        ]
        standings = [each.standing(of) for each, of in zip(members, classes, strict=True)]
        chosen = best(standings, units=units, taken=roster.taken)
        if chosen is None:
            return _nobody(roster.pool)
        roster.taken[standings[chosen].lane_id] += units
        return Chosen(members[chosen].mailbox, classes[chosen], roster.pool.may_rewrite_from)

    async def _load_id(self, key: tuple[UUID, str]) -> UUID | None:
        async with self._database.connection() as connection:
            return await pool_standing.find_pool_id(connection, *key)

    async def _load_roster(self, pool_id: UUID) -> _Roster:
        async with self._database.connection() as connection:
            pool = await pool_standing.find_pool(connection, pool_id)
            return _Roster(pool, await pool_standing.members(connection, [pool_id]) if pool else [])


def _may_send_for(identity: Identity, member: Member) -> bool:
    return member.mailbox.client_id == identity.client.id and identity.may_use(member.mailbox.address)


def _nobody(pool: SendingPool) -> Reply:
    add = f"relayd pool member add {pool.name} ADDRESS --client {pool.client}"
    return Reply(550, "5.7.1", f"Pool {pool.name} has no mailbox that may send this; add one: {add}")

"""The tokens of one upstream, fetched once for all workers and nodes, well before the old ones end.

One of all who need a token takes the lease in the database and fetches; the others go on with the old one while it is
good, else they look again until the new one is there. What a worker has seen it keeps in memory.

The refresh token is read under the lease, since another worker may have exchanged it. A new one that comes with an
access token (RFC 6749 6) is committed before the access token is used: from the provider's answer to that commit it
exists in this process alone.
"""

import asyncio
import ssl
import time
from collections.abc import Awaitable, Callable
from dataclasses import dataclass, field
from pathlib import Path
from uuid import UUID, uuid4

from relayd import failpoints
from relayd.errors import RelaydError, StoreUnavailable
from relayd.rules.grant_events import GrantDied
from relayd.seal import Seal, SealError
from relayd.store import oauth_tokens, upstreams
from relayd.store.connection import Connection
from relayd.store.oauth_tokens import Failure, TokenKey, TokenRecord
from relayd.store.pool import Database
from relayd.upstream.grant_http import GrantHttp
from relayd.upstream.grants import AccessToken, Grant, UserGrant
from relayd.upstream.tokens import AccountRefused, GrantDead, TokenUnavailable

# A new token is fetched when the old one has so long to go, or half of its life if that is less.
EARLY_SECONDS = 300.0
# What has less is not handed out: a login takes a while.
LEAST_SECONDS = 10.0
FETCH_SECONDS = 30.0
# Longer than a fetch: who holds one longer has died.
LEASE_SECONDS = 45.0
LOOK_SECONDS = 0.1
WAIT_SECONDS = 60.0
# While Postgres is away: how soon a new refresh token is tried to be stored again.
STORE_SECONDS = 0.2
# How soon a failed fetch is tried again: out of reach, refused for one account, dead.
RETRY_SECONDS = 5.0
REFUSED_SECONDS = 60.0
DEAD_SECONDS = 60.0
# A token that is refused so soon after another was is not to blame.
DROP_SECONDS = 60.0
_MOST_AT_ONCE = 4
_ERRORS = {Failure.UNAVAILABLE: TokenUnavailable, Failure.ACCOUNT: AccountRefused, Failure.DEAD: GrantDead}


@dataclass(frozen=True, slots=True)
class _Held:
    value: str = field(repr=False)
    sealed: bytes = field(repr=False)
    fresh_until: float
    good_until: float


class SharedTokens:
    """A TokenSource. Cheap to make; needs no closing."""

    def __init__(
        self,
        grant: Grant,
        current: Callable[[Connection], Awaitable[Grant]],
        *,
        upstream_id: UUID,
        upstream: str,
        database: Database,
        seal: Seal,
        emit: Callable[[GrantDied], None],
        ca_file: str | None = None,
        clock: Callable[[], float] = time.monotonic,
    ) -> None:
        """`current` reads the same grant with the refresh token of now; it raises TokenUnavailable where there is
        another. `ca_file`: whom to believe instead of the system's authorities."""
        self._grant = grant
        self._current = current
        self._upstream_id = upstream_id
        self._upstream = upstream
        self._database = database
        self._seal = seal
        self._emit = emit
        self._ca_file = ca_file
        self._clock = clock
        self._holder = str(uuid4())
        self._held: dict[str, _Held] = {}
        self._looking: dict[str, asyncio.Task[_Held]] = {}
        self._fetching = asyncio.Semaphore(_MOST_AT_ONCE)

    async def token(self, subject: str | None = None) -> str:
        """See TokenSource."""
        key = self._subject(subject)
        held, now = self._held.get(key), self._clock()
        if held is not None and held.fresh_until > now:
            return held.value
        looking = self._look(key)
        if held is not None and held.good_until > now:
            return held.value
        # Not cancelled: one caller that goes away must not take the others' token with it.
        await asyncio.wait({looking}, timeout=WAIT_SECONDS + FETCH_SECONDS)
        if not looking.done():
            raise TokenUnavailable("no token yet: the database cannot be reached to store it")
        return looking.result().value

    async def refused(self, token: str, subject: str | None = None) -> None:
        """See TokenSource. A second one within a minute is kept: fetching yet another would be of no use."""
        key = self._subject(subject)
        held = self._held.get(key)
        if held is None or held.value != token:
            return
        del self._held[key]
        try:
            async with self._database.connection() as connection:
                await oauth_tokens.drop(connection, self._key(key), held.sealed, not_within_seconds=DROP_SECONDS)
        except StoreUnavailable:
            return  # it is read again, and refused again

    async def close(self) -> None:
        """See TokenSource. It waits no longer than a fetch takes."""
        if self._looking:
            await asyncio.wait(set(self._looking.values()), timeout=FETCH_SECONDS)

    def _subject(self, subject: str | None) -> str:
        return (subject or "").lower() if self._grant.has_subjects else ""

    def _key(self, subject: str) -> TokenKey:
        return TokenKey(self._upstream_id, subject, self._grant.digest)

    def _look(self, subject: str) -> asyncio.Task[_Held]:
        looking = self._looking.get(subject)
        if looking is None:
            looking = self._looking[subject] = asyncio.create_task(self._find_or_fetch(subject))
            looking.add_done_callback(lambda task: self._looked(subject, task))
        return looking

    def _looked(self, subject: str, task: asyncio.Task[_Held]) -> None:
        del self._looking[subject]
        if task.cancelled():
            return
        match task.exception():
            case None:
                self._held[subject] = task.result()
            case GrantDead():
                # An old token may still be let in for a while, but what it stands for is gone.
                self._held.pop(subject, None)
            case _:
                pass  # the old one serves while it is good

    async def _find_or_fetch(self, subject: str) -> _Held:
        give_up_at = self._clock() + WAIT_SECONDS
        try:
            while True:
                found = await self._find_or_lease(subject)
                if isinstance(found, UUID):
                    return await self._fetch(found, subject)
                if found is not None:
                    return found
                if self._clock() > give_up_at:
                    raise TokenUnavailable("no token came from the worker that fetches it")
                await asyncio.sleep(LOOK_SECONDS)
        except StoreUnavailable as error:
            raise TokenUnavailable(f"no token without the database: {error}") from error

    async def _find_or_lease(self, subject: str) -> _Held | UUID | None:
        """A token, or the right to fetch one; None: another has that right."""
        key = self._key(subject)
        async with self._database.connection() as connection:
            record = await oauth_tokens.find(connection, key)
            held = self._opened(record) if record else None
            if held is not None and record is not None and (record.fresh_seconds or 0) > 0:
                return held
            if record is None or not (record.is_being_fetched or (record.retry_seconds or 0) > 0):
                leased = await oauth_tokens.lease(connection, key, holder=self._holder, seconds=LEASE_SECONDS)
                if leased is not None:
                    return leased
        if record is None or record.is_being_fetched:
            return held if record and (record.good_seconds or 0) > LEAST_SECONDS else None
        if record.failure == Failure.DEAD:
            raise GrantDead(record.error or "the grant is dead")
        if held is not None and (record.good_seconds or 0) > LEAST_SECONDS:
            return held
        if record.failure is not None and (record.retry_seconds or 0) > 0:
            raise _ERRORS[Failure(record.failure)](record.error)
        return None

    def _opened(self, record: TokenRecord) -> _Held | None:
        if record.access_token_sealed is None or record.good_seconds is None or record.good_seconds <= 0:
            return None
        try:
            value = self._seal.open(record.access_token_sealed, row=oauth_tokens.seal_row(record.id)).decode()
        except SealError as error:
            # Another node's key: this one cannot serve until it has it too.
            raise TokenUnavailable(str(error)) from error
        now = self._clock()
        return _Held(
            value,
            record.access_token_sealed,
            now + (record.fresh_seconds or 0),
            now + record.good_seconds - LEAST_SECONDS,
        )

    async def _fetch(self, token_id: UUID, subject: str) -> _Held:
        try:
            async with self._fetching:
                token, presented = await self._ask(subject)
        except GrantDead as error:
            raise await self._died(token_id, subject, error) from None
        except AccountRefused as error:
            await self._note(token_id, Failure.ACCOUNT, error, REFUSED_SECONDS)
            raise
        except TokenUnavailable as error:
            await self._note(token_id, Failure.UNAVAILABLE, error, RETRY_SECONDS)
            raise
        early = min(EARLY_SECONDS, token.seconds / 2)
        sealed = self._seal.seal(token.value.encode(), row=oauth_tokens.seal_row(token_id))
        failpoints.reach("refresh-answered")
        while True:
            try:
                async with self._database.transaction() as connection:
                    if token.refresh_token is not None and isinstance(presented, UserGrant):
                        await self._exchange(connection, presented.refresh_token, token.refresh_token)
                    await oauth_tokens.keep(
                        connection,
                        token_id,
                        holder=self._holder,
                        sealed=sealed,
                        fresh_seconds=token.seconds - early,
                        good_seconds=token.seconds,
                    )
                break
            except StoreUnavailable:
                if token.refresh_token is None:
                    raise
                # It is nowhere but here, and the one before it may be worth nothing any more.
                await asyncio.sleep(STORE_SECONDS)
        failpoints.reach("refresh-kept")
        now = self._clock()
        return _Held(token.value, sealed, now + token.seconds - early, now + token.seconds - LEAST_SECONDS)

    async def _exchange(self, connection: Connection, presented: str, following: str) -> None:
        """Store the refresh token that takes the place of the one presented, unless a login has brought another."""
        row = upstreams.seal_row(self._upstream_id, "oauth_refresh_token")
        sealed = await upstreams.lock_refresh_token(connection, self._upstream_id)
        try:
            # By what it says: a rotation of the sealing key may have sealed the same token anew.
            is_presented = sealed is not None and self._seal.open(sealed, row=row).decode() == presented
        except SealError as error:
            raise TokenUnavailable(str(error)) from error
        if is_presented:
            await upstreams.exchange_refresh_token(
                connection, self._upstream_id, self._seal.seal(following.encode(), row=row)
            )

    async def _ask(self, subject: str) -> tuple[AccessToken, Grant]:
        """A token, and the grant that it was asked for with."""
        grant = await self._read_grant()
        try:
            return await self._ask_with(grant, subject), grant
        except GrantDead:
            # Whoever held the lease before, and was given up, may have exchanged the refresh token meanwhile.
            following = await self._read_grant()
            if following == grant:
                raise
            return await self._ask_with(following, subject), following

    async def _read_grant(self) -> Grant:
        async with self._database.connection() as connection:
            return await self._current(connection)

    async def _ask_with(self, grant: Grant, subject: str) -> AccessToken:
        loop = asyncio.get_running_loop()
        tls = await asyncio.to_thread(_context, self._ca_file) if self._ca_file else None
        http = GrantHttp(loop, tls, loop.time() + FETCH_SECONDS)
        return await asyncio.to_thread(grant.fetch, http, subject or None)

    async def _died(self, token_id: UUID, subject: str, error: GrantDead) -> GrantDead | AccountRefused:
        """What it speaks of: where others get tokens of the same grant, of this account alone."""
        async with self._database.connection() as connection:
            is_alone = subject != "" and await oauth_tokens.serves_others(connection, self._key(subject))
        if is_alone:
            await self._note(token_id, Failure.ACCOUNT, error, REFUSED_SECONDS)
            return AccountRefused(str(error))
        if await self._note(token_id, Failure.DEAD, error, DEAD_SECONDS):
            self._emit(GrantDied(self._upstream, subject, str(error)))
        return error

    async def _note(self, token_id: UUID, failure: Failure, error: RelaydError, retry_seconds: float) -> bool:
        async with self._database.connection() as connection:
            return await oauth_tokens.fail(
                connection,
                token_id,
                holder=self._holder,
                failure=failure,
                error=str(error),
                retry_seconds=retry_seconds,
            )


class NoGrant:
    """A TokenSource of an upstream to which nobody has logged in yet."""

    def __init__(self, text: str) -> None:
        self._text = text

    async def token(self, subject: str | None = None) -> str:
        """Raises GrantDead, with what to do."""
        raise GrantDead(self._text)

    async def refused(self, token: str, subject: str | None = None) -> None:
        """There is none."""

    async def close(self) -> None:
        """Nothing is under way."""


def _context(ca_file: str) -> ssl.SSLContext:
    try:
        return ssl.create_default_context(ssl.Purpose.SERVER_AUTH, cadata=Path(ca_file).read_text())
    except (OSError, ValueError) as error:
        reason = error.strerror if isinstance(error, OSError) and error.strerror else "it is not PEM"
        raise TokenUnavailable(f"ca_file {ca_file} cannot be used: {reason}") from error

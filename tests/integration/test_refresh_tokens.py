"""A provider exchanges refresh tokens as it goes: the next one is durable before its access token is used."""

import asyncio
import json
import os
import signal
import sys
from collections.abc import AsyncIterator
from dataclasses import dataclass, field, replace
from pathlib import Path
from typing import Any, Literal

import pytest

from relayd.errors import StoreUnavailable
from relayd.rules.grant_events import GrantDied
from relayd.seal import Seal, new_key, parse_key
from relayd.store import upstreams
from relayd.store.connection import Connection
from relayd.store.ids import new_id
from relayd.store.pool import Database
from relayd.store.sealed import SEALED_COLUMNS, exchange, read
from relayd.store.upstreams import UpstreamRecord
from relayd.upstream.granting import token_source
from relayd.upstream.oauth import DEAD_SECONDS, LEASE_SECONDS
from relayd.upstream.tokens import GrantDead, TokenSource, TokenUnavailable
from tests.conftest import FreshDatabase, at_length
from tests.peers.google_oauth import Answer, Cut, GoogleOauth, Slow
from tests.peers.mail import Authority

ME = "noreply@example.com"
LIFE_SECONDS = 3600.0


@dataclass
class House:
    """An upstream in a database, and a provider that it asks for tokens."""

    db: Database
    google: GoogleOauth
    key: str
    record: UpstreamRecord
    now: float = 0.0
    events: list[GrantDied] = field(default_factory=list)

    @property
    def seal(self) -> Seal:
        return Seal(parse_key(self.key.encode()))

    def source(self, database: Database | None = None) -> TokenSource:
        """As another process would have it: with nothing in memory, and the row as it was when the house was made."""
        return token_source(self.record, self.seal, database or self.db, self.events.append, lambda: self.now)

    async def log_in(self, refresh_token: str) -> None:
        async with self.db.transaction() as connection:
            current = await upstreams.find_to_change(connection, "gw")
            sealed = self.seal.seal(refresh_token.encode(), row=current.seal_row("oauth_refresh_token"))
            await upstreams.save(connection, replace(current, oauth_refresh_token_sealed=sealed))

    async def stored(self) -> str:
        async with self.db.connection() as connection:
            record = await upstreams.find(connection, "gw")
        assert record.oauth_refresh_token_sealed is not None
        return self.seal.open(record.oauth_refresh_token_sealed, row=record.seal_row("oauth_refresh_token")).decode()

    async def pass_time(self, seconds: float = LIFE_SECONDS) -> None:
        self.now += seconds
        async with self.db.connection() as connection:
            await connection.execute(
                "UPDATE relayd_state SET clock_offset = clock_offset + make_interval(secs => $1)", seconds
            )

    async def begin_slowly(self, source: TokenSource) -> tuple[asyncio.Task[str], asyncio.Event]:
        """A fetch that the provider has heard of, and answers once the event is set."""
        leave = asyncio.Event()
        self.google.script.append(Slow(leave))
        fetching = asyncio.create_task(source.token())
        async with asyncio.timeout(20):
            while not self.google.under_way:
                await asyncio.sleep(0)
        return fetching, leave

    async def take(self, database: FreshDatabase, *, failpoint: str = "") -> tuple[int, list[str]]:
        """A process takes twenty tokens; how it ended, and the tokens."""
        process = await asyncio.create_subprocess_exec(
            *(sys.executable, "-m", "tests.integration.token_takers"),
            stdin=asyncio.subprocess.PIPE,
            stdout=asyncio.subprocess.PIPE,
            env=os.environ | {"RELAYD_FAILPOINTS": failpoint},
        )
        work = json.dumps([database.dsn_with_password, self.key, [None] * 20])
        out, _ = await process.communicate(work.encode())
        assert process.returncode is not None
        return process.returncode, json.loads(out) if out else []


@pytest.fixture
async def google(tmp_path: Path) -> AsyncIterator[GoogleOauth]:
    async with GoogleOauth(Authority(tmp_path)) as running:
        yield running


@pytest.fixture
async def house(db: Database, google: GoogleOauth) -> House:
    record = UpstreamRecord(
        new_id(),
        "gw",
        "google_workspace",
        mode="xoauth2",
        smtp_host="localhost",
        smtp_port=587,
        smtp_tls="starttls",
        smtp_ca_file=google.authority.file,
        token_url=google.token_url,
        oauth_client_id=google.client_id,
    )
    house = House(db, google, new_key(), record)

    def sealed(column: str, value: str) -> bytes:
        return house.seal.seal(value.encode(), row=record.seal_row(column))

    house.record = replace(
        record,
        oauth_client_secret_sealed=sealed("oauth_client_secret", google.client_secret),
        oauth_refresh_token_sealed=sealed("oauth_refresh_token", google.grant()),
    )
    async with db.transaction() as connection:
        await upstreams.add(connection, house.record)
    return house


def presented(google: GoogleOauth) -> list[str]:
    return [form["refresh_token"] for form in google.requests]


@pytest.mark.parametrize("exchanges", ["never", "same", "keeps", "revokes", "strict"])
async def test_every_kind_of_provider_is_refreshed_again_and_again(
    house: House, exchanges: Literal["never", "same", "keeps", "revokes", "strict"]
) -> None:
    house.google.exchanges = exchanges
    kept = house.source()
    for _ in range(4):
        # By turns a worker that has been there all the while, and one that begins with the row of long ago.
        for source in (kept, house.source()):
            assert house.google.allows(await source.token(), ME)
            await house.pass_time()
    asked = presented(house.google)
    assert len(asked) == 8 and len(set(asked)) == (8 if exchanges in ("keeps", "revokes", "strict") else 1)
    assert house.events == [] and await house.stored() in house.google.grants


async def test_the_next_refresh_token_is_committed_before_the_access_token_is_used(
    house: House, monkeypatch: pytest.MonkeyPatch
) -> None:
    house.google.exchanges = "strict"
    away = True
    committed: list[str] = []
    exchanging = upstreams.exchange_refresh_token

    async def exchange_when_back(connection: Connection, *arguments: Any) -> None:
        committed.append("tried")
        if away:
            raise StoreUnavailable("Postgres is unavailable")
        await exchanging(connection, *arguments)

    monkeypatch.setattr("relayd.store.upstreams.exchange_refresh_token", exchange_when_back)
    waiting = asyncio.create_task(house.source().token())
    async with asyncio.timeout(20):
        while len(committed) < 3:
            await asyncio.sleep(0.01)
    assert not waiting.done() and await house.stored() in house.google.spent
    away = False
    assert house.google.allows(await waiting, ME)
    assert await house.stored() in house.google.grants
    await house.pass_time()
    assert house.google.allows(await house.source().token(), ME)


async def test_an_exchange_is_no_change_of_the_upstream(house: House) -> None:
    house.google.exchanges = "revokes"
    async with house.db.transaction() as connection:
        before = await upstreams.find(connection, "gw")
        await upstreams.mark_verified(connection, before)
        before = await upstreams.find(connection, "gw")
    await house.source().token()
    async with house.db.connection() as connection:
        after = await upstreams.find(connection, "gw")
    # Workers keep their connections, and what was tried stays tried.
    assert after.oauth_refresh_token_sealed != before.oauth_refresh_token_sealed
    assert replace(after, oauth_refresh_token_sealed=before.oauth_refresh_token_sealed) == before
    assert after.is_verified


async def test_many_workers_present_each_refresh_token_once(house: House) -> None:
    house.google.exchanges = "strict"
    for turn in range(3):
        sources = [house.source() for _ in range(6)]
        tokens = await asyncio.gather(*(source.token() for source in sources for _ in range(5)))
        assert len(set(tokens)) == 1 and house.google.refreshes() == turn + 1
        await house.pass_time()


async def test_a_worker_that_was_given_up_does_not_spoil_what_the_next_one_does(house: House) -> None:
    house.google.exchanges = "revokes"
    slow, leave = await house.begin_slowly(house.source())
    # Its lease lapses, and another takes its place with the same refresh token, which is good no more afterwards.
    await house.pass_time(LEASE_SECONDS + 1)
    assert house.google.allows(await house.source().token(), ME)
    stored = await house.stored()
    leave.set()
    # The first is told invalid_grant; it looks again and takes the one that counts.
    assert house.google.allows(await slow, ME)
    assert presented(house.google)[-1] == stored
    assert house.events == [] and await house.stored() in house.google.grants


async def test_a_login_meanwhile_is_not_overwritten(house: House) -> None:
    house.google.exchanges = "keeps"
    fetching, leave = await house.begin_slowly(house.source())
    theirs = house.google.grant("other@example.com")
    await house.log_in(theirs)
    leave.set()
    await fetching
    assert await house.stored() == theirs
    await house.pass_time(LEASE_SECONDS + 1)
    house.record = replace(house.record, smtp_username="other@example.com")
    assert house.google.allows(await house.source().token(), "other@example.com")


async def test_sealing_anew_during_a_refresh_loses_neither(house: House) -> None:
    house.google.exchanges = "strict"
    column = next(each for each in SEALED_COLUMNS if each.column == "oauth_refresh_token_sealed")
    fetching, leave = await house.begin_slowly(house.source())

    async def reseal() -> int:
        async with house.db.transaction() as connection:
            values = await read(connection, column, None, 10)
            (value,) = values
            plain = house.seal.open(value.sealed, row=column.row(value.key))
            anew = house.seal.seal(plain, row=column.row(value.key))
            return len(await exchange(connection, column, [(value, anew)]))

    assert await reseal() == 1
    # The lease is still there: nobody presents the same refresh token a second time.
    other = asyncio.create_task(house.source().token())
    await asyncio.sleep(0.3)
    assert house.google.under_way == 1 and not other.done()
    leave.set()
    assert await fetching == await other
    assert await house.stored() in house.google.grants
    # And one that was read before the exchange is not put in place of what came after it.
    async with house.db.connection() as connection:
        (before,) = await read(connection, column, None, 10)
    await house.pass_time()
    await house.source().token()
    async with house.db.transaction() as connection:
        assert await exchange(connection, column, [(before, before.sealed)]) == set()
    assert await house.stored() in house.google.grants


@pytest.mark.parametrize("setting", ["smtp_ca_file", "token_url"])
async def test_a_change_of_settings_does_not_let_a_second_refresh_begin(house: House, setting: str) -> None:
    house.google.exchanges = "strict"
    fetching, leave = await house.begin_slowly(house.source())
    async with house.db.transaction() as connection:
        current = await upstreams.find_to_change(connection, "gw")
        value = {"smtp_ca_file": current.smtp_ca_file, "token_url": current.token_url}[setting]
        # The same file under another name.
        changed = {"smtp_ca_file": str(value).replace("/", "//", 1)} if setting == "smtp_ca_file" else {}
        house.record = await upstreams.save(connection, replace(current, oauth_account=ME, **changed))
    other = asyncio.create_task(house.source().token())
    await asyncio.sleep(0.3)
    assert house.google.under_way == 1 and not other.done()
    leave.set()
    await fetching
    await house.pass_time(LEASE_SECONDS + 1)
    assert house.google.allows(await other, ME)
    assert house.google.grants


async def test_a_dead_refresh_token_names_the_command_that_logs_in_again(house: House) -> None:
    house.google.exchanges = "revokes"
    old = await house.stored()
    await house.source().token()
    await house.log_in(old)  # as after a kill between the answer and the commit
    with pytest.raises(GrantDead, match="relayd upstream login gw"):
        await house.source().token()
    assert len(house.events) == 1
    await house.log_in(house.google.grant())
    assert house.google.allows(await house.source().token(), ME)


async def test_a_refusal_does_not_hide_that_another_has_exchanged_it(house: House) -> None:
    following = house.google.grant()
    house.google.script.append(Answer.error("invalid_grant"))
    reading = house.source()._current  # type: ignore[attr-defined]

    async def current(connection: Connection) -> Any:
        found = await reading(connection)
        if house.google.refreshes() == 0:
            return found
        return replace(found, refresh_token=following)

    source = house.source()
    source._current = current  # type: ignore[attr-defined]
    assert house.google.allows(await source.token(), ME)
    assert presented(house.google)[-1] == following and house.events == []


@pytest.mark.parametrize("given", [None, "", 17, ["x"], "line\nbreak"])
async def test_a_refresh_token_that_is_none_leaves_the_old_one(house: House, given: Any) -> None:
    before = await house.stored()
    answer = {"access_token": house.google.issue(ME, ("https://mail.google.com/",)), "expires_in": 3600}
    house.google.script.append(Answer(200, answer | {"refresh_token": given}))
    assert house.google.allows(await house.source().token(), ME)
    assert await house.stored() == before


async def test_an_answer_that_was_lost_is_asked_for_again(house: House) -> None:
    house.google.exchanges = "keeps"
    house.google.script.append(Cut())
    assert house.google.allows(await _with_patience(house), ME)
    assert await house.stored() in house.google.grants


async def test_neither_log_nor_audit_nor_table_shows_a_refresh_token(
    house: House, caplog: pytest.LogCaptureFixture
) -> None:
    house.google.exchanges = "strict"
    for _ in range(3):
        await house.source().token()
        await house.pass_time()
    async with house.db.connection() as connection:
        rows = await connection.fetch("SELECT * FROM audit_logs WHERE table_name = 'email_configurations' ORDER BY id")
        dumped = str([dict(row) for row in rows])
        for table in ("oauth_tokens", "email_configurations"):
            dumped += str(await connection.fetch(f"SELECT t::text FROM {table} t"))
    exchanged = [row for row in rows if row["actor"] == "token exchange"]
    assert len(exchanged) == 3
    assert all(row["after"]["oauth_refresh_token_sealed"] == "(sealed, new)" for row in exchanged)
    assert "canary" not in dumped + caplog.text and b"canary".hex() not in dumped


async def test_closing_waits_for_a_refresh_under_way(house: House) -> None:
    house.google.exchanges = "strict"
    source = house.source()
    caller, leave = await house.begin_slowly(source)
    caller.cancel()
    closing = asyncio.create_task(source.close())
    await asyncio.sleep(0.1)
    assert not closing.done()
    leave.set()
    await closing
    assert await house.stored() in house.google.grants


@pytest.mark.parametrize(
    ("failpoint", "exchanges", "is_well"),
    [
        ("refresh-answered", "keeps", True),  # a grace period, or a provider that does not mind
        ("refresh-answered", "never", True),
        ("refresh-answered", "revokes", False),  # the one window that nobody can close
        ("refresh-kept", "revokes", True),
        ("refresh-kept", "strict", True),
    ],
)
async def test_a_kill_around_the_commit(
    house: House,
    database: FreshDatabase,
    failpoint: str,
    exchanges: Literal["never", "keeps", "revokes", "strict"],
    is_well: bool,
) -> None:
    house.google.exchanges = exchanges
    assert await house.take(database, failpoint=failpoint) == (-signal.SIGKILL, [])
    assert house.google.refreshes() == 1
    await house.pass_time(LEASE_SECONDS + 1)
    if failpoint == "refresh-kept":
        # What it has kept serves the others.
        assert house.google.allows(await house.source().token(), ME) and house.google.refreshes() == 1
        await house.pass_time()
    if is_well:
        assert house.google.allows(await house.source().token(), ME)
        return
    with pytest.raises(GrantDead, match=r"invalid_grant.*relayd upstream login gw"):
        await house.source().token()
    await house.pass_time(DEAD_SECONDS + 1)
    await house.log_in(house.google.grant())
    assert house.google.allows(await house.source().token(), ME)


@at_length
async def test_processes_that_come_and_die_leave_one_living_grant(house: House, database: FreshDatabase) -> None:
    house.google.exchanges = "strict"
    for turn in range(3):
        ended = await asyncio.gather(*(house.take(database) for _ in range(3)))
        assert {code for code, _ in ended} == {0}
        assert len({token for _, tokens in ended for token in tokens}) == 1
        assert house.google.refreshes() == 2 * turn + 1
        await house.pass_time()
        assert (await house.take(database, failpoint="refresh-kept"))[0] == -signal.SIGKILL
        await house.pass_time()
    assert await house.stored() in house.google.grants


async def _with_patience(house: House) -> str:
    """One that is told to try again does so."""
    for _ in range(5):
        try:
            return await house.source().token()
        except TokenUnavailable:
            await house.pass_time(60)
    raise AssertionError("no token")

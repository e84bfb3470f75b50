"""Access tokens: fetched once for everybody, refreshed in time, refused, dead, mended. Against a verifying server."""

import asyncio
import json
import sys
from collections.abc import AsyncIterator
from dataclasses import dataclass, field, replace
from pathlib import Path
from typing import Any
from urllib.parse import quote

import pytest

from relayd.rules.grant_events import GrantDied
from relayd.rules.outcome import Deferred, Postponed, Scope, Stage
from relayd.seal import Seal, new_key, parse_key
from relayd.store import oauth_tokens, upstreams
from relayd.store.ids import new_id
from relayd.store.pool import Database
from relayd.store.upstreams import UpstreamRecord
from relayd.upstream import oauth
from relayd.upstream.granting import token_source
from relayd.upstream.http import HttpClient
from relayd.upstream.tokens import AccountRefused, GrantDead, TokenSource, TokenUnavailable
from relayd.upstream.verdict import judge_exception
from tests.conftest import FreshDatabase, at_length
from tests.peers.echoing import EchoingWeb
from tests.peers.google_oauth import Answer, Cut, Endless, GoogleOauth, Slow
from tests.peers.mail import Authority


@dataclass
class House:
    """An upstream in a database, and a Google that it asks for tokens."""

    db: Database
    google: GoogleOauth
    seal: Seal
    record: UpstreamRecord
    now: float = 0.0
    events: list[GrantDied] = field(default_factory=list)

    def source(self) -> TokenSource:
        """As another process would have it: with nothing in memory."""
        return token_source(self.record, self.seal, self.db, self.events.append, lambda: self.now)

    async def change(self, **columns: Any) -> None:
        for name in ("oauth_refresh_token", "oauth_client_secret", "google_service_account"):
            if (value := columns.pop(name, None)) is not None:
                columns[f"{name}_sealed"] = self.seal.seal(value.encode(), row=self.record.seal_row(name))
        self.record = replace(self.record, **columns)
        async with self.db.transaction() as connection:
            await upstreams.save(connection, self.record)

    async def pass_time(self, seconds: float) -> None:
        self.now += seconds
        async with self.db.connection() as connection:
            await connection.execute(
                "UPDATE relayd_state SET clock_offset = clock_offset + make_interval(secs => $1)", seconds
            )


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
    house = House(db, google, Seal(parse_key(new_key().encode())), record)
    async with db.transaction() as connection:
        await upstreams.add(connection, record)
    await house.change(oauth_client_secret=google.client_secret, oauth_refresh_token=google.grant())
    return house


async def use_service_account(house: House, *users: str, **changes: Any) -> None:
    key = house.google.service_account(users=users, **changes)
    await house.change(google_service_account=key)


async def test_a_token_serves_everybody_until_it_is_old(house: House) -> None:
    source = house.source()
    token = await source.token()
    assert house.google.allows(token, "noreply@example.com")
    assert await source.token() == token and await house.source().token() == token
    await house.pass_time(3600 - oauth.EARLY_SECONDS - 1)
    assert await source.token() == token
    assert house.google.refreshes() == 1


async def test_it_is_exchanged_before_it_ends_while_the_old_one_serves(house: House) -> None:
    source = house.source()
    old = await source.token()
    leave = asyncio.Event()
    house.google.script.append(Slow(leave))
    await house.pass_time(3600 - oauth.EARLY_SECONDS + 1)
    # Nobody waits: neither who fetches, nor another process.
    assert await source.token() == old and await house.source().token() == old
    leave.set()
    async with asyncio.timeout(20):
        while await source.token() == old:
            await asyncio.sleep(0)
    assert house.google.refreshes() == 2
    assert await house.source().token() == await source.token()


async def test_one_fetch_at_a_time_for_a_grant_whoever_asks(house: House) -> None:
    sources = [house.source() for _ in range(10)]
    tokens = await asyncio.gather(*(source.token() for source in sources for _ in range(20)))
    assert len(set(tokens)) == 1
    assert (house.google.refreshes(), house.google.most_under_way) == (1, 1)


@at_length
async def test_two_processes_under_load_fetch_once_a_grant(house: House, database: FreshDatabase) -> None:
    users = ("a@example.com", "b@example.com")
    await use_service_account(house, *users)
    key = new_key()
    house.seal = Seal(parse_key(key.encode()))
    await house.change(google_service_account=house.google.service_account(users=users))
    work = json.dumps([database.dsn_with_password, key, [user for user in users for _ in range(60)]])
    processes = [
        await asyncio.create_subprocess_exec(
            *(sys.executable, "-m", "tests.integration.token_takers"),
            stdin=asyncio.subprocess.PIPE,
            stdout=asyncio.subprocess.PIPE,
        )
        for _ in range(2)
    ]
    told = await asyncio.gather(*(process.communicate(work.encode()) for process in processes))
    tokens = [token for out, _ in told for token in json.loads(out)]
    assert len(tokens) == 2 * 120 and len(set(tokens)) == 2
    assert [house.google.refreshes(user) for user in users] == [1, 1]


async def test_a_service_account_speaks_for_each_account_on_its_own(house: House) -> None:
    await use_service_account(house, "a@example.com", "b@example.com")
    source = house.source()
    first, second = await source.token("A@example.com"), await source.token("b@example.com")
    assert house.google.allows(first, "a@example.com") and house.google.allows(second, "b@example.com")
    assert await source.token("a@example.com") == first


async def test_a_refused_token_is_exchanged_once_not_in_a_loop(house: House) -> None:
    source, other = house.source(), house.source()
    first = await source.token()
    assert await other.token() == first
    await source.refused(first)
    second = await source.token()
    assert second != first
    # Who learns it later takes the one that has come meanwhile.
    await other.refused(first)
    assert await other.token() == second
    for _ in range(5):
        await source.refused(second)
        assert await source.token() == second
    assert house.google.refreshes() == 2
    await house.pass_time(oauth.DROP_SECONDS + 1)
    await source.refused(second)
    assert await source.token() not in (first, second)


@pytest.mark.parametrize("error", ["invalid_grant", "unauthorized_client", "deleted_client", "invalid_client"])
async def test_a_dead_grant_is_recorded_and_told_once(house: House, error: str) -> None:
    house.google.script += [
        Answer.error(error, "Token has been expired or revoked.", 400 if "grant" in error else 401)
    ] * 2
    for source in (house.source(), house.source()):
        with pytest.raises(GrantDead, match=f"{error}.*relayd upstream login gw"):
            await source.token()
    assert house.google.refreshes() == 1  # the second asked the database alone
    assert [(event.upstream, event.subject) for event in house.events] == [("gw", "")]
    async with house.db.connection() as connection:
        (dead,) = await oauth_tokens.dead(connection, house.record.id)
    assert error in dead.error
    # It is looked at again now and then, and told no more.
    await house.pass_time(oauth.DEAD_SECONDS + 1)
    with pytest.raises(GrantDead):
        await house.source().token()
    assert (house.google.refreshes(), len(house.events)) == (2, 1)


async def test_a_mended_grant_works_at_once(house: House) -> None:
    house.google.grants.clear()
    with pytest.raises(GrantDead):
        await house.source().token()
    await house.change(oauth_refresh_token=house.google.grant())
    assert house.google.allows(await house.source().token(), "noreply@example.com")
    async with house.db.connection() as connection:
        assert await oauth_tokens.dead(connection, house.record.id) == []


async def test_a_grant_that_its_administrator_has_mended_works_after_a_while(house: House) -> None:
    house.google.script.append(Answer.error("invalid_grant"))
    source = house.source()
    with pytest.raises(GrantDead):
        await source.token()
    await house.pass_time(oauth.DEAD_SECONDS + 1)
    await source.token()
    async with house.db.connection() as connection:
        assert await oauth_tokens.dead(connection, house.record.id) == []


async def test_an_account_that_is_unknown_does_not_kill_the_grant(house: House) -> None:
    await use_service_account(house, "a@example.com")
    source = house.source()
    for _ in range(2):
        with pytest.raises(AccountRefused, match=r"gone@example\.com.*Invalid email or User ID") as refused:
            await source.token("gone@example.com")
    outcome = judge_exception(Stage.AUTH, refused.value)
    assert isinstance(outcome, Postponed) and outcome.scope is Scope.MAILBOX
    assert house.google.refreshes("gone@example.com") == 1
    await source.token("a@example.com")
    assert house.events == []


async def test_a_scope_that_is_not_delegated_kills_the_grant_unless_others_are_served(house: House) -> None:
    await use_service_account(house, "a@example.com", "b@example.com", scopes=["https://example.com/other"])
    with pytest.raises(GrantDead, match="relayd doctor google gw") as dead:
        await house.source().token("a@example.com")
    outcome = judge_exception(Stage.AUTH, dead.value)
    assert isinstance(outcome, Postponed) and (outcome.scope, outcome.hold_seconds) == (Scope.UPSTREAM, 300)
    await use_service_account(house, "a@example.com", "b@example.com")
    await house.source().token("a@example.com")
    house.google.script.append(Answer.error("unauthorized_client", "not authorized for any of the scopes", 401))
    with pytest.raises(AccountRefused):
        await house.source().token("b@example.com")


async def test_a_key_that_google_does_not_know_is_told(house: House) -> None:
    text = house.google.service_account(users=["a@example.com"])
    house.google.service_account(users=["a@example.com"])  # another key of the same account takes its place
    await house.change(google_service_account=text)
    with pytest.raises(GrantDead, match="relayd upstream set-service-account gw"):
        await house.source().token("a@example.com")


@pytest.mark.parametrize(
    ("answer", "text"),
    [
        (Answer(403, "<html>blocked by canary-proxy</html>"), "not OAuth's"),
        (Answer(200, "{}"), "no token"),
        (Answer(200, {"access_token": "line\nbreak", "expires_in": 3600}), "without a usable token"),
        (Answer(200, {"access_token": "x", "expires_in": "soon"}), "makes no sense"),
        (Answer(200, {"access_token": "x", "expires_in": 10**30}), "makes no sense"),
        (Answer(200, "[]"), "makes no sense"),
        (Endless(), "more than 1048576 octets"),
        (Cut(), "connection lost"),
    ],
)
async def test_a_server_out_of_order_is_no_dead_grant(house: House, answer: Any, text: str) -> None:
    house.google.script.append(answer)
    source = house.source()
    with pytest.raises(TokenUnavailable, match=text) as failed:
        await source.token()
    assert "canary" not in str(failed.value) and not isinstance(failed.value, AccountRefused)
    outcome = judge_exception(Stage.AUTH, failed.value)
    assert isinstance(outcome, Deferred) and outcome.scope is Scope.UPSTREAM
    assert house.events == []
    await house.pass_time(oauth.RETRY_SECONDS + 1)
    await source.token()


async def test_a_server_that_is_overloaded_is_asked_again(house: House) -> None:
    house.google.script.append(Answer.error("backendError", status=503))
    assert house.google.allows(await house.source().token(), "noreply@example.com")


async def test_no_server_and_an_old_token_that_is_good(house: House) -> None:
    source = house.source()
    old = await source.token()
    await house.pass_time(3600 - oauth.EARLY_SECONDS + 1)
    house.google.script += [Cut()] * 3
    assert await source.token() == old
    async with asyncio.timeout(20):
        while house.google.refreshes() < 2:
            await asyncio.sleep(0)
    assert await source.token() == old


async def test_who_dies_while_fetching_is_waited_for_no_longer_than_his_lease(house: House) -> None:
    source = house.source()
    leave = asyncio.Event()
    house.google.script.append(Slow(leave))
    dying = asyncio.create_task(source.token())
    async with asyncio.timeout(20):
        while not house.google.under_way:
            await asyncio.sleep(0)
    waiting = asyncio.create_task(house.source().token())
    await house.pass_time(oauth.LEASE_SECONDS + 1)
    assert house.google.allows(await waiting, "noreply@example.com")
    leave.set()
    await dying


async def test_an_untrusted_certificate_gets_nothing(house: House, tmp_path: Path) -> None:
    other = tmp_path / "other"
    other.mkdir()
    await house.change(smtp_ca_file=Authority(other).file)
    with pytest.raises(TokenUnavailable, match="certificate not accepted"):
        await house.source().token()
    assert house.google.requests == []
    await house.change(smtp_ca_file="/nonexistent")
    with pytest.raises(TokenUnavailable, match="/nonexistent cannot be used: No such file"):
        await house.source().token()


async def test_no_grant_yet_says_what_to_do(house: House) -> None:
    house.record = replace(house.record, oauth_refresh_token_sealed=None)
    with pytest.raises(GrantDead, match="relayd upstream login gw"):
        await house.source().token()


async def test_tokens_are_sealed_and_in_no_text(house: House) -> None:
    source = house.source()
    token = await source.token()
    async with house.db.connection() as connection:
        dumped = await connection.fetchval("SELECT string_agg(t::text, '') FROM oauth_tokens t")
        dumped += await connection.fetchval("SELECT string_agg(a::text, '') FROM audit_logs a")
        record = await connection.fetchrow("SELECT id, access_token_sealed FROM oauth_tokens")
    assert "canary" not in dumped and b"canary".hex() not in dumped
    assert record is not None
    assert house.seal.open(record[1], row=f"oauth_tokens/{record[0]}/access_token").decode() == token
    assert "canary" not in repr(vars(source)) + repr(house.record)


@pytest.mark.parametrize("is_service_account", [False, True])
async def test_a_token_server_that_repeats_what_it_was_sent_is_quoted_without_it(
    house: House, is_service_account: bool
) -> None:
    if is_service_account:
        await use_service_account(house, "a@example.com")
    with EchoingWeb("") as web:
        await house.change(token_url=f"{web.url}/dead")
        with pytest.raises(GrantDead) as failed:
            await house.source().token("a@example.com" if is_service_account else None)
        (secret,) = {each for each in web.heard if each.startswith(("eyJ", "1//"))}
    assert "***" in str(failed.value)
    assert secret not in str(failed.value) and quote(secret, safe="") not in str(failed.value)


async def test_an_api_that_repeats_its_key_is_quoted_without_it() -> None:
    client = HttpClient(max_connections=1)
    with EchoingWeb("") as web:
        reply = await client.request("GET", f"{web.url}/v3/scopes", headers={"Authorization": "Bearer SG.canary/key+="})
        given = await client.request("GET", f"{web.url}/give", headers={"Authorization": "Bearer access_token"})
    await client.close()
    assert b"canary" not in reply.content and b"Bearer%20***" in reply.content
    assert b'"access_token"' in given.content, "what was asked for comes as it is"

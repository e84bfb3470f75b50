"""Google Workspace over SMTP: each mode against servers that ask for what Google asks for."""

import asyncio
import logging
from collections.abc import AsyncIterator
from dataclasses import dataclass, field
from pathlib import Path
from typing import Any

import pytest

from relayd.daemon.providers import Providers
from relayd.daemon.reporting import emit
from relayd.mail.address import Address
from relayd.rules.grant_events import GrantDied
from relayd.rules.outcome import Deferred, Outcome, Postponed, Scope, Sent, Stage
from relayd.seal import Seal, new_key, parse_key
from relayd.store import upstreams
from relayd.store.ids import new_id
from relayd.store.pool import Database
from relayd.store.upstreams import UpstreamRecord
from tests.peers.google_oauth import Answer, GoogleOauth
from tests.peers.google_smtp import GoogleSmtp
from tests.peers.mail import Authority, transmission
from tests.peers.smtp_server import ScriptedServer


@dataclass
class House:
    """A Google that gives tokens, and a worker's view of one upstream."""

    db: Database
    google: GoogleOauth
    seal: Seal = field(default_factory=lambda: Seal(parse_key(new_key().encode())))
    events: list[GrantDied] = field(default_factory=list)

    async def upstream(self, server: ScriptedServer, mode: str | None, **columns: Any) -> Any:
        record = UpstreamRecord(new_id(), "gw", "google_workspace" if mode else "smtp_relay", mode=mode)
        for name in ("oauth_refresh_token", "oauth_client_secret", "google_service_account", "smtp_password"):
            if (value := columns.pop(name, None)) is not None:
                columns[f"{name}_sealed"] = self.seal.seal(value.encode(), row=record.seal_row(name))
        record = UpstreamRecord(
            record.id,
            record.name,
            record.provider_type,
            **{
                "mode": mode,
                "smtp_host": "localhost",
                "smtp_port": server.port,
                "smtp_tls": "starttls",
                "smtp_ca_file": self.google.authority.file,
                "token_url": self.google.token_url,
                "max_connections": 2,
                **columns,
            },
        )
        async with self.db.transaction() as connection:
            await upstreams.add(connection, record)
        providers = Providers(
            self.db, self.seal, hostname="relay.example.org", index=0, workers=1, emit=self.events.append
        )
        ((_, build),) = await providers.load()
        return build()

    def user(self, account: str = "noreply@example.com", *, named: str | None = None) -> dict[str, Any]:
        return {
            "oauth_client_id": self.google.client_id,
            "oauth_client_secret": self.google.client_secret,
            "oauth_refresh_token": self.google.grant(account),
            "oauth_account": named or account,
        }


@pytest.fixture
async def house(db: Database, tmp_path: Path) -> AsyncIterator[House]:
    async with GoogleOauth(Authority(tmp_path)) as google:
        yield House(db, google)


async def send(upstream: Any, mailbox: str | None = "noreply@example.com", **changes: Any) -> Outcome:
    address = Address.parse(mailbox) if mailbox else None
    (outcome,) = await upstream.deliver(transmission(mailbox=address, **changes))
    return outcome


async def test_xoauth2_with_a_users_grant(house: House) -> None:
    async with GoogleSmtp(house.google) as server:
        upstream = await house.upstream(server, "xoauth2", **house.user())
        outcomes = [await send(upstream, "sales@example.com") for _ in range(3)]
        await upstream.close()
    assert [type(outcome) for outcome in outcomes] == [Sent] * 3
    assert server.logins == ["noreply@example.com"] and len(server.messages) == 3


async def test_xoauth2_with_a_service_account_logs_in_as_each_mailbox(house: House) -> None:
    users = ["a@example.com", "b@example.com"]
    async with GoogleSmtp(house.google) as server:
        key = house.google.service_account(users=users)
        upstream = await house.upstream(server, "xoauth2", google_service_account=key)
        outcomes = [await send(upstream, user) for user in (*users, *users)]
        unknown = await send(upstream, "gone@example.com")
        nobody = await send(upstream, None, reverse_path=None)
        await upstream.close()
    assert all(isinstance(outcome, Sent) for outcome in outcomes), outcomes
    assert sorted(server.logins) == users
    assert isinstance(unknown, Postponed) and unknown.scope is Scope.MAILBOX and unknown.cause.stage is Stage.AUTH
    assert isinstance(nobody, Deferred) and "nobody to log in as" in nobody.cause.text


async def test_the_cap_holds_over_all_logins_and_idle_ones_make_room(house: House) -> None:
    users = [f"user{number}@example.com" for number in range(6)]
    async with GoogleSmtp(house.google) as server:
        key = house.google.service_account(users=users)
        upstream = await house.upstream(server, "xoauth2", google_service_account=key, idle_seconds=600.0)
        async with asyncio.timeout(20):
            outcomes = await asyncio.gather(*(send(upstream, user) for user in users * 3))
        await upstream.close()
    assert all(isinstance(outcome, Sent) for outcome in outcomes)
    assert server.most_connections == 2


async def test_smtp_relay_greets_with_the_domain_of_the_mail(house: House) -> None:
    async with GoogleSmtp(house.google, domains={"example.com", "example.net"}, needs_login=False) as server:
        upstream = await house.upstream(server, "smtp-relay")
        by_mailbox = await send(upstream)
        by_path = await send(upstream, None, reverse_path=Address.parse("bounces@example.net"))
        foreign = await send(upstream, "a@example.org")
        again = await send(upstream)
        await upstream.close()
    assert all(isinstance(outcome, Sent) for outcome in (by_mailbox, by_path, again))
    assert not isinstance(foreign, Sent) and foreign.cause.code == 550
    names = [command.removeprefix(b"EHLO ") for command in server.commands if command.startswith(b"EHLO")]
    assert set(names) == {b"example.com", b"example.net", b"example.org"}
    # Each connection keeps its name, in the clear and under TLS; the first serves the last message too, or a new one.
    assert names[0::2] == names[1::2]


async def test_smtp_relay_keeps_the_name_that_an_operator_has_chosen(house: House) -> None:
    async with GoogleSmtp(house.google, domains={"mail.example.com"}, needs_login=False) as server:
        upstream = await house.upstream(server, "smtp-relay", ehlo_name="mail.example.com")
        assert isinstance(await send(upstream), Sent)
        await upstream.close()


async def test_smtp_relay_with_a_password(house: House) -> None:
    async with ScriptedServer(starttls=house.google.authority.server_context("localhost")) as server:
        upstream = await house.upstream(
            server, "smtp-relay", smtp_username="relay@example.com", smtp_password="app password"
        )
        assert isinstance(await send(upstream), Sent)
        await upstream.close()
    assert server.count(b"AUTH PLAIN") == 1 and b"EHLO example.com" in server.commands


@pytest.mark.parametrize("is_delegated", [True, False])
async def test_smtp_relay_with_a_token(house: House, is_delegated: bool) -> None:
    async with GoogleSmtp(house.google) as server:
        key = house.google.service_account(users=["noreply@example.com"])
        login = {"google_service_account": key} if is_delegated else house.user()
        upstream = await house.upstream(server, "smtp-relay", **login)
        assert isinstance(await send(upstream), Sent)
        await upstream.close()
    assert server.logins == ["noreply@example.com"] and b"EHLO example.com" in server.commands


async def test_another_provider_with_a_refresh_token(house: House) -> None:
    async with GoogleSmtp(house.google) as server:
        upstream = await house.upstream(server, None, smtp_auth_mechanism="XOAUTH2", **house.user())
        assert isinstance(await send(upstream), Sent)
        await upstream.close()
    assert server.logins == ["noreply@example.com"] and b"EHLO relay.example.org" in server.commands


async def test_a_revoked_token_is_exchanged_once_and_the_mail_goes(house: House) -> None:
    async with GoogleSmtp(house.google) as server:
        upstream = await house.upstream(server, "xoauth2", max_messages_per_connection=1, **house.user())
        assert isinstance(await send(upstream), Sent)
        house.google.revoked |= house.google.issued.keys()
        assert isinstance(await send(upstream), Sent)
        await upstream.close()
    assert (house.google.refreshes(), server.empty_answers) == (2, 1)


async def test_a_token_for_another_account_is_told_and_costs_no_attempt(house: House) -> None:
    async with GoogleSmtp(house.google) as server:
        upstream = await house.upstream(
            server, "xoauth2", **house.user("else@example.com", named="noreply@example.com")
        )
        outcomes = [await send(upstream) for _ in range(4)]
        await upstream.close()
    for outcome in outcomes:
        assert isinstance(outcome, Postponed) and (outcome.scope, outcome.hold_seconds) == (Scope.UPSTREAM, 300)
        assert (outcome.cause.code, outcome.cause.enhanced) == (535, "5.7.8")
        assert "noreply@example.com may not log in" in outcome.cause.text and "another account" in outcome.cause.text
    assert house.google.refreshes() == 2 and server.messages == []


@pytest.mark.parametrize("reply", ["454 4.7.0 Temporary authentication failure", "421 4.7.0 Try again later, closing"])
async def test_a_temporary_refusal_at_auth_is_deferred_and_keeps_the_token(house: House, reply: str) -> None:
    async with GoogleSmtp(house.google, {Stage.AUTH: reply}) as server:
        upstream = await house.upstream(server, "xoauth2", **house.user())
        outcome = await send(upstream)
        await upstream.close()
    assert isinstance(outcome, Deferred) and outcome.scope is Scope.UPSTREAM
    assert (outcome.cause.stage, outcome.cause.code) == (Stage.AUTH, int(reply[:3]))
    assert house.google.refreshes() == 1


async def test_a_dead_grant_postpones_and_says_what_to_do(house: House) -> None:
    async with GoogleSmtp(house.google) as server:
        upstream = await house.upstream(server, "xoauth2", **house.user())
        house.google.script.append(Answer.error("invalid_grant", "Token has been expired or revoked."))
        outcomes = [await send(upstream) for _ in range(2)]
        await upstream.close()
    for outcome in outcomes:
        assert isinstance(outcome, Postponed) and outcome.scope is Scope.UPSTREAM
        assert "invalid_grant" in outcome.cause.text and "relayd upstream login gw" in outcome.cause.text
    assert len(house.events) == 1 and server.count(b"AUTH") == 0


async def test_without_a_grant_nothing_is_lost_and_the_way_is_told(house: House) -> None:
    async with GoogleSmtp(house.google) as server:
        upstream = await house.upstream(server, "xoauth2")
        outcome = await send(upstream)
        await upstream.close()
    assert isinstance(outcome, Postponed) and "relayd upstream login" in outcome.cause.text


async def test_no_token_and_no_key_is_in_the_log_at_any_level(
    house: House, caplog: pytest.LogCaptureFixture, capsys: pytest.CaptureFixture[str]
) -> None:
    caplog.set_level(logging.DEBUG)
    async with GoogleSmtp(house.google) as server:
        upstream = await house.upstream(
            server, "xoauth2", **house.user("else@example.com", named="noreply@example.com")
        )
        outcomes = [await send(upstream)]
        house.google.script.append(Answer.error("invalid_grant", f"no {house.google.client_secret} here"))
        house.google.grants.clear()
        async with house.db.connection() as connection:
            await connection.execute("DELETE FROM oauth_tokens")
        await upstream.close()
        (build,) = [
            build
            for _, build in await Providers(
                house.db, house.seal, hostname="x.example", index=0, workers=1, emit=emit
            ).load()
        ]
        outcomes.append(await send(build()))
    written = caplog.text + capsys.readouterr().out
    assert "invalid_grant" in repr(outcomes[1]) and "grant_died" in written
    assert "canary" not in written + repr(outcomes)


@pytest.mark.parametrize("tls", ["opportunistic", "starttls"])
async def test_no_token_goes_to_a_server_that_nothing_vouches_for(house: House, tls: str) -> None:
    """Its certificate is for another name. Not even a token is asked for."""
    async with GoogleSmtp(house.google) as server:
        for columns in (
            house.user(),
            {"google_service_account": house.google.service_account(users=["a@example.com"])},
        ):
            upstream = await house.upstream(server, "xoauth2", smtp_tls=tls, smtp_host="127.0.0.1", **columns)
            outcome = await send(upstream, "a@example.com")
            await upstream.close()
            async with house.db.transaction() as connection:
                await connection.execute("UPDATE email_configurations SET deleted_at = relayd_now()")
            assert isinstance(outcome, Deferred), outcome
            expected = "an access token is not sent over opportunistic TLS" if tls == "opportunistic" else "it is for"
            assert expected in outcome.cause.text
    assert server.count(b"AUTH") == 0 and house.google.requests == []


async def test_the_operators_word_lets_a_token_go_to_whoever_answers(house: House) -> None:
    async with GoogleSmtp(house.google) as server:
        told = {"smtp_tls": "opportunistic", "smtp_host": "127.0.0.1", "smtp_allow_plaintext_auth": True}
        upstream = await house.upstream(server, "xoauth2", **told, **house.user())
        assert isinstance(await send(upstream), Sent)
        await upstream.close()
    assert server.logins == ["noreply@example.com"]


async def test_an_echoed_token_never_leaves(house: House) -> None:
    async with GoogleSmtp(house.google) as server:
        upstream = await house.upstream(server, "xoauth2", **house.user())
        token = house.google.issue("noreply@example.com", ["https://mail.google.com/"])
        house.google.script.append(Answer(200, {"access_token": token, "expires_in": 3600}))
        server.on(Stage.AUTH, f"535 5.7.8 no {token} for you")
        outcome = await send(upstream)
        await upstream.close()
    assert not isinstance(outcome, Sent) and "canary" not in repr(outcome) and "***" in outcome.cause.text

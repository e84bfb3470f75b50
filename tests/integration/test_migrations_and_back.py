"""Back to the version before upstreams had modes, and on again, with upstreams of every kind that mail waits for."""

from dataclasses import replace
from typing import Any

import asyncpg
from pydantic import SecretStr

from relayd.control.upstream_kinds import KINDS, check, completed, without_defaults
from relayd.control.upstream_options import SECRETS, changed
from relayd.seal import Seal, new_key, parse_key
from relayd.store import migrate, upstreams
from relayd.store.ids import new_id
from relayd.store.upstreams import UpstreamRecord
from tests.builders import make_sender, put
from tests.conftest import FreshDatabase

BEFORE_MODES = 6
SEAL = Seal(parse_key(new_key().encode()))
LOGIN = {"username": "relay", "password": "secret"}
SMTP = {"host": "smtp.example.net"}
ROWS: dict[str, tuple[str, str | None, dict[str, Any]]] = {
    "gw-address": ("google_workspace", "smtp-relay", {}),
    "gw-password": ("google_workspace", "smtp-relay", LOGIN),
    "gw-key": ("google_workspace", "xoauth2", {"key": True}),
    "gw-login": ("google_workspace", "xoauth2", {"refresh_token": "secret", "oauth_client_id": "client"}),
    "gw-api": ("google_workspace", "gmail_api", {"key": True, "api_url": "https://gmail.example.net"}),
    "grid": ("sendgrid", "smtp", {"api_key": "secret"}),
    "grid-api": ("sendgrid", "api", {"api_key": "secret"}),
    "plain": ("smtp_relay", None, {**SMTP, **LOGIN}),
    "unsure": ("smtp_relay", None, {**SMTP, "tls": "opportunistic"}),
    "digest": ("smtp_relay", None, {**SMTP, **LOGIN, "tls": "none", "auth_mechanism": "CRAM-MD5"}),
    "token": ("smtp_relay", None, {**SMTP, "auth_mechanism": "XOAUTH2", "refresh_token": "secret"}),
    "socket": ("smtp_relay", None, {"host": "/run/smtp"}),
    "box": ("capture", None, {"directory": "/mail"}),
}
# What the version before can still send through, as it was.
STAYS_ACTIVE = {"plain", "unsure", "digest", "box"}


def record_of(name: str) -> UpstreamRecord:
    provider, mode, said = ROWS[name]
    record = replace(UpstreamRecord(new_id(), name, provider), mode=mode)
    wanted = {each: SecretStr(value) if each in SECRETS else value for each, value in said.items() if each != "key"}
    record = completed(changed(SEAL, record, wanted))
    if "key" in said:
        sealed = SEAL.seal(b"{}", row=record.seal_row("google_service_account"))
        record = replace(record, google_service_account="a@b.example.com", google_service_account_sealed=sealed)
    check(record)
    return record


async def filled(database: FreshDatabase) -> asyncpg.Connection:
    """A connection to a database with all of them, each with a mailbox and mail that waits."""
    connection = await database.connect()
    for number, name in enumerate(ROWS):
        await upstreams.add(connection, record_of(name))
        sender = await make_sender(connection, f"app{number}@example.com", upstream=name)
        await put(connection, sender, notify="SUCCESS", envelope_id="id")
    return connection


async def test_the_way_back_keeps_every_upstream_and_all_mail(database: FreshDatabase) -> None:
    connection = await filled(database)
    try:
        undone = await migrate.down(connection, BEFORE_MODES)
        assert undone[-1].name == "0007_upstreams"
        rows = await connection.fetch("SELECT name, provider_type, is_active FROM email_configurations ORDER BY name")
        assert {row["name"]: row["provider_type"] for row in rows} == {name: ROWS[name][0] for name in ROWS}
        assert {row["name"] for row in rows if row["is_active"]} == STAYS_ACTIVE
        kept = await connection.fetchrow("SELECT * FROM email_configurations WHERE name = 'plain'")
        assert (kept["smtp_username"], kept["smtp_host"], kept["smtp_tls"]) == ("relay", "smtp.example.net", "starttls")
        waiting = await connection.fetchval("SELECT count(*) FROM email_queue WHERE status = 'queued'")
        assert waiting == len(ROWS)
        # A password goes only where it would have gone.
        clear = await connection.fetch(
            "SELECT name FROM email_configurations WHERE smtp_tls = 'none' AND smtp_allow_plaintext_auth"
        )
        assert clear == []
        audited = await connection.fetchval("SELECT string_agg(a::text, ' ') FROM audit_logs a")
        assert '"smtp_host"' in audited
        for row in await connection.fetch("SELECT smtp_password_sealed AS s FROM email_configurations"):
            assert row["s"] is None or row["s"].hex() not in audited
    finally:
        await connection.close()


async def test_on_again_what_was_lost_is_said_and_can_be_given_anew(database: FreshDatabase) -> None:
    connection = await filled(database)
    try:
        before = {each.name: each for each in await upstreams.living(connection)}
        await migrate.down(connection, BEFORE_MODES)
        await connection.reload_schema_state()
        await migrate.up(connection)
        await connection.reload_schema_state()
        after = {each.name: each for each in await upstreams.living(connection)}
        assert {name for name, each in after.items() if each.is_active} == STAYS_ACTIVE
        assert {name: each.mode for name, each in after.items() if each.mode} == {
            name: "api" if name.startswith("grid") else "gmail_api" for name in ROWS if name.startswith("g")
        }
        # No grant and no API key came back; who sees the row sees that it has none.
        assert not any(each.google_service_account_sealed or each.oauth_refresh_token_sealed for each in after.values())
        assert not any(each.api_key_sealed for each in after.values())
        for name, (provider, mode, _) in ROWS.items():
            if mode is None:
                continue
            secret = {"api_key": SecretStr("new")} if provider == "sendgrid" else {}
            given = completed(changed(SEAL, without_defaults(after[name]), {"mode": mode, "is_active": True, **secret}))
            check(given)
            saved = await upstreams.save(connection, given)
            same = ("mode", "smtp_host", "smtp_port", "smtp_tls", "is_active")
            assert [getattr(saved, each) for each in same] == [getattr(before[name], each) for each in same], name
            assert provider != "sendgrid" or saved.smtp_username == before[name].smtp_username
            assert (provider, mode) in KINDS
        waiting = await connection.fetchval("SELECT count(*) FROM email_queue WHERE status = 'queued'")
        assert waiting == len(ROWS)
    finally:
        await connection.close()

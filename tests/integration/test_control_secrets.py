"""Rotation over the control socket: everything is sealed anew, nothing is lost, and no secret is shown."""

import asyncio
import json
from collections.abc import AsyncIterator
from contextlib import asynccontextmanager
from dataclasses import replace
from uuid import UUID

import aiohttp
import pytest
import trustme

from relayd.control import rotation
from relayd.control.rotation import Position
from relayd.control.route import Context
from relayd.control.server import ControlServer
from relayd.control.upstream_options import SECRETS
from relayd.rules.control_events import SecretsResealed
from relayd.seal import Seal, new_key, parse_key
from relayd.store import nodes, sealcheck, sealed, upstreams
from relayd.store.locks import held, node_lock
from relayd.store.pool import Database
from relayd.store.sealed import SEALED_COLUMNS
from tests.integration.conftest import Control
from tests.integration.test_sealed import until_one_waits

OLD, NEW = (parse_key(new_key().encode()) for _ in range(2))
BEFORE, BOTH, AFTER = Seal(OLD), Seal(NEW, [OLD]), Seal(NEW)
NEW_ID = AFTER.current_id
GUARDED = {"provider": "smtp_relay", "host": "smtp.example.net", "username": "relay", "tls": "starttls"}
CHANGES = 12
CANARY = "canary-in-a-sealed-value"
PAIR = trustme.CA().issue_cert("relay.example.com")
CERTIFICATE, CLIENT_KEY = (pem.bytes().decode() for pem in (PAIR.cert_chain_pems[0], PAIR.private_key_pem))


@asynccontextmanager
async def sealing(control: Control, seal: Seal) -> AsyncIterator[Control]:
    """The same database behind a control socket that has these keys."""
    house = replace(control.house, seal=seal)
    socket = control.socket.with_name(f"{seal.current_id}{len(seal.key_ids)}.sock")
    server = ControlServer(house, socket_path=socket)
    await server.start()
    async with aiohttp.ClientSession(connector=aiohttp.UnixConnector(str(socket))) as session:
        yield replace(control, socket=socket, house=house, session=session)
    await server.close()


async def furnish(control: Control, many: int = 1) -> None:
    """A secret in each column that there is."""
    await control.ok("POST", "clients", {"name": "acme"})
    await control.ok("POST", "domains", {"domain": "example.com", "client": "acme"})
    secrets = {name: f"{CANARY}-{name}" for name in SECRETS} | {"client_key": CLIENT_KEY}
    for number in range(many):
        upstream = {**GUARDED, **secrets, "client_certificate": CERTIFICATE, "name": f"out{number}"}
        upstream.pop("api_key")
        await control.ok("POST", "upstreams", upstream)
    await control.ok("POST", "upstreams", {"name": "grid", "provider": "sendgrid", "api_key": secrets["api_key"]})
    async with control.db.connection() as connection:
        await sealcheck.write(connection, BEFORE.seal(b"relayd", row=sealcheck.ROW))


async def opened(db: Database, seal: Seal) -> dict[str, bytes]:
    """Every secret that there is, by its row. Raises SealError."""
    found = {}
    async with db.connection() as connection:
        for column in SEALED_COLUMNS:
            for value in await sealed.read(connection, column, None, 1000):
                row = column.row(value.key)
                found[row] = seal.open(value.sealed, row=row)
        word = await sealcheck.read(connection)
        assert word
        found[sealcheck.ROW] = seal.open(word, row=sealcheck.ROW)
    return found


async def test_everything_is_sealed_anew_and_opens_without_the_former_key(control: Control) -> None:
    async with sealing(control, BEFORE) as before:
        await furnish(before)
        await before.ok("POST", "upstreams", {**GUARDED, "name": "gone", "password": "of-a-removed-one"})
        await before.ok("DELETE", "upstreams/gone")
    secrets = await opened(control.db, BEFORE)
    async with sealing(control, BOTH) as both:
        rotated = await both.ok("POST", "secrets/rotate", {})
        again = await both.ok("POST", "secrets/rotate", {})
    assert await opened(control.db, AFTER) == secrets
    assert {name.split("/")[2] for name in secrets if name.startswith("email")} >= set(SECRETS.values())
    assert (rotated["resealed"], rotated["current"], rotated["cursor"]) == (len(secrets) - 1, 0, None)
    assert (again["resealed"], again["current"]) == (0, len(secrets) - 1)
    (event,) = control.events
    assert event == SecretsResealed(event.actor, NEW_ID, rotated["resealed"], 0)


async def test_the_audit_trail_says_sealed_anew_and_no_more(control: Control) -> None:
    async with sealing(control, BEFORE) as before:
        await furnish(before)
    async with sealing(control, BOTH) as both:
        await both.ok("POST", "secrets/rotate", {})
        rows = (await both.ok("GET", "audit", params={"limit": 100}))["items"]
    changes = [(row["table"], each) for row in rows if row["action"] == "update" for each in row["changes"]]
    assert {(table, each["before"], each["after"]) for table, each in changes} == {
        ("email_configurations", "(sealed)", "(sealed, new)"),
        ("dkim_keys", "(sealed)", "(sealed, new)"),
    }
    assert [row["changes"][0]["after"] for row in rows if row["row"] == "rotate"] == [NEW_ID]


async def test_a_dry_run_changes_nothing_and_says_what_would_be(control: Control) -> None:
    async with sealing(control, BEFORE) as before:
        await furnish(before)
    secrets = await opened(control.db, BEFORE)
    async with sealing(control, BOTH) as both:
        rotated = await both.ok("POST", "secrets/rotate", {"dry_run": True})
    assert (rotated["resealed"], rotated["dry_run"]) == (len(secrets) - 1, True)
    assert await opened(control.db, BEFORE) == secrets


async def test_what_opens_under_no_key_is_listed_and_the_rest_goes_on(control: Control) -> None:
    async with sealing(control, Seal(parse_key(new_key().encode()))) as stranger:
        await stranger.ok("POST", "upstreams", {**GUARDED, "name": "foreign", "password": CANARY})
        foreign = stranger.house.seal.current_id
    async with sealing(control, BEFORE) as before:
        await furnish(before)
    async with control.db.connection() as connection:
        await connection.execute(
            "UPDATE email_configurations SET api_key_sealed = overlay(api_key_sealed PLACING '\\x00' FROM 20 FOR 1)"
            " WHERE name = 'grid'"
        )
        await connection.execute(
            "UPDATE email_configurations SET oauth_client_secret_sealed = '\\x0102' WHERE name = 'out0'"
        )
    async with sealing(control, BOTH) as both:
        rotated = await both.ok("POST", "secrets/rotate", {})
        shown = await both.ok("GET", "secrets")
        ran = await both.cli("secrets", "rotate")
        asked = await both.cli("secrets", "status")
    reasons = {each["label"]: each["reason"] for each in rotated["closed"]}
    assert "was altered" in reasons["grid"] and f"key id {foreign}, which is not loaded" in reasons["foreign"]
    assert "does not hold a sealed value" in reasons["out0"]
    assert rotated["resealed"] == 5  # three of out0, two DKIM keys
    assert {key["id"]: (key["is_loaded"], key["values"] > 0) for key in shown["keys"]} == {
        BEFORE.current_id: (True, True),  # what was altered
        NEW_ID: (True, True),
        foreign: (False, True),
    }
    assert (ran.code, asked.code) == (1, 1)
    assert all(name in ran.out for name in ("grid", "foreign", "out0")) and "NOT LOADED" in asked.out
    for text in (json.dumps(rotated), json.dumps(shown), ran.out, ran.err, asked.out):
        assert CANARY not in text


async def test_a_rotation_of_slices_goes_on_where_the_last_ended(
    control: Control, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr(rotation, "BATCH", 2)
    async with sealing(control, BEFORE) as before:
        await furnish(before, many=3)
    secrets = await opened(control.db, BEFORE)
    context = Context(replace(control.house, seal=BOTH), "test")
    position: Position | None = Position()
    slices = resealed = 0
    while position is not None:
        # Over the wire and back, as the command line has it.
        tally, position = await rotation.walk(context, Position.parse(str(position)), dry_run=False, seconds=0)
        slices, resealed = slices + 1, resealed + tally.resealed
    assert resealed == len(secrets) - 1 and slices > len(SEALED_COLUMNS)
    async with control.db.connection() as connection:
        await connection.execute("UPDATE relayd_state SET seal_check = $1", AFTER.seal(b"relayd", row=sealcheck.ROW))
    assert (await opened(control.db, AFTER)).keys() == secrets.keys()


async def test_a_value_that_is_changed_between_the_look_and_the_exchange_is_read_again(control: Control) -> None:
    async with sealing(control, BEFORE) as before:
        await before.ok("POST", "upstreams", {**GUARDED, "name": "out", "password": "first"})
    async with control.db.transaction() as changing:
        upstream = await upstreams.find_to_change(changing, "out")
        # By a node that still seals with the former key.
        second = BEFORE.seal(b"second", row=upstream.seal_row("smtp_password"))
        context = Context(replace(control.house, seal=BOTH), "test")
        walking = asyncio.create_task(rotation.walk(context, Position(), dry_run=False, seconds=60))
        await until_one_waits(changing)
        await upstreams.save(changing, replace(upstream, smtp_password_sealed=second))
    tally, position = await walking
    assert (tally.resealed, tally.changing, position) == (1, 0, None)
    async with control.db.connection() as connection:
        upstream = await upstreams.find(connection, "out")
    assert upstream.smtp_password_sealed
    assert AFTER.open(upstream.smtp_password_sealed, row=upstream.seal_row("smtp_password")) == b"second"


async def test_a_cursor_of_another_kind_is_refused(control: Control) -> None:
    for cursor in ("nonsense", "dkim_keys.private_key_sealed/1", "clients.name/" + str(UUID(int=1))):
        answer = await control.request("POST", "secrets/rotate", {"cursor": cursor})
        assert answer.status == 422 and "cursor" in answer.message


async def test_passwords_set_during_rotations_are_the_ones_that_stay(control: Control) -> None:
    """Two nodes, one with the new key and one that still seals with the old: changes and rotations at once."""
    async with sealing(control, BEFORE) as before, sealing(control, BOTH) as both:
        await furnish(before)
        for name in ("a", "b", "c"):
            await before.ok("POST", "upstreams", {**GUARDED, "name": name, "password": "first"})
        await asyncio.gather(
            *(change(who, name) for who, name in ((both, "a"), (both, "b"), (before, "c"))), rotate(both), rotate(both)
        )
        await both.ok("POST", "secrets/rotate", {})
    secrets = await opened(control.db, AFTER)
    async with control.db.connection() as connection:
        ids = {row["name"]: row["id"] for row in await connection.fetch("SELECT id, name FROM email_configurations")}
    for name in ("a", "b", "c"):
        assert secrets[f"email_configurations/{ids[name]}/smtp_password"] == f"{name}-{CHANGES - 1}".encode()


async def change(who: Control, name: str) -> None:
    for number in range(CHANGES):
        await who.ok("PATCH", f"upstreams/{name}", {"password": f"{name}-{number}"})


async def rotate(who: Control) -> None:
    for _ in range(CHANGES):
        await who.ok("POST", "secrets/rotate", {})


@pytest.mark.parametrize(
    ("keys", "text"),
    [
        ((BEFORE.current_id,), f"node other runs without the key {NEW_ID}"),
        ((BEFORE.current_id, NEW_ID), "node other runs and still seals with another key"),
        (None, "cannot say which keys they have"),
    ],
    ids=["lacks it", "has it as an older one", "cannot say"],
)
async def test_nothing_is_sealed_with_a_key_that_a_living_node_does_not_use(
    control: Control, keys: tuple[str, ...] | None, text: str
) -> None:
    async with sealing(control, BEFORE) as before:
        await furnish(before)
    secrets = await opened(control.db, BEFORE)
    async with control.db.connection() as node, held(node, node_lock("other")):
        if keys is None:
            await node.execute(f"SET application_name = '{nodes.APPLICATION}'")
        else:
            async with control.db.transaction() as connection:
                await nodes.tell(connection, "other", keys)
        async with sealing(control, BOTH) as both:
            answer = await both.request("POST", "secrets/rotate", {})
            assert answer.status == 409 and text in answer.message
            assert await opened(control.db, BEFORE) == secrets
            assert (await both.ok("POST", "secrets/rotate", {"anyway": True}))["resealed"] == len(secrets) - 1
        await node.execute("RESET application_name")
    assert await opened(control.db, AFTER) == secrets


async def test_status_says_when_the_former_key_may_go(control: Control) -> None:
    async with sealing(control, BEFORE) as before:
        await furnish(before)
    async with sealing(control, BOTH) as both:
        first = await both.cli("secrets", "status")
        ran = await both.cli("secrets", "rotate")
        last = await both.cli("secrets", "status")
    line = next(line for line in first.out.splitlines() if line.startswith(BEFORE.current_id))
    assert line.split() == [BEFORE.current_id, "opens", "8", "no"]
    assert "relayd secrets rotate" in first.err
    assert "7 sealed anew with key" in ran.out and ran.code == 0
    line = next(line for line in last.out.splitlines() if line.startswith(BEFORE.current_id))
    assert line.split() == [BEFORE.current_id, "opens", "0", "yes"]
    assert "take them out of seal.older_key_files" in last.err

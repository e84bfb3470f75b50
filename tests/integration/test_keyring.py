"""A node's sealing keys beside the database's: told, checked, watched, and adopted where the former key is lost."""

import asyncio
import logging
from collections.abc import Callable
from dataclasses import replace

import pytest

from relayd.daemon import keyring
from relayd.daemon.keyring import Keyring
from relayd.errors import Refusal, RelaydError
from relayd.seal import Seal, new_key, parse_key
from relayd.store import nodes, sealcheck, upstreams
from relayd.store.ids import new_id
from relayd.store.locks import held, node_lock
from relayd.store.pool import Database
from relayd.store.upstreams import UpstreamRecord

OLD, NEW = (parse_key(new_key().encode()) for _ in range(2))
BEFORE, BOTH, AFTER = Seal(OLD), Seal(NEW, [OLD]), Seal(NEW)


async def add_password(db: Database, seal: Seal) -> None:
    upstream = UpstreamRecord(
        new_id(), "out", "smtp_relay", smtp_host="h", smtp_port=25, smtp_tls="none", smtp_username="u"
    )
    password = seal.seal(b"canary", row=upstream.seal_row("smtp_password"))
    async with db.connection() as connection:
        await upstreams.add(connection, replace(upstream, smtp_password_sealed=password))


async def reseal_word(db: Database, seal: Seal) -> None:
    async with db.connection() as connection:
        await sealcheck.force(connection, seal.seal(b"relayd", row=sealcheck.ROW))


async def test_the_first_start_makes_its_key_the_databases_and_another_is_refused(db: Database) -> None:
    await Keyring(db, "a", BEFORE).check(BEFORE)
    await Keyring(db, "a", BOTH).check(BOTH)
    with pytest.raises(RelaydError, match=r"not the one that this database's secrets are sealed with.*older_key_files"):
        await Keyring(db, "a", AFTER).check(AFTER)


async def test_what_a_removed_key_still_holds_is_told_at_the_start(
    db: Database, caplog: pytest.LogCaptureFixture
) -> None:
    await add_password(db, BEFORE)
    await reseal_word(db, AFTER)
    with caplog.at_level(logging.ERROR):
        await Keyring(db, "a", BOTH).check(BOTH)
        assert caplog.messages == []
        await Keyring(db, "a", AFTER).check(AFTER)
    (message,) = caplog.messages
    assert f"1 secret(s) are sealed with key {BEFORE.current_id}" in message and "seal.older_key_files" in message


async def test_a_node_tells_only_what_workers_of_both_kinds_have(db: Database) -> None:
    ring = Keyring(db, "a", BEFORE)
    async with db.connection() as connection, held(connection, node_lock("a")):
        told = []
        for seal, only_with in ((BEFORE, None), (BOTH, AFTER), (BOTH, None)):
            ring.take(seal)
            await ring.tell(only_with=only_with)
            async with db.connection() as other:
                told.append((await nodes.living(other))[0][0].opening_keys)
    assert told == [(BEFORE.current_id,), (AFTER.current_id,), (AFTER.current_id, BEFORE.current_id)]


async def test_a_node_that_has_missed_a_rotation_notices_and_recovers(
    db: Database, caplog: pytest.LogCaptureFixture, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr(keyring, "LOOK_SECONDS", 0.01)
    ring = Keyring(db, "a", BEFORE)
    await ring.check(BEFORE)
    fits: list[bool] = []
    watching = asyncio.create_task(ring.watch(fits.append))
    await _until(lambda: True in fits)
    await reseal_word(db, AFTER)
    await _until(lambda: not ring.fits)
    ring.take(BOTH)
    await _until(lambda: ring.fits)
    watching.cancel()
    (message,) = caplog.messages  # once, and not with every look
    assert f"key id {AFTER.current_id}, which is not loaded" in message and "mail waits" in message


async def test_a_key_is_adopted_only_where_the_former_one_is_lost_and_nobody_has_it(db: Database) -> None:
    await Keyring(db, "a", BEFORE).check(BEFORE)
    await add_password(db, BEFORE)
    with pytest.raises(Refusal, match="nothing is lost"):
        await keyring.adopt(db, BOTH)
    async with db.connection() as connection, held(connection, node_lock("a")):
        await Keyring(db, "a", BEFORE).tell()
        with pytest.raises(Refusal, match="a node runs on this database: a"):
            await keyring.adopt(db, AFTER)
    assert await keyring.adopt(db, AFTER) == 1
    await Keyring(db, "a", AFTER).check(AFTER)


async def _until(condition: Callable[[], bool]) -> None:
    async with asyncio.timeout(30):
        while not condition():
            await asyncio.sleep(0.01)

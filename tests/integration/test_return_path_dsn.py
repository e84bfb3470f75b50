"""What an app asked to be told (RFC 3461), where what is told further on comes to relayd's own return path."""

import asyncio

import pytest

from relayd.intake.return_paths import ReturnPaths
from relayd.seal import Seal, new_key, parse_key
from relayd.store.pool import Database
from relayd.upstream.smarthost import Smarthost
from tests.builders import make_sender, put
from tests.integration.notifying import House, blocks
from tests.integration.test_scheduler import LONGEST_SECONDS, running
from tests.peers.mail import settings
from tests.peers.smtp_server import ScriptedServer

ASKED = ("SUCCESS,FAILURE", "NEVER", "SUCCESS,DELAY", "DELAY", None)
CONTENT = b"From: app@example.com\r\n\r\nBody\r\n"


@pytest.fixture
async def house(db: Database) -> House:
    async with db.connection() as connection:
        return House(db, await make_sender(connection))


async def passed_on(house: House, *, bounce_domain: str | None, extension: str = "DSN") -> dict[int, str]:
    """Send a message for each of what may be asked, till nothing waits; what the upstream is told of each."""
    async with house.db.connection() as connection:
        await connection.execute("UPDATE email_domains SET bounce_domain = $1", bounce_domain)
        for number, notify in enumerate(ASKED):
            said = {"envelope_id": f"ID+2B{number}", "dsn_ret": "FULL", "orcpt": f"rfc822;App+2B{number}@example.net"}
            asked = said if notify else {}
            await put(connection, house.sender, f"{number}@example.net", content=CONTENT, notify=notify, **asked)
    return_paths = ReturnPaths(house.db, Seal(parse_key(new_key().encode())))
    async with ScriptedServer(extensions=(extension,)) as server:
        async with (
            running(
                house.db,
                house.sender,
                return_paths=return_paths,
                provider="smtp_relay",
                upstream=Smarthost(settings(server.port)),
                composer=house.bouncer,
            ),
            asyncio.timeout(LONGEST_SECONDS),
        ):
            while await house.fetch("SELECT FROM email_queue WHERE status <> 'sent'"):
                await asyncio.sleep(0.02)
        envelope = [each.decode() for each in server.commands if each[:4] in (b"MAIL", b"RCPT")]
    own = "@bounces.example.com>" if bounce_domain else "<bounces@example.com>"
    found = {}
    for mail, rcpt in zip(envelope[::2], envelope[1::2], strict=True):
        recipient, _, parameters = rcpt.removeprefix("RCPT TO:<").partition(">")
        if not mail.startswith("MAIL FROM:<>"):
            assert own in mail
            found[int(recipient[0])] = (mail.partition(">")[2] + parameters).strip()
    return found


async def told(house: House) -> dict[int, str]:
    """What the app was told by mail, by recipient."""
    status = [block for each in await house.notifications() for block in blocks(each)[1:]]
    return {int(block["Final-Recipient"].removeprefix("rfc822; ")[0]): block["Action"] for block in status}


async def test_a_success_is_told_by_relayd_where_nobody_else_would(house: House) -> None:
    """A notice of success to the return path would come to relayd alone; one of a failure is what it is for."""
    assert await passed_on(house, bounce_domain="bounces.example.com") == {
        number: f"RET=HDRS ENVID=ID+2B{number} NOTIFY=FAILURE ORCPT=rfc822;App+2B{number}@example.net" if notify else ""
        for number, notify in enumerate(ASKED)
    }
    assert await told(house) == {0: "relayed", 2: "relayed"}
    about, recipient = blocks((await house.notifications())[0])
    assert about["Original-Envelope-Id"] == "ID+0" or about["Original-Envelope-Id"] == "ID+2"
    assert recipient["Original-Recipient"].startswith("rfc822; App+")


async def test_what_was_asked_goes_on_with_the_reverse_path_that_asked(house: House) -> None:
    assert await passed_on(house, bounce_domain=None) == {
        number: f"RET=FULL ENVID=ID+2B{number} NOTIFY={notify} ORCPT=rfc822;App+2B{number}@example.net"
        if notify
        else ""
        for number, notify in enumerate(ASKED)
    }
    assert await told(house) == {}


async def test_an_upstream_without_dsn_is_told_nothing_and_a_success_once(house: House) -> None:
    assert set((await passed_on(house, bounce_domain="bounces.example.com", extension="X-NOTHING")).values()) == {""}
    assert await told(house) == {0: "relayed", 2: "relayed"}

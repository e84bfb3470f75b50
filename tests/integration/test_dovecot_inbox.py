"""An inbox on a server that others wrote: logged in to under TLS, read over several looks, and left as it is."""

import os
import tempfile
from collections.abc import Iterator
from pathlib import Path
from typing import Literal

import pytest
import trustme

from relayd.inbox.imap import ImapInbox, ImapSettings
from relayd.inbox.reading import Position
from relayd.rules.report_events import ReportEvent
from relayd.store import inbound_reports, inboxes
from relayd.store.inboxes import InboxRecord
from relayd.store.pool import Database
from relayd.upkeep.pull_reports import PullTerms, pull_reports
from tests.builders import make_sender, put
from tests.conftest import at_length
from tests.e2e.conftest import need
from tests.e2e.house import free_port
from tests.peers.dovecot_imap import LIBEXEC, DovecotImap

LOGIN = ("noreply@example.com", 'two words, a "quote"')
BOUNCE = (Path(__file__).parents[1] / "reports" / "corpus" / "postfix-unknown.eml").read_bytes()
LETTER = b"From: jane@example.net\nSubject: Private\n\nNobody else's business.\n"


@pytest.fixture
def directory() -> Iterator[Path]:
    if os.geteuid() != 0:
        pytest.skip("Dovecot is started by root alone")
    with tempfile.TemporaryDirectory(prefix="relayd-") as path:
        Path(path).chmod(0o755)
        yield Path(path)


@at_length
@pytest.mark.parametrize("tls", ["implicit", "starttls"])
async def test_an_inbox_at_dovecot_is_read(db: Database, directory: Path, tls: Literal["implicit", "starttls"]) -> None:
    need("dovecot", str(LIBEXEC / "imap"))
    authority = trustme.CA()
    authority.cert_pem.write_to_path(str(directory / "authority.pem"))
    chain_file = directory / "server.pem"
    chain_file.write_bytes(authority.issue_cert("localhost").private_key_and_cert_chain_pem.bytes())
    async with db.connection() as connection:
        sender = await make_sender(connection)
        answered = (await put(connection, sender)).message_id_header
        await inboxes.save(
            connection,
            client_id=sender.client_id,
            mailbox_id=sender.mailbox_id,
            email_address=sender.address,
            kind="gmail_api",  # nothing but its place is asked of the record
        )
    ports = {"starttls_port": free_port(), "implicit_port": free_port()}
    events: list[ReportEvent] = []
    with DovecotImap(directory, **ports, chain_file=chain_file, login=LOGIN) as dovecot:
        password = LOGIN[1]

        async def opened(record: InboxRecord) -> ImapInbox:
            settings = ImapSettings(
                "localhost", dovecot.ports[tls], tls, LOGIN[0], password, ca_file=str(directory / "authority.pem")
            )
            return await ImapInbox.open(settings, Position(record.uid_validity, record.last_uid, record.read_to))

        async def look() -> list[bytes | None]:
            async with db.connection() as connection:
                await connection.execute("UPDATE mailbox_inboxes SET next_pull_at = '-infinity'")
            await pull_reports(db, opened, PullTerms(at_once=1, most_messages=2), emit=events.append)
            async with db.connection() as connection:
                found = reversed(await inbound_reports.found(connection))
                return [await inbound_reports.content_of(connection, each.id) for each in found]

        dovecot.add(BOUNCE)
        assert await look() == [] and events == []  # what lay there before is left alone
        for content in (LETTER, BOUNCE, LETTER, f"In-Reply-To: {answered}\n".encode() + LETTER, BOUNCE):
            dovecot.add(content)
        whole = BOUNCE.replace(b"\n", b"\r\n")
        first, answer, last = await look()
        assert (first, last) == (whole, whole)
        assert answer is not None and answered.encode() in answer and b"business" not in answer
        assert await look() == [first, answer, last] and events == []
        assert dovecot.flags() == set()
        assert "TLS" in dovecot.log()
        password = "wrong words"
        await look()
        assert "refuses the login" in str(events[0]) and password not in str(events[0])

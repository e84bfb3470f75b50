"""Nobody sends as somebody else: who may use which From and which reverse-path, asked of a real database."""

from dataclasses import replace

import pytest

from relayd.intake.provision import Provisioner
from relayd.intake.senders import Senders
from relayd.intake.submission import Identity
from relayd.mail import headers
from relayd.mail.address import Address
from relayd.mail.reply import Reply
from relayd.seal import Seal, new_key, parse_key
from relayd.store import directory
from relayd.store.pool import Database
from tests.builders import Sender, make_sender


class Tenants:
    """acme has app@example.com and app@xn--bcher-kva.example; rival has boss@rival.example and a default mailbox."""

    def __init__(self, db: Database, acme: Identity, rival: Identity, sender: Sender) -> None:
        self.db = db
        self.acme = acme
        self.rival = rival
        self.sender = sender

    async def sends(self, identity: Identity, author: str) -> str:
        """The mailbox that would send this From, or the code that refuses it."""
        answer = await Senders(self.db).mailbox_for(identity, Address.parse(author))
        return f"{answer.code} {answer.enhanced}" if isinstance(answer, Reply) else str(answer.address)


@pytest.fixture
async def tenants(db: Database) -> Tenants:
    async with db.transaction() as connection:
        sender = await make_sender(connection, "app@example.com")
        await make_sender(connection, "app@xn--bcher-kva.example")
        await make_sender(connection, "app@strasse.example")
        await make_sender(connection, "app@mail.rival.example")
        rival = await make_sender(connection, "boss@rival.example", client="rival")
        await connection.execute("UPDATE email_domains SET default_mailbox_id = $1", rival.mailbox_id)
        await connection.execute(
            "UPDATE email_domains SET default_mailbox_id = NULL WHERE client_id = $1", sender.client_id
        )
        found = [await directory.find_client(connection, name) for name in ("acme", "rival")]
    identities = [Identity(client) for client in found if client]
    return Tenants(db, identities[0], identities[1], sender)


@pytest.mark.parametrize(
    ("author", "answer"),
    [
        ("app@example.com", "app@example.com"),
        ("APP@Example.COM", "app@example.com"),
        ('"app"@example.com', "app@example.com"),
        ("app@bücher.example", "app@xn--bcher-kva.example"),
        ("app@BÜCHER.example", "app@xn--bcher-kva.example"),
        ("other@example.com", "550 5.7.1"),
        ("app@sub.example.com", "550 5.7.1"),
        ("app@com", "550 5.7.1"),
        ("app@xample.com", "550 5.7.1"),
        ("app@straße.example", "550 5.7.1"),
        ("app@ｅxample.com", "550 5.7.1"),
        ("boss@rival.example", "550 5.7.1"),
        ("anyone@rival.example", "550 5.7.1"),
        ("boss@mail.rival.example", "550 5.7.1"),
        ("app@[127.0.0.1]", "550 5.7.1"),
    ],
)
async def test_a_client_sends_as_its_own_mailboxes_alone(tenants: Tenants, author: str, answer: str):
    assert await tenants.sends(tenants.acme, author) == answer


async def test_a_default_mailbox_sends_for_its_own_domain_and_client_alone(tenants: Tenants):
    assert await tenants.sends(tenants.rival, "anyone@rival.example") == "boss@rival.example"
    assert await tenants.sends(tenants.rival, "anyone@sub.rival.example") == "550 5.7.1"
    assert await tenants.sends(tenants.rival, "app@mail.rival.example") == "550 5.7.1"


@pytest.mark.parametrize(
    ("senders", "author", "is_allowed"),
    [
        (("app@example.com",), "App@EXAMPLE.com", True),
        (("example.com",), "app@example.com", True),
        (("strasse.example",), "app@example.com", False),
        (("other@example.com",), "app@example.com", False),
        (("xn--bcher-kva.example",), "app@bücher.example", True),
        (("rival.example",), "boss@rival.example", False),
    ],
)
async def test_a_credential_sends_as_its_own_senders_alone(
    tenants: Tenants, senders: tuple[str, ...], author: str, is_allowed: bool
):
    identity = replace(tenants.acme, senders=senders)
    answer = await tenants.sends(identity, author)
    assert answer.startswith("550 ") != is_allowed
    refusal = await Senders(tenants.db).check_reverse_path(identity, Address.parse(author))
    assert (refusal is None) == is_allowed


async def test_the_envelope_is_of_the_clients_domains(tenants: Tenants):
    senders = Senders(tenants.db)
    for text in ("boss@rival.example", "app@sub.example.com", "app@straße.example", "a@nowhere.example"):
        refusal = await senders.check_reverse_path(tenants.acme, Address.parse(text))
        assert refusal and str(refusal).startswith("550 5.7.1 reverse-path <"), text
        assert "rival" not in refusal.text.partition("allowed: ")[2].replace("mail.rival", ""), "tells of no other"
    assert await senders.check_reverse_path(tenants.acme, Address.parse("bounces@example.com")) is None


RECEIPT = "Content-Type: multipart/report; report-type=disposition-notification; boundary=x"


@pytest.mark.parametrize(
    ("fields", "is_receipt"),
    [
        (RECEIPT, True),
        ('content-type: Multipart/Report; boundary="x";\r\n\tREPORT-TYPE="Disposition-Notification"', True),
        ("Content-Type: multipart/report (mdn); report-type=disposition-notification", False),
        ("Content-Type: multipart/report; report-type=delivery-status; boundary=x", False),
        ("Content-Type: multipart/report; boundary=x", False),
        ("Content-Type: multipart/mixed; report-type=disposition-notification", False),
        ("Content-Type: message/disposition-notification", False),
        (f"{RECEIPT}\r\nContent-Type: text/html", False),
        ("Content-Type: text/plain; x=multipart/report; report-type=disposition-notification", False),
        (f"X-Content-Type: x\r\nSubject: {RECEIPT}", False),
        ("Subject: Read: hello", False),
    ],
)
async def test_the_null_reverse_path_is_for_read_receipts_and_clients_that_bounce(
    tenants: Tenants, fields: str, is_receipt: bool
):
    senders = Senders(tenants.db)
    assert await senders.check_reverse_path(tenants.acme, None) is None
    scan = headers.scan(f"From: app@example.com\r\n{fields}\r\n\r\n{RECEIPT}\r\n".encode())
    refusal = senders.check_null_reverse_path(tenants.acme, scan)
    assert (refusal is None) == is_receipt
    assert is_receipt or (refusal and refusal.text.endswith("relayd client set acme --may-send-bounces"))
    bouncing = replace(tenants.acme, client=replace(tenants.acme.client, may_send_bounces=True))
    assert senders.check_null_reverse_path(bouncing, scan) is None


@pytest.mark.parametrize(
    ("change", "why"),
    [
        ("UPDATE email_mailboxes SET status = 'suspended'", "mailbox is suspended"),
        ("UPDATE email_domains SET status = 'suspended'", "domain is suspended"),
        # A session that began before must not go on for hours.
        ("UPDATE clients SET status = 'suspended'", "client is suspended"),
    ],
)
async def test_who_is_suspended_sends_nothing(tenants: Tenants, change: str, why: str):
    async with tenants.db.transaction() as connection:
        await connection.execute(change)
    answer = await Senders(tenants.db).mailbox_for(tenants.acme, Address.parse("app@example.com"))
    assert isinstance(answer, Reply) and answer.enhanced == "5.7.1" and why in answer.text


async def mailboxes_of(db: Database) -> list[str]:
    async with db.connection() as connection:
        return [row["email_address"] for row in await connection.fetch("SELECT email_address FROM email_mailboxes")]


async def test_development_makes_what_is_nobodys_and_nothing_else(tenants: Tenants):
    provisioner = Provisioner(tenants.db, Seal(parse_key(new_key().encode())), upstream_id=tenants.sender.upstream_id)
    senders = Senders(tenants.db, provisioner.provide)
    before = await mailboxes_of(tenants.db)
    for text in ("thief@rival.example", "other@rival.example"):
        assert isinstance(await senders.mailbox_for(tenants.acme, Address.parse(text)), Reply)
        assert await senders.check_reverse_path(tenants.acme, Address.parse(text)) is not None
    bound = replace(tenants.acme, senders=("app@example.com",))
    assert isinstance(await senders.mailbox_for(bound, Address.parse("new@new.example")), Reply)
    assert await senders.check_reverse_path(bound, Address.parse("new@new.example")) is not None
    assert await mailboxes_of(tenants.db) == before
    for text, mailbox in (
        ("new@new.example", "new@new.example"),
        ('"more"@new.example', "more@new.example"),
        ("new@straße.example", "new@xn--strae-oqa.example"),
    ):
        made = await senders.mailbox_for(tenants.acme, Address.parse(text))
        assert not isinstance(made, Reply) and str(made.address) == mailbox

"""What a report that came in makes of the entry that it speaks of: once, whoever reads it and how often."""

import asyncio
import json
import threading
from dataclasses import dataclass, field
from datetime import timedelta
from pathlib import Path
from typing import Any
from uuid import UUID

import pytest

from relayd.intake.return_paths import PURPOSE, ReturnPaths
from relayd.mail.report import Report
from relayd.mail.report_reader import read
from relayd.mail.return_path import made_for
from relayd.rules.report_events import BouncedLater, Complained, Replied, ReportEvent, ReportRead
from relayd.seal import Seal, new_key, parse_key
from relayd.store import client_events, inbound_reports
from relayd.store.inbound_reports import NewReport
from relayd.store.pool import Database
from relayd.store.queue import NewMessage
from relayd.upkeep.health import HealthTerms, watch_health
from relayd.upkeep.prune_reports import prune_reports
from relayd.upkeep.settle_reports import settle_reports
from tests.builders import Sender, make_sender, put

CORPUS = Path(__file__).parents[1] / "reports" / "corpus"
BOUNCE_DOMAIN = "bounces.example.com"


@dataclass
class House:
    """A mailbox that has sent, and what reads its reports."""

    db: Database
    sender: Sender
    seal: Seal
    return_paths: ReturnPaths
    events: list[ReportEvent] = field(default_factory=list)

    async def sent(self, *recipients: str, status: str = "sent") -> NewMessage:
        async with self.db.connection() as connection:
            message = await put(connection, self.sender, *recipients)
            await connection.execute(
                "UPDATE email_queue SET status = $2, sent_at = relayd_now(), failed_at = CASE WHEN $2 = 'failed' THEN"
                " relayd_now() END, upstream_id = $3 WHERE message_id = $1",
                message.queue_id,
                status,
                self.sender.upstream_id,
            )
            await connection.execute(
                "INSERT INTO email_delivery_logs (client_id, message_id, entry_id, event)"
                " SELECT client_id, message_id, id, 'sent' FROM email_queue WHERE message_id = $1",
                message.queue_id,
            )
        return message

    async def receive(self, content: bytes, *, subject: UUID | None = None, mailbox: bool = False) -> UUID:
        async with self.db.connection() as connection:
            new = NewReport(
                self.sender.client_id,
                "imap" if mailbox else "smtp",
                content,
                mailbox_id=self.sender.mailbox_id if mailbox else None,
                subject_id=subject,
            )
            stored = await inbound_reports.add(connection, new, max_waiting=1000)
        assert stored is not None
        return stored

    async def read(self) -> None:
        await settle_reports(self.db, self.return_paths.subject_of, suppression_days=90, emit=self.events.append)

    async def give_return_paths(self) -> None:
        async with self.db.connection() as connection:
            await connection.execute("UPDATE email_domains SET bounce_domain = $1", BOUNCE_DOMAIN)

    async def send_by_google(self) -> None:
        async with self.db.connection() as connection:
            await connection.execute(
                "UPDATE email_configurations SET provider_type = 'google_workspace', mode = 'smtp-relay',"
                " smtp_host = 'smtp-relay.gmail.com', smtp_port = 587, smtp_tls = 'starttls'"
            )

    async def suppressed(self) -> list[str]:
        async with self.db.connection() as connection:
            return [row["address"] for row in await connection.fetch("SELECT address FROM suppressions ORDER BY 1")]

    async def entry(self, message: NewMessage, index: int = 0) -> Any:
        async with self.db.connection() as connection:
            return await connection.fetchrow("SELECT * FROM email_queue WHERE id = $1", message.entries[index].entry_id)

    async def log(self, message: NewMessage) -> list[str]:
        async with self.db.connection() as connection:
            rows = await connection.fetch(
                "SELECT event FROM email_delivery_logs WHERE message_id = $1 AND stage = 'report' ORDER BY id",
                message.queue_id,
            )
        return [row["event"] for row in rows]

    async def report(self, report_id: UUID) -> Any:
        async with self.db.connection() as connection:
            (found,) = await inbound_reports.found(connection, report_id=report_id)
        return found

    def seen(self, kind: type[Any]) -> list[Any]:
        return [event for event in self.events if isinstance(event, kind)]


@pytest.fixture
async def house(db: Database) -> House:
    seal = Seal(parse_key(new_key().encode()))
    async with db.connection() as connection:
        sender = await make_sender(connection)
    return House(db, sender, seal, ReturnPaths(db, seal))


def dsn(recipient: str = "you@example.net", *, message_id: str = "<other@example.org>", action: str = "failed",
        status: str = "5.1.1", reply: str = "550 5.1.1 unknown user", return_path: str = "") -> bytes:  # fmt: skip
    return (
        "From: MAILER-DAEMON@example.net\nSubject: Undelivered\n"
        "Content-Type: multipart/report; report-type=delivery-status; boundary=b\n\n--b\n\nSorry.\n--b\n"
        "Content-Type: message/delivery-status\n\nReporting-MTA: dns; mx.example.net\n\n"
        f"Final-Recipient: rfc822; {recipient}\nAction: {action}\nStatus: {status}\nDiagnostic-Code: smtp; {reply}\n"
        f"\n--b\nContent-Type: text/rfc822-headers\n\nReturn-Path: <{return_path}>\nMessage-ID: {message_id}\n"
        "From: noreply@example.com\n--b--\n"
    ).encode()


def complaint(message_id: str, *, recipient: str = "", return_path: str = "") -> bytes:
    named = f"Original-Rcpt-To: {recipient}\n" if recipient else ""
    return (
        "From: fbl@example.net\nContent-Type: multipart/report; report-type=feedback-report; boundary=b\n\n--b\n"
        "Content-Type: message/feedback-report\n\nFeedback-Type: abuse\nUser-Agent: Example/1\n"
        f"Original-Mail-From: <{return_path}>\n{named}\n--b\nContent-Type: text/rfc822-headers\n\n"
        f"Message-ID: {message_id}\nFrom: noreply@example.com\n--b--\n"
    ).encode()


async def test_what_a_report_says_is_told_to_the_client_and_the_address_is_written_to_no_more(house: House) -> None:
    gone, full, angry = [await house.sent(f"{name}@example.net") for name in ("gone", "full", "angry")]
    for _ in range(2):
        await house.receive(dsn("gone@example.net"), subject=gone.entries[0].entry_id)
        mailbox_full = dsn("full@example.net", status="5.2.2", reply="552 5.2.2 mailbox full")
        await house.receive(mailbox_full, subject=full.entries[0].entry_id)
        await house.receive(complaint("<x@example.org>"), subject=angry.entries[0].entry_id)
        await house.read()
    async with house.db.connection() as connection:
        rows = await connection.fetch("SELECT address, reason, expires_at IS NULL AS stays, entry_id FROM suppressions")
        told = await client_events.after(connection, house.sender.client_id, 0, kinds=None, limit=10)
    assert {(row["address"], row["reason"], row["stays"], row["entry_id"]) for row in rows} == {
        ("gone@example.net", "hard_bounce", False, gone.entries[0].entry_id),
        ("angry@example.net", "complaint", True, angry.entries[0].entry_id),
    }
    assert sorted((event.kind, event.recipient, event.queue_id) for event in told) == [
        ("bounced", "full@example.net", full.queue_id),
        ("bounced", "gone@example.net", gone.queue_id),
        ("complained", "angry@example.net", angry.queue_id),
    ]


async def test_a_bounce_by_its_return_path_turns_sent_into_bounced(house: House) -> None:
    message = await house.sent("you@example.net")
    report = await house.receive(dsn(), subject=message.entries[0].entry_id)
    await house.read()
    entry = await house.entry(message)
    assert (entry["status"], entry["bounce_type"]) == ("bounced", "hard")
    assert entry["bounce_reason"] == "came back after it was sent (no_such_user): 550 5.1.1 unknown user"
    assert entry["bounced_at"] and entry["sent_at"]
    assert await house.log(message) == ["bounced"]
    found = await house.report(report)
    assert (found.status, found.kind, found.queue_id) == ("matched", "bounce", message.queue_id)
    (event,) = house.seen(BouncedLater)
    assert (event.queue_id, event.recipient, event.category) == (message.queue_id, "you@example.net", "no_such_user")


async def test_a_bounce_by_message_id_and_recipient_changes_that_recipient_alone(house: House) -> None:
    message = await house.sent("one@example.net", "two@example.net")
    await house.receive(dsn("two@example.net", message_id=message.message_id_header, reply="552 5.2.2 over quota"))
    await house.read()
    assert [(await house.entry(message, index))["status"] for index in (0, 1)] == ["sent", "bounced"]
    assert (await house.entry(message, 1))["bounce_type"] == "soft"


@pytest.mark.parametrize(("ses_id", "status"), [("0100018f-aa-000000", "bounced"), ("0100018f-bb-000000", "sent")])
async def test_an_amazon_ses_notification_finds_its_entry_by_the_id_of_ses(
    house: House, ses_id: str, status: str
) -> None:
    message = await house.sent("you@example.net", "two@example.net")
    async with house.db.connection() as connection:
        await connection.execute("UPDATE email_queue SET provider_message_id = '0100018f-aa-000000'")
    event = {
        "notificationType": "Bounce",
        "bounce": {"bounceType": "Permanent", "bouncedRecipients": [{"emailAddress": "You@example.net"}]},
        "mail": {"messageId": ses_id, "destination": ["You@example.net", "two@example.net"]},
    }
    await house.receive(
        f"From: no-reply@sns.example\nSubject: AWS Notification Message\n\n{json.dumps(event)}".encode()
    )
    await house.read()
    assert [(await house.entry(message, index))["status"] for index in (0, 1)] == [status, "sent"]
    assert await house.suppressed() == []


async def test_the_return_path_that_a_report_returns_is_enough(house: House) -> None:
    message = await house.sent("you@example.net")
    token = made_for(message.queue_id, BOUNCE_DOMAIN, house.seal.derived(PURPOSE)[0])
    await house.receive(dsn("forwarded@example.org", return_path=str(token)))
    await house.read()
    assert (await house.entry(message))["status"] == "bounced"


async def test_a_forged_return_path_is_nobodys(house: House) -> None:
    message = await house.sent("you@example.net")
    token = made_for(message.queue_id, BOUNCE_DOMAIN, b"another key")
    report = await house.receive(dsn(return_path=str(token)))
    await house.read()
    assert (await house.entry(message))["status"] == "sent"
    assert (await house.report(report)).status == "unmatched"


async def test_the_same_report_twice_changes_nothing(house: House) -> None:
    message = await house.sent("you@example.net")
    for _ in range(2):
        await house.receive(dsn(message_id=message.message_id_header))
    await asyncio.gather(house.read(), house.read())
    assert await house.log(message) == ["bounced"]
    assert len(house.seen(BouncedLater)) == 1 and len(house.seen(ReportRead)) == 2


@pytest.mark.parametrize("status", ["failed", "bounced"])
async def test_a_bounce_of_what_had_failed_already_changes_nothing(house: House, status: str) -> None:
    message = await house.sent("you@example.net")
    async with house.db.connection() as connection:
        await connection.execute(
            "UPDATE email_queue SET status = $2, failed_at = CASE WHEN $2 = 'failed' THEN relayd_now() END,"
            " bounced_at = relayd_now() WHERE message_id = $1",
            message.queue_id,
            status,
        )
    report = await house.receive(dsn(message_id=message.message_id_header))
    await house.read()
    assert (await house.entry(message))["status"] == status
    assert await house.log(message) == []
    assert "nothing changes" in (await house.report(report)).detail


async def test_a_delay_notice_changes_nothing(house: House) -> None:
    message = await house.sent("you@example.net")
    report = await house.receive(dsn(message_id=message.message_id_header, action="delayed", status="4.4.1"))
    await house.read()
    assert (await house.entry(message))["status"] == "sent"
    assert ((await house.report(report)).status, (await house.report(report)).kind) == ("ignored", "delay")


async def test_another_clients_report_does_not_reach_a_message(house: House) -> None:
    message = await house.sent("you@example.net")
    async with house.db.connection() as connection:
        other = await make_sender(connection, "noreply@example.org", client="other")
        new = NewReport(other.client_id, "smtp", dsn(message_id=message.message_id_header), subject_id=message.queue_id)
        await inbound_reports.add(connection, new, max_waiting=1000)
    await house.read()
    assert (await house.entry(message))["status"] == "sent"


async def test_a_complaint_makes_spam_of_it(house: House) -> None:
    message = await house.sent("you@example.net")
    await house.receive(complaint(message.message_id_header))
    await house.read()
    entry = await house.entry(message)
    assert (entry["status"], entry["bounce_reason"]) == ("spam", "complaint (abuse) reported by Example/1")
    assert await house.log(message) == ["complained"]
    assert house.seen(Complained)[0].recipient == "you@example.net"


async def test_a_complaint_that_hides_who_complained_is_matched_where_one_recipient_is_meant(house: House) -> None:
    many = await house.sent("one@example.net", "two@example.net")
    report = await house.receive(complaint(many.message_id_header))
    await house.read()
    assert (await house.report(report)).status == "unmatched"
    assert (await house.report(report)).detail == "which of 2 recipients complained is not told"
    await house.receive(complaint(many.message_id_header, recipient="two@example.net"))
    await house.read()
    assert [(await house.entry(many, index))["status"] for index in (0, 1)] == ["sent", "spam"]


async def test_an_answer_is_counted_and_a_machines_is_not(house: House) -> None:
    message = await house.sent("you@example.net")
    answer = f"From: you@example.net\nIn-Reply-To: {message.message_id_header}\n\nThanks"
    await house.receive(answer.encode(), mailbox=True)
    await house.receive(f"Auto-Submitted: auto-replied\n{answer}".encode(), mailbox=True)
    await house.receive(answer.encode())  # to the return path, where nobody answers
    await house.read()
    assert await house.log(message) == ["replied"]
    assert (await house.entry(message))["status"] == "sent"
    assert len(house.seen(Replied)) == 1


async def test_two_that_read_at_once_count_each_answer_once(house: House) -> None:
    message = await house.sent("you@example.net")
    answer = f"From: you@example.net\nIn-Reply-To: {message.message_id_header}\n\nThanks"
    for _ in range(15):
        await house.receive(answer.encode(), mailbox=True)
    await asyncio.gather(*(house.read() for _ in range(3)))
    assert await house.log(message) == ["replied"] * 15
    assert len(house.seen(ReportRead)) == 15


async def test_a_bounce_that_overtakes_its_settlement_waits_for_it(house: House) -> None:
    message = await house.sent("you@example.net", status="queued")
    report = await house.receive(dsn(message_id=message.message_id_header))
    await house.read()
    assert (await house.report(report)).status == "new"
    async with house.db.connection() as connection:
        await connection.execute("UPDATE email_queue SET status = 'sent' WHERE message_id = $1", message.queue_id)
        await connection.execute("UPDATE inbound_reports SET next_look_at = relayd_now()")
    await house.read()
    assert (await house.entry(message))["status"] == "bounced"


async def test_rates_count_late_bounces_complaints_and_answers(house: House) -> None:
    messages = [await house.sent(f"u{number}@example.net") for number in range(10)]
    await house.receive(dsn("u0@example.net", message_id=messages[0].message_id_header))
    await house.receive(complaint(messages[1].message_id_header))
    await house.receive(
        f"From: u2@example.net\nIn-Reply-To: {messages[2].message_id_header}\n\nHi".encode(), mailbox=True
    )
    await house.read()

    await watch_health(house.db, HealthTerms(lag=timedelta(0)), emit=lambda event: None)
    async with house.db.connection() as connection:
        day = await connection.fetchrow("SELECT * FROM warmup_stats")
        mailbox = await connection.fetchrow("SELECT bounce_rate, spam_rate, reply_rate FROM email_mailboxes")
    counts = [
        day[name] for name in ("emails_sent", "emails_bounced", "emails_bounced_later", "complaints", "emails_received")
    ]
    assert counts == [10, 1, 1, 1, 1]
    # Of ten that were tried: what came back is not tried twice.
    assert tuple(mailbox) == (0.1, 0.1, 0.1)


async def test_what_was_read_is_forgotten_after_a_while(house: House) -> None:

    await house.receive(b"Subject: nothing\n\nx")
    await house.receive(b"Subject: nothing\n\ny")
    await house.read()
    await house.receive(b"Subject: waits\n\nz")
    await prune_reports(house.db, timedelta(0))
    async with house.db.connection() as connection:
        assert [each.status for each in await inbound_reports.found(connection)] == ["new"]


FORGED = {
    "bounce": lambda message: dsn(message_id=message.message_id_header),
    "complaint": lambda message: complaint(message.message_id_header, recipient="you@example.net"),
}


@pytest.mark.parametrize("forged", FORGED.values(), ids=FORGED.keys())
@pytest.mark.parametrize("mailbox", [False, True], ids=["smtp", "inbox"])
@pytest.mark.parametrize("status", ["sent", "queued"])
async def test_the_message_id_alone_proves_nothing_of_what_has_a_return_path(
    house: House, forged: Any, mailbox: bool, status: str
) -> None:
    await house.give_return_paths()
    message = await house.sent("you@example.net", status=status)
    report = await house.receive(forged(message), mailbox=mailbox)
    await house.read()
    assert ((await house.entry(message))["status"], await house.log(message)) == (status, [])
    assert await house.suppressed() == [] and [type(event) for event in house.events] == [ReportRead]
    found = await house.report(report)
    assert (found.status, found.queue_id, found.entry_id) == ("ignored", message.queue_id, message.entries[0].entry_id)
    assert found.detail == "of you@example.net it knows the Message-ID and no return path: nothing changes"


async def test_whoever_was_written_to_knows_no_return_path_of_another_recipient(house: House) -> None:
    await house.give_return_paths()
    message = await house.sent("one@example.net", "two@example.net")
    # In transactions of their own: the first one's return path names its entry.
    own = made_for(message.entries[0].entry_id, BOUNCE_DOMAIN, house.seal.derived(PURPOSE)[0])
    forged = dsn("two@example.net", message_id=message.message_id_header, return_path=str(own))
    await house.receive(forged, subject=message.entries[0].entry_id)
    await house.read()
    assert [(await house.entry(message, index))["status"] for index in (0, 1)] == ["bounced", "sent"]
    assert await house.suppressed() == ["one@example.net"]


async def test_a_return_path_proves_it_wherever_the_report_came_in(house: House) -> None:
    await house.give_return_paths()
    message = await house.sent("you@example.net")
    token = made_for(message.entries[0].entry_id, BOUNCE_DOMAIN, house.seal.derived(PURPOSE)[0])
    await house.receive(complaint("<x@example.org>", return_path=str(token)), mailbox=True)
    await house.read()
    assert (await house.entry(message))["status"] == "spam" and await house.suppressed() == ["you@example.net"]


@pytest.mark.parametrize("forged", FORGED.values(), ids=FORGED.keys())
@pytest.mark.parametrize(
    ("mailbox", "recipient", "suppressed"),
    [
        (True, "you@example.net", ["you@example.net"]),
        (True, "behind@example.org", []),  # a report that knows the recipient names it
        (False, "you@example.net", []),  # anybody may hand one in
    ],
)
async def test_where_a_provider_writes_the_reverse_path_a_message_id_changes_the_entry(
    house: House, forged: Any, mailbox: bool, recipient: str, suppressed: list[str]
) -> None:
    await house.give_return_paths()
    await house.send_by_google()
    message = await house.sent("you@example.net")
    content = forged(message).replace(b"you@example.net", recipient.encode())
    await house.receive(content, mailbox=mailbox)
    await house.read()
    assert (await house.entry(message))["status"] in ("bounced", "spam")
    assert await house.suppressed() == suppressed


async def test_a_report_that_breaks_the_reader_or_never_ends_keeps_no_other_one_waiting(house: House) -> None:
    message = await house.sent("you@example.net")
    broken, endless = await house.receive(b"Subject: breaks\n"), await house.receive(b"Subject: endless\n")
    await house.receive(dsn(), subject=message.entries[0].entry_id)
    until = threading.Event()

    def read_content(content: bytes) -> Report:
        if b"breaks" in content:
            raise RecursionError("words of a stranger")
        if b"endless" in content:
            until.wait(60)
        return read(content)

    try:
        await settle_reports(
            house.db,
            house.return_paths.subject_of,
            suppression_days=90,
            emit=house.events.append,
            read_content=read_content,
            read_seconds=2,
        )
    finally:
        until.set()
    assert (await house.entry(message))["status"] == "bounced"
    told = [(each.status, each.kind, each.error) for each in [await house.report(broken), await house.report(endless)]]
    assert told == [
        ("ignored", "unrecognised", "could not be read: RecursionError"),
        ("ignored", "unrecognised", "could not be read: it takes longer than 2 s"),
    ]
    assert [event.status for event in house.seen(ReportRead)] == ["ignored", "ignored", "matched"]
    assert not any("words of a stranger" in str(event) for event in house.events)


async def test_a_report_that_cannot_be_settled_is_put_off_and_after_a_day_kept_as_it_is(house: House) -> None:
    message = await house.sent("you@example.net")
    report = await house.receive(dsn(), subject=message.entries[0].entry_id)
    async with house.db.connection() as connection:
        await connection.execute("ALTER TABLE email_queue ADD CHECK (status <> 'bounced') NOT VALID")
    await house.read()
    assert ((await house.report(report)).status, (await house.report(report)).error) == (
        "new",
        "could not be settled: CheckViolationError",
    )
    async with house.db.connection() as connection:
        await connection.execute(
            "UPDATE inbound_reports SET next_look_at = '-infinity', received_at = relayd_now() - interval '25 h'"
        )
    await house.read()
    assert (await house.report(report)).status == "ignored"

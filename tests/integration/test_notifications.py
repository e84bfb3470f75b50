"""What a sender is told of its mail, and how: notifications and events, in the transaction of what they tell."""

from dataclasses import replace
from email.message import Message
from typing import Any

import pytest

from relayd.intake.bounce import WHOLE_OCTETS
from relayd.rules.outcome import Cause, Deferred, Failed, Outcome, Scope, Stage
from relayd.rules.relay_events import AddressesSuppressed, Bounced
from relayd.store import attempts
from relayd.store.pool import Database
from relayd.upstream.verdict import judge_reply
from tests.builders import claim_all, make_sender, put
from tests.integration.notifying import NO_USER, SENT, House, blocks

LATER = Deferred(Scope.RECIPIENT, Cause(Stage.RCPT, "4.2.1 later", 450, "4.2.1"))
POLICY = Failed(Scope.RECIPIENT, Cause(Stage.RCPT, "5.7.1 not you", 550, "5.7.1"))
AS_8BIT = Failed(Scope.MESSAGE, Cause(Stage.DATA, "5.6.3 conversion required", 554, "5.6.3"))
PASSED = replace(SENT, dsn_passed=True)
SEVEN_BITS = b"From: app@example.com\r\nSubject: Hello\r\n\r\nThe body\r\n"
EIGHT_BITS = SEVEN_BITS + "Grüße\r\n".encode()


@pytest.fixture
async def house(db: Database) -> House:
    async with db.connection() as connection:
        return House(db, await make_sender(connection))


async def sent_by(house: House, *recipients: str, **fields: Any) -> None:
    async with house.db.connection() as connection:
        await put(connection, house.sender, *recipients, **{"content": SEVEN_BITS, **fields})


async def kinds(house: House) -> list[str]:
    return [row["kind"] for row in await house.fetch("SELECT kind FROM client_events ORDER BY id")]


async def test_a_sender_is_told_what_it_asked_for(house: House) -> None:
    cases: list[tuple[str | None, Outcome, list[str]]] = [
        (None, NO_USER, ["failed"]),
        ("NEVER", NO_USER, []),
        ("FAILURE", NO_USER, ["failed"]),
        ("SUCCESS,DELAY", NO_USER, []),
        ("SUCCESS,FAILURE", POLICY, ["failed"]),
        (None, SENT, []),
        ("NEVER", SENT, []),
        ("FAILURE,DELAY", SENT, []),
        ("SUCCESS", SENT, ["relayed"]),
        ("SUCCESS", PASSED, []),
        ("SUCCESS,FAILURE", LATER, []),
    ]
    for number, (notify, _, _) in enumerate(cases):
        await sent_by(house, f"case{number:02}@example.net", notify=notify)
    entries = sorted(await house.claim(), key=lambda each: str(each.recipient))
    await house.settle(entries, *(outcome for _, outcome, _ in cases))
    found = {each["Final-Recipient"]: each["Action"] for one in await house.notifications() for each in blocks(one)[1:]}
    expected = {f"rfc822; case{number:02}@example.net": told[0] for number, (*_, told) in enumerate(cases) if told}
    assert found == expected
    counted = [event.action for event in house.events if isinstance(event, Bounced)]
    assert sorted(counted) == sorted(expected.values())


async def test_a_notification_quotes_what_the_envelope_said(house: House) -> None:
    orcpt = "rfc822;Bob+2Bsales@Example.NET"
    await sent_by(house, "bob@example.net", orcpt=orcpt, envelope_id="Order+20+2B7", notify="FAILURE")
    await house.end_all(NO_USER)
    (notification,) = await house.notifications()
    about, recipient = blocks(notification)
    assert about["Original-Envelope-Id"] == "Order +7"
    assert recipient["Original-Recipient"] == "rfc822; Bob+sales@Example.NET"
    assert recipient["Final-Recipient"] == "rfc822; bob@example.net"
    assert (recipient["Action"], recipient["Status"]) == ("failed", "5.1.1")
    assert recipient["Diagnostic-Code"] == "smtp; 550 5.1.1 no such user"
    assert notification["Subject"] == "Undelivered mail: 1 recipient" and notification["To"] == "<bounces@example.com>"


def returned(notification: Message) -> tuple[str, Any]:
    original: Any = notification.get_payload(2)
    return original.get_content_type(), original


async def test_the_original_comes_back_whole_if_it_can(house: House) -> None:
    cases: list[tuple[str | None, bytes, Outcome, str]] = [
        (None, SEVEN_BITS, NO_USER, "text/rfc822-headers"),
        ("HDRS", SEVEN_BITS, NO_USER, "text/rfc822-headers"),
        ("FULL", SEVEN_BITS, NO_USER, "message/rfc822"),
        ("FULL", EIGHT_BITS, NO_USER, "message/rfc822"),
        ("FULL", EIGHT_BITS, AS_8BIT, "text/rfc822-headers"),
        ("FULL", SEVEN_BITS, SENT, "text/rfc822-headers"),
        ("FULL", SEVEN_BITS + b"x" * 1000 + b"\r\n", NO_USER, "text/rfc822-headers"),
        ("FULL", SEVEN_BITS + b"1234567\r\n" * (WHOLE_OCTETS // 9), NO_USER, "text/rfc822-headers"),
    ]
    for number, (dsn_ret, content, _, _) in enumerate(cases):
        await sent_by(house, f"case{number}@example.net", content=content, dsn_ret=dsn_ret, notify="SUCCESS,FAILURE")
    entries = sorted(await house.claim(), key=lambda each: str(each.recipient))
    await house.settle(entries, *(outcome for _, _, outcome, _ in cases))
    by_recipient = {blocks(each)[1]["Final-Recipient"]: each for each in await house.notifications()}
    for number, (_, content, _, kind) in enumerate(cases):
        found, original = returned(by_recipient[f"rfc822; case{number}@example.net"])
        assert found == kind, number
        if kind == "message/rfc822":
            assert original.get_payload(0)["Subject"] == "Hello"
            body = original.get_payload(0).get_payload(decode=True)
            assert body.replace(b"\r\n", b"\n") == content.partition(b"\r\n\r\n")[2].replace(b"\r\n", b"\n")
        else:
            assert b"The body" not in original.get_payload(decode=True)
    rows = await house.fetch("SELECT body_8bitmime FROM messages WHERE origin = 'dsn'")
    assert sum(row["body_8bitmime"] for row in rows) == 1


async def test_recipients_that_end_together_share_a_notification(house: House) -> None:
    await sent_by(house, "a@example.net", "b@example.net", "c@example.net", notify="SUCCESS,FAILURE")
    await house.end_all(NO_USER, SENT, POLICY)
    (notification,) = await house.notifications()
    assert [(each["Action"], each["Final-Recipient"]) for each in blocks(notification)[1:]] == [
        ("failed", "rfc822; a@example.net"),
        ("relayed", "rfc822; b@example.net"),
        ("failed", "rfc822; c@example.net"),
    ]
    assert notification["Subject"] == "Undelivered mail: 2 recipients"


async def test_a_client_is_told_by_mail_by_event_or_both(house: House) -> None:
    for wants, mails, events in (("mail", 1, 0), ("event", 1, 1), ("both", 2, 2)):
        await house.execute("UPDATE clients SET bounces = $1", wants)
        await sent_by(house, "you@example.net", envelope_id="A+2B1")
        # Only this message: the notifications before are left waiting.
        entries = await house.claim()
        await house.settle([each for each in entries if str(each.recipient) == "you@example.net"], NO_USER)
        assert (len(await house.notifications()), len(await kinds(house))) == (mails, events), wants
    for row in await house.fetch("SELECT * FROM client_events"):
        assert (row["kind"], row["recipient"], row["payload"]["status"]) == ("bounced", "you@example.net", "5.1.1")
        assert row["payload"]["envelope_id"] == "A+1" and row["payload"]["reverse_path"] == "bounces@example.com"


async def test_a_notification_that_fails_is_told_nobody(house: House) -> None:
    await house.execute("UPDATE clients SET bounces = 'both'")
    await sent_by(house)
    await house.end_all(NO_USER)
    assert await kinds(house) == ["bounced"]
    await house.end_all(NO_USER)
    assert len(await house.notifications()) == 1 and await kinds(house) == ["bounced"]
    (row,) = await house.fetch("SELECT address FROM suppressions")
    assert row["address"] == "you@example.net", "the reverse-path is nobody that the client writes to"


async def test_who_uses_the_null_reverse_path_is_told_by_event_alone(house: House) -> None:
    await house.execute("UPDATE clients SET bounces = 'both'")
    await sent_by(house, reverse_path=None)
    await house.end_all(NO_USER)
    assert (await house.notifications(), await kinds(house)) == ([], ["bounced"])


async def test_a_result_that_came_too_late_is_told_nobody(house: House) -> None:
    await house.execute("UPDATE clients SET bounces = 'both'")
    await sent_by(house, "a@example.net", "b@example.net")
    entries = sorted(await house.claim(), key=lambda each: each.entry_id)
    # Both are taken back; a newer attempt of the first has begun.
    await house.execute(
        "UPDATE email_queue SET status = 'queued', claimed_by = NULL, lease_expires_at = NULL,"
        " attempt_started_at = NULL, next_attempt_at = 'epoch'"
    )
    async with house.db.connection() as connection:
        await connection.execute("UPDATE mailbox_lanes SET due_at = 'epoch'")
        newer = await claim_all(connection, house.sender.upstream_id)
        first = [each for each in newer if each.entry_id == entries[0].entry_id]
        await attempts.start(connection, [(each, "capture") for each in first], lease_seconds=600)
    await house.settle(entries, NO_USER)
    (notification,) = await house.notifications()
    assert [each["Final-Recipient"] for each in blocks(notification)[1:]] == ["rfc822; b@example.net"]
    found = await house.fetch("SELECT recipient FROM client_events")
    assert [row["recipient"] for row in found] == ["b@example.net"]
    assert [row["address"] for row in await house.fetch("SELECT address FROM suppressions")] == ["b@example.net"]


async def test_all_that_is_told_is_committed_with_the_end_or_not_at_all(house: House) -> None:
    await house.execute("UPDATE clients SET bounces = 'both'")
    await sent_by(house, notify="SUCCESS")
    entries = await house.claim()
    await house.execute("ALTER TABLE client_events ADD CHECK (kind <> 'relayed')")
    await house.settle(entries, SENT)
    assert (await house.notifications(), await kinds(house)) == ([], [])
    ((status,),) = await house.fetch("SELECT status FROM email_queue")
    assert status == "sending", "its lease will lapse: nothing was settled"


# Seen at RCPT: whatever the code, only the first four say that this recipient does not exist.
AT_RCPT = [
    ("5.1.1 <case00@example.net>: Recipient address rejected: User unknown in local recipient table", "hard", True),
    ("No such user here", "hard", True),
    ("5.7.1 case02@example.net does not exist", "hard", True),
    ("Unrouteable address", "hard", True),
    ("5.1.1 <app@example.com>: Sender address rejected: User unknown in local sender table", "soft", False),
    ("5.1.1 Service unavailable, client host [192.0.2.1] blocked using a blocklist", "soft", False),
    ("5.1.1 Mailbox full", "soft", False),
    ("5.1.1 192.0.2.7 has sent to too many recipients this hour", "soft", False),
    ("5.1.7 No such domain example.com", "soft", False),
    ("5.1.0 example.com does not exist", "soft", False),
    ("5.1.1 <case10@example.net>: Recipient address rejected: Access denied", "soft", False),
    ("Rejected", "hard", False),
]


async def test_a_refusal_at_rcpt_suppresses_only_a_recipient_that_does_not_exist(house: House) -> None:
    for number in range(len(AT_RCPT)):
        await sent_by(house, f"case{number:02}@example.net")
    entries = sorted(await house.claim(), key=lambda each: str(each.recipient))
    await house.settle(entries, *(judge_reply(Stage.RCPT, 550, text) for text, _, _ in AT_RCPT))
    types = await house.fetch(
        "SELECT bounce_type FROM email_queue WHERE recipient_address LIKE 'case%' ORDER BY recipient_address"
    )
    assert [row["bounce_type"] for row in types] == [kind for _, kind, _ in AT_RCPT]
    rows = await house.fetch("SELECT address FROM suppressions ORDER BY 1")
    assert [row["address"] for row in rows] == [
        f"case{number:02}@example.net" for number, (_, _, is_suppressed) in enumerate(AT_RCPT) if is_suppressed
    ]


async def test_which_bounces_are_hard_and_which_suppress(house: House) -> None:
    cases: list[tuple[str | None, int, Scope, str | None, bool]] = [
        ("5.1.1", 550, Scope.RECIPIENT, "hard", True),
        ("5.1.2", 550, Scope.RECIPIENT, "hard", True),
        ("5.1.3", 553, Scope.RECIPIENT, "hard", True),
        ("5.1.6", 551, Scope.RECIPIENT, "hard", True),
        ("5.1.10", 556, Scope.RECIPIENT, "hard", True),
        ("5.1.0", 550, Scope.RECIPIENT, "hard", False),
        ("5.2.1", 550, Scope.RECIPIENT, "hard", False),
        ("5.2.2", 552, Scope.RECIPIENT, "soft", False),
        ("5.7.1", 550, Scope.RECIPIENT, "soft", False),
        ("5.1.1", 550, Scope.MESSAGE, None, False),
        (None, 550, Scope.RECIPIENT, "hard", False),
        (None, 552, Scope.RECIPIENT, "soft", False),
    ]
    for number in range(len(cases)):
        await sent_by(house, f"Case{number:02}@Example.net")
    entries = sorted(await house.claim(), key=lambda each: str(each.recipient))
    outcomes = [Failed(scope, Cause(Stage.RCPT, "no", code, enhanced)) for enhanced, code, scope, _, _ in cases]
    await house.settle(entries, *outcomes)
    types = await house.fetch(
        "SELECT bounce_type FROM email_queue WHERE recipient_address LIKE 'Case%' ORDER BY recipient_address"
    )
    assert [row["bounce_type"] for row in types] == [bounce_type for *_, bounce_type, _ in cases]
    rows = await house.fetch(
        "SELECT address, reason, entry_id,"
        " extract(day FROM expires_at + interval '1 hour' - created_at)::int AS days FROM suppressions ORDER BY 1"
    )
    assert [row["address"] for row in rows] == [
        f"case{number:02}@example.net" for number, (*_, is_suppressed) in enumerate(cases) if is_suppressed
    ]
    assert {(row["reason"], row["days"]) for row in rows} == {("hard_bounce", 30)}
    assert [row["entry_id"] for row in rows] == [each.entry_id for each in entries[:5]]
    assert sum(event.count for event in house.events if isinstance(event, AddressesSuppressed)) == 5


async def test_a_client_says_how_long_its_hard_bounces_count(house: House) -> None:
    for number, days in enumerate((None, 7, 0)):
        await house.execute("UPDATE clients SET suppression_days = $1", days)
        await sent_by(house, f"case{number}@example.net")
        await house.end_all(*[NO_USER] * (1 if number == 0 else 2))  # the second is the notification before
    rows = await house.fetch(
        "SELECT address,"
        " extract(day FROM expires_at + interval '1 hour' - created_at)::int AS days FROM suppressions ORDER BY 1"
    )
    assert [(row["address"], row["days"]) for row in rows] == [
        ("case0@example.net", 30),
        ("case1@example.net", 7),
    ]

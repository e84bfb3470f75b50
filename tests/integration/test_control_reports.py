"""Bounce domains, inboxes and reports, by the command line and the socket."""

from pathlib import Path

from relayd.store import inbound_reports
from relayd.store.inbound_reports import NewReport
from relayd.upkeep.settle_reports import settle_reports
from tests.builders import make_sender
from tests.integration.conftest import Control


async def sending(control: Control) -> None:
    async with control.db.connection() as connection:
        await make_sender(connection)


async def test_a_bounce_domain_is_set_shown_and_taken_away(control: Control) -> None:
    await sending(control)
    ran = await control.cli("domain", "set", "example.com", "--bounce-domain", "Bounces.example.com")
    assert (ran.code, ran.out) == (0, "domain example.com changed\n")
    assert "next, publish its records: relayd domain records example.com" in ran.err
    records = await control.ok("GET", "domains/example.com/records")
    ours = [each for each in records["items"] if each["name"] == "bounces.example.com"]
    assert [(each["type"], each["value"]) for each in ours] == [("TXT", "v=spf1 ip4:192.0.2.1 ~all")]
    assert any("publish.report_mx_host" in note for note in records["notes"])
    assert not any("align" in note for note in records["notes"])
    await control.cli("domain", "set", "example.com", "--bounce-domain", "none")
    assert (await control.ok("GET", "domains/example.com"))["bounce_domain"] is None


async def test_a_bounce_domain_that_does_not_align_is_told(control: Control) -> None:
    await sending(control)
    await control.ok("PATCH", "domains/example.com", {"bounce_domain": "bounces.example.org"})
    notes = (await control.ok("GET", "domains/example.com/records"))["notes"]
    assert any("does not align" in note for note in notes)


async def test_a_bounce_domain_that_cannot_be_one_is_refused(control: Control) -> None:
    await sending(control)
    async with control.db.connection() as connection:
        await make_sender(connection, "noreply@example.org")
    for taken in ("example.com", "example.org"):
        answer = await control.request("PATCH", "domains/example.com", {"bounce_domain": taken})
        assert answer.status == 409 and "--bounce-domain bounces.example.com" in answer.message
    await control.ok("PATCH", "domains/example.com", {"bounce_domain": "bounces.example.com"})
    answer = await control.request("PATCH", "domains/example.org", {"bounce_domain": "bounces.example.com"})
    assert "is the bounce domain of another domain already" in answer.message


async def test_an_inbox_is_configured_and_its_password_is_nowhere(control: Control, tmp_path: Path) -> None:
    await sending(control)
    (tmp_path / "password").write_text("canary words\n")
    ran = await control.cli(
        *("mailbox", "set", "noreply@example.com", "--reports-imap-host", "imap.example.com"),
        *("--reports-password-file", str(tmp_path / "password"), "--reports-username", "noreply"),
    )
    assert (ran.code, ran.out) == (0, "mailbox noreply@example.com changed\n"), ran.err
    shown = await control.cli("mailbox", "show", "noreply@example.com")
    assert "noreply at imap.example.com, last read never yet" in shown.out
    details = await control.ok("GET", "mailboxes/noreply@example.com")
    assert (details["inbox"]["imap_port"], details["inbox"]["imap_tls"]) == (993, "implicit")
    async with control.db.connection() as connection:
        audit = await connection.fetch("SELECT before::text, after::text FROM audit_logs")
        row = await connection.fetchrow("SELECT * FROM mailbox_inboxes")
    assert "canary" not in str(audit) + shown.out + str(details) and b"canary" not in row["imap_password_sealed"]
    changed = await control.cli("mailbox", "set", "noreply@example.com", "--reports-tls", "starttls")
    assert changed.code == 0
    details = await control.ok("GET", "mailboxes/noreply@example.com")
    assert (details["inbox"]["imap_port"], details["inbox"]["imap_username"]) == (143, "noreply")
    assert (await control.cli("mailbox", "set", "noreply@example.com", "--reports", "none")).code == 0
    assert (await control.ok("GET", "mailboxes/noreply@example.com"))["inbox"] is None


async def test_an_inbox_that_is_not_said_whole_is_refused_with_what_is_missing(control: Control) -> None:
    await sending(control)
    ran = await control.cli("mailbox", "set", "noreply@example.com", "--reports-tls", "starttls")
    assert ran.code == 1 and "--reports-imap-host" in ran.err
    ran = await control.cli("mailbox", "set", "noreply@example.com", "--reports-imap-host", "imap.example.com")
    assert ran.code == 1 and "--reports-password-file" in ran.err
    body = {"host": "imap.example.com", "password": "sesame"}
    await control.ok("PATCH", "mailboxes/noreply@example.com/inbox", body)
    answer = await control.request("PATCH", "mailboxes/noreply@example.com/inbox", {"host": "imap.example.org"})
    assert "another server needs its password again" in answer.message


async def test_reports_are_listed_shown_and_read_again(control: Control) -> None:
    await sending(control)
    assert "nothing of the kind came back" in (await control.cli("report", "list")).err
    content = b"From: MAILER-DAEMON@example.net\r\nSubject: failure notice\r\n\r\n<a@example.net>:\r\n550 no such user"
    async with control.db.connection() as connection:
        client_id = await connection.fetchval("SELECT id FROM clients")
        report_id = await inbound_reports.add(connection, NewReport(client_id, "smtp", content), max_waiting=9)
    await settle_reports(control.db, lambda address: None, suppression_days=90, emit=lambda event: None)
    listed = await control.cli("report", "list", "--status", "unmatched", "--kind", "bounce")
    assert str(report_id) in listed.out
    shown = await control.cli("report", "show", str(report_id))
    assert "no message of this client is meant" in shown.out
    raw = await control.cli("report", "show", str(report_id), "--raw")
    assert raw.out.encode() == content
    again = await control.cli("report", "retry", str(report_id))
    assert again.code == 0 and (await control.ok("GET", f"reports/{report_id}"))["status"] == "new"
    async with control.db.connection() as connection:
        await connection.execute("UPDATE inbound_reports SET status = 'matched', settled_at = relayd_now()")
    assert (await control.cli("report", "retry", str(report_id))).code == 1
    unknown = await control.request("GET", "reports/01890a5d-ac96-774b-bcce-b302099a8057")
    assert unknown.status == 404 and "relayd report list" in unknown.message

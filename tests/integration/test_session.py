"""What a well-behaved client sees, and the caps that keep one client from harming the rest."""

import asyncio
from base64 import b64encode

import pytest

from relayd.errors import StoreUnavailable
from relayd.mail.address import Address
from relayd.mail.reply import Reply
from relayd.rules.outcome import Stage
from relayd.rules.session_events import (
    Authenticated,
    AuthenticationFailed,
    Cap,
    Ending,
    Reason,
    Refused,
    SessionClosed,
    SessionOpened,
    SessionRefused,
)
from relayd.submission.limits import SessionLimits
from tests.peers.raw_smtp import APP, NETWORK, RawClient, Server, serving

MAIL = "MAIL FROM:<a@example.com>"
RCPT = "RCPT TO:<b@example.net>"
HUGE = "x" * 70_000


def limits(**changes: float) -> SessionLimits:
    return SessionLimits(**{"auth_failure_delay_seconds": 0, "linger_seconds": 1, **changes})  # type: ignore[arg-type]


def plain(login: str, secret: str) -> str:
    return b64encode(f"\0{login}\0{secret}".encode()).decode()


def b64(text: str) -> str:
    return b64encode(text.encode()).decode()


def endings(server: Server) -> list[Ending]:
    return [event.reason for event in server.seen(SessionClosed)]


async def test_a_message_reaches_the_door_with_its_envelope():
    async with serving() as server:
        client = await server.connect()
        await client.begin_message()
        assert await client.ask("Subject: x\r\n\r\n..dot\r\n.") == "250 2.0.0 queued as 1"
        (submission,) = server.door.submissions
        assert submission.content == b"Subject: x\r\n\r\n.dot\r\n"
        assert submission.identity == NETWORK
        assert submission.envelope.reverse_path == Address("a", "example.com")
        assert submission.envelope.forward_paths == (Address("b", "example.net"),)
        assert (submission.helo, submission.peer, submission.protocol, submission.tls) == (
            "app.example",
            "127.0.0.1",
            "ESMTP",
            None,
        )
        assert await client.ask("QUIT") == "221 2.0.0 Bye"
        assert await client.is_closed()
        await server.until(lambda: endings(server) == [Ending.QUIT])
        assert server.seen(SessionOpened) == [SessionOpened("127.0.0.1")]


async def test_ehlo_offers_what_there_is():
    async with serving(limits=limits(size_octets=1234), allow_plaintext_auth=True) as server:
        client = await server.connect()
        assert await client.ask("EHLO x") == (
            "250-mail.test\n250-PIPELINING\n250-SIZE 1234\n250-8BITMIME\n250-SMTPUTF8\n250-DSN\n250-AUTH PLAIN LOGIN\n"
            "250 ENHANCEDSTATUSCODES"
        )


async def test_helo_is_plain_smtp():
    async with serving() as server:
        client = await server.connect()
        assert await client.ask("HELO app") == "250 mail.test"
        assert (await client.ask(MAIL + " SIZE=1")).startswith("555 5.5.4")
        assert await client.codes(MAIL, RCPT, "DATA") == [250, 250, 354]
        assert await client.codes("x\r\n.") == [250]
        assert server.door.submissions[0].protocol == "SMTP"


@pytest.mark.parametrize(
    ("lines", "last"),
    [
        ([MAIL], "503 5.5.1 "),
        (["EHLO x", RCPT], "503 5.5.1 "),
        (["EHLO x", "DATA"], "503 5.5.1 "),
        (["EHLO x", MAIL, "DATA"], "554 5.5.1 "),
        (["EHLO x", MAIL, MAIL], "503 5.5.1 "),
        (["EHLO x", MAIL, "RSET", RCPT], "503 5.5.1 "),
        (["EHLO x", MAIL, "EHLO x", RCPT], "503 5.5.1 "),
        (["EHLO x", "MAIL FROM:<>"], "250 2.1.0 "),
        (["EHLO x", MAIL + " SIZE=99999999"], "552 5.3.4 "),
        (["EHLO x", MAIL, RCPT + " NOTIFY=NEVER"], "250 2.1.5 "),
        (["EHLO x", MAIL, RCPT + " NOTIFY=NEVER,DELAY"], "501 5.5.4 "),
        (["EHLO x", MAIL, RCPT + " PRIORITY=1"], "555 5.5.4 "),
        (["EHLO x", MAIL, "RCPT TO:<hostmaster>"], "553 5.1.3 "),
        (["EHLO x", MAIL, "RCPT TO:<ä@example.net>"], "553 5.6.7 "),
        (["EHLO x", MAIL + " SMTPUTF8", "RCPT TO:<ä@example.net>"], "250 2.1.5 "),
        (["EHLO x", MAIL, RCPT, "DATA now"], "501 5.5.4 "),
        (["EHLO x", "AUTH PLAIN " + plain("app", "sesame")], "538 5.7.11 "),
        (["STARTTLS"], "502 5.5.1 "),
        (["NOOP anything"], "250 2.0.0 "),
        (["RSET"], "250 2.0.0 "),
        (["RSET x"], "501 5.5.4 "),
        (["QUIT x"], "501 5.5.4 "),
        (["VRFY a"], "252 2.5.2 "),
        (["EXPN a"], "502 5.5.1 "),
        (["HELP"], "214 2.0.0 "),
        (["BDAT 5"], "500 5.5.2 "),
        ([""], "500 5.5.2 "),
    ],
)
async def test_the_last_reply(lines: list[str], last: str):
    async with serving() as server:
        client = await server.connect()
        replies = [await client.ask(line) for line in lines]
        assert replies[-1].startswith(last), replies


async def test_pipelined_commands_are_answered_in_order():
    async with serving() as server:
        client = await server.connect()
        client.send(f"EHLO x\r\n{MAIL}\r\nRCPT TO:<bad>\r\n{RCPT}\r\nDATA\r\n".encode())
        assert [reply[:3] for reply in await client.replies(5)] == ["250", "250", "553", "250", "354"]
        client.send(f"one\r\n.\r\n{MAIL}\r\n{RCPT}\r\nDATA\r\ntwo\r\n.\r\nQUIT\r\n".encode())
        assert [reply[:3] for reply in await client.replies(6)] == ["250", "250", "250", "354", "250", "221"]
        assert [submission.content for submission in server.door.submissions] == [b"one\r\n", b"two\r\n"]


async def test_8_bit_content_is_called_so_even_without_body():
    async with serving() as server:
        client = await server.connect()
        await client.begin_message()
        await client.ask("ä\r\n.")
        assert server.door.submissions[0].envelope.body_8bitmime


async def test_smtputf8_names_its_protocol():
    async with serving() as server:
        client = await server.connect()
        await client.ask("EHLO x")
        await client.codes("MAIL FROM:<ä@example.com> SMTPUTF8 BODY=8BITMIME", RCPT, "DATA", "x\r\n.")
        (submission,) = server.door.submissions
        assert submission.protocol == "UTF8SMTP" and submission.envelope.smtputf8
        assert submission.envelope.reverse_path == Address("ä", "example.com")


async def test_a_recipient_named_twice_gets_one_copy():
    async with serving() as server:
        client = await server.connect()
        await client.ask("EHLO x")
        assert await client.codes(MAIL, RCPT, RCPT, "DATA", "x\r\n.") == [250, 250, 250, 354, 250]
        assert len(server.door.submissions[0].envelope.forward_paths) == 1


# Who may speak.


async def test_a_stranger_is_told_to_authenticate():
    async with serving(trusted=False, allow_plaintext_auth=True) as server:
        client = await server.connect()
        await client.ask("EHLO x")
        assert await client.ask(MAIL) == "530 5.7.0 Authentication required"
        assert server.seen(Refused)[0].reason is Reason.AUTH_REQUIRED


async def test_a_stranger_is_refused_where_nobody_can_authenticate():
    async with serving(trusted=False) as server:
        client = await server.connect()
        await client.ask("EHLO x")
        assert await client.ask(MAIL) == "550 5.7.1 Relaying denied"
        refused = server.seen(Refused)[0]
        assert (refused.stage, refused.code, refused.enhanced) == (Stage.MAIL, 550, "5.7.1")
        assert refused.reason is Reason.RELAY_DENIED and refused.detail == "FROM:<a@example.com>"


async def test_the_doors_refusal_of_a_sender_is_passed_on():
    async with serving() as server:
        server.door.refusal = Reply(550, "5.7.1", "Not your address")
        client = await server.connect()
        await client.ask("EHLO x")
        assert await client.ask(MAIL) == "550 5.7.1 Not your address"
        assert server.seen(Refused)[0].reason is Reason.POLICY


AUTHENTICATIONS = [
    ["AUTH PLAIN " + plain("app", "sesame")],
    ["auth plain", plain("app", "sesame")],
    ["AUTH LOGIN", b64("app"), b64("sesame")],
    ["AUTH LOGIN " + b64("app"), b64("sesame")],
]


@pytest.mark.parametrize("lines", AUTHENTICATIONS)
async def test_auth(lines: list[str]):
    async with serving(trusted=False, allow_plaintext_auth=True) as server:
        client = await server.connect()
        await client.ask("EHLO x")
        codes = await client.codes(*lines)
        assert codes == [334] * (len(lines) - 1) + [235]
        assert await client.codes(lines[0]) == [503]
        assert await client.codes(MAIL, RCPT, "DATA", "x\r\n.") == [250, 250, 354, 250]
        (submission,) = server.door.submissions
        assert submission.identity == APP and submission.protocol == "ESMTPA"
        assert server.seen(Authenticated) == [Authenticated("127.0.0.1", "app", lines[0].split()[1].upper())]


@pytest.mark.parametrize(
    ("lines", "last"),
    [
        (["AUTH PLAIN *"], "501 5.7.0 "),
        (["AUTH PLAIN", "*"], "501 5.7.0 "),
        (["AUTH LOGIN", b64("app"), "*"], "501 5.7.0 "),
        (["AUTH PLAIN ???"], "501 5.5.2 "),
        (["AUTH LOGIN", "???"], "501 5.5.2 "),
        (["AUTH LOGIN", "="], "501 5.5.2 "),
        (["AUTH PLAIN " + b64("root\0app\0sesame")], "535 5.7.8 "),
        (["AUTH CRAM-MD5"], "504 5.5.4 "),
        (["AUTH"], "504 5.5.4 "),
        (["HELO x", "AUTH PLAIN " + plain("app", "sesame")], "503 5.5.1 "),
        ([MAIL, "AUTH PLAIN " + plain("app", "sesame")], "503 5.5.1 "),
    ],
)
async def test_auth_that_is_not_even_tried(lines: list[str], last: str):
    async with serving(allow_plaintext_auth=True) as server:
        client = await server.connect()
        await client.ask("EHLO x")
        replies = [await client.ask(line) for line in lines]
        if replies[-1].startswith("334"):
            replies.append(await client.ask("="))
        assert replies[-1].startswith(last), replies


async def test_an_unknown_login_and_a_wrong_secret_look_the_same():
    async with serving(trusted=False, allow_plaintext_auth=True) as server:
        client = await server.connect()
        await client.ask("EHLO x")
        unknown = await client.ask("AUTH PLAIN " + plain("nobody", "sesame"))
        wrong = await client.ask("AUTH PLAIN " + plain("app", "open"))
        assert unknown == wrong == "535 5.7.8 Authentication credentials invalid"
        assert [event.login for event in server.seen(AuthenticationFailed)] == ["(unknown)", "app"]


async def test_auth_tries_are_capped():
    async with serving(allow_plaintext_auth=True, limits=limits(max_auth_tries=3)) as server:
        client = await server.connect()
        await client.ask("EHLO x")
        client.send(("AUTH PLAIN " + plain("app", "guess") + "\r\n").encode() * 3_000)
        assert [reply[:9] for reply in await client.replies(4)] == ["535 5.7.8"] * 3 + ["421 4.7.0"]
        assert await client.is_closed()
        await server.until(lambda: endings(server) == [Ending.TOO_MANY_AUTH_TRIES])


async def test_no_secret_gets_into_an_event():
    async with serving(trusted=False) as server:
        client = await server.connect()
        await client.ask("EHLO x")
        for line in ("AUTH LOGIN", b64("app"), b64("sesame"), "AUTH PLAIN " + plain("app", "sesame")):
            await client.ask(line)
        told = repr(server.events)
        assert b64("sesame") not in told and "sesame" not in told and plain("app", "sesame") not in told


async def test_auth_while_the_store_is_down_is_temporary():
    async with serving(trusted=False, allow_plaintext_auth=True) as server:
        server.verifier.is_down = True
        client = await server.connect()
        await client.ask("EHLO x")
        assert (await client.ask("AUTH PLAIN " + plain("app", "sesame"))).startswith("454 4.7.0 ")
        assert (await client.ask(MAIL)).startswith("451 4.3.0 ")
        server.verifier.is_down = False
        assert (await client.ask("AUTH PLAIN " + plain("app", "sesame"))).startswith("235 2.7.0 ")


# What breaks inside stays inside.


@pytest.mark.parametrize("error", [StoreUnavailable("postgres://u:hunter2@db"), ValueError("hunter2")])
async def test_an_error_behind_the_door_is_temporary_and_says_nothing(error: Exception):
    async with serving() as server:
        server.door.error = error
        client = await server.connect()
        await client.begin_message()
        assert await client.ask("x\r\n.") == "451 4.3.0 Temporary server problem, try again later"
        server.door.error, server.door.mail_error = None, error
        assert await client.ask(MAIL) == "451 4.3.0 Temporary server problem, try again later"
        server.door.mail_error = None
        assert await client.codes(MAIL, RCPT, "DATA", "x\r\n.") == [250, 250, 354, 250]
        assert {event.reason for event in server.seen(Refused)} == {Reason.UNAVAILABLE}


async def test_a_message_is_accepted_though_the_client_leaves_after_the_last_dot():
    async with serving() as server:
        server.door.opened.clear()
        client = await server.connect()
        await client.begin_message()
        client.send(b"x\r\n.\r\n")
        await asyncio.wait_for(server.door.entered.wait(), 20)
        client.writer.transport.abort()
        await server.until(client.reader.at_eof)
        server.door.opened.set()
        await asyncio.wait_for(server.door.settled.wait(), 20)
        await server.until(lambda: endings(server) == [Ending.DISCONNECTED])


async def test_a_last_dot_that_comes_with_the_disconnect_still_counts():
    async with serving() as server:
        client = await server.connect()
        await client.begin_message()
        client.send(b"x\r\n.\r\n")
        await client.close()
        await asyncio.wait_for(server.door.settled.wait(), 20)


async def test_half_a_message_is_never_accepted():
    async with serving() as server:
        client = await server.connect()
        await client.begin_message()
        client.send(b"x\r\n.\r")
        await client.close()
        await server.until(lambda: endings(server) == [Ending.DISCONNECTED])
        assert server.door.submissions == []


async def test_a_half_closed_client_gets_all_its_replies():
    async with serving() as server:
        client = await server.connect()
        client.send(f"EHLO x\r\n{MAIL}\r\n{RCPT}\r\nDATA\r\nx\r\n.\r\nNOOP\r\n".encode())
        client.writer.write_eof()
        assert [reply[:3] for reply in await client.replies(6)] == ["250", "250", "250", "354", "250", "250"]
        assert await client.is_closed()


# Caps.


async def test_recipients_are_capped():
    async with serving(limits=limits(max_recipients=100)) as server:
        client = await server.connect()
        await client.ask("EHLO x")
        await client.ask(MAIL)
        client.send(b"".join(b"RCPT TO:<r%d@example.net>\r\n" % number for number in range(1_100)))
        replies = await client.replies(1_100)
        assert [reply[:9] for reply in replies] == ["250 2.1.5"] * 100 + ["452 4.5.3"] * 1_000
        assert await client.codes("DATA", "x\r\n.") == [354, 250]
        assert len(server.door.submissions[0].envelope.forward_paths) == 100


@pytest.mark.parametrize(
    ("changes", "cap"),
    [({"max_connections": 2}, Cap.CONNECTIONS), ({"max_connections_per_peer": 2}, Cap.CONNECTIONS_PER_PEER)],
)
async def test_connections_are_capped(changes: dict[str, float], cap: Cap):
    async with serving(limits=limits(**changes)) as server:
        first, _ = await server.connect(), await server.connect()
        third = await server.connect(greeted=False)
        assert (await third.reply()).startswith("421 4.7.0 ")
        assert await third.is_closed()
        assert server.seen(SessionRefused) == [SessionRefused("127.0.0.1", cap)]
        await first.ask("QUIT")
        await server.until(lambda: server.listener.connections == 1)
        await server.connect()


async def test_a_noop_drip_ends():
    async with serving(limits=limits(max_commands=50)) as server:
        client = await server.connect()
        client.send(b"NOOP\r\n" * 3_000)
        replies = await client.replies(51)
        assert [reply[:3] for reply in replies] == ["250"] * 50 + ["421"]
        assert await client.is_closed()


async def test_a_message_starts_the_count_of_commands_anew():
    async with serving(limits=limits(max_commands=5)) as server:
        client = await server.connect()
        await client.ask("EHLO x")
        for _ in range(10):
            assert await client.codes("RSET", MAIL, RCPT, "DATA", "x\r\n.") == [250, 250, 250, 354, 250]


async def test_errors_are_capped():
    async with serving(limits=limits(max_bad_commands=3)) as server:
        client = await server.connect()
        client.send(b"FOO\r\n" * 100)
        assert [reply[:3] for reply in await client.replies(4)] == ["500"] * 3 + ["421"]
        assert await client.is_closed()
        await server.until(lambda: endings(server) == [Ending.TOO_MANY_ERRORS])


async def test_size_is_capped_and_the_session_goes_on():
    async with serving(limits=limits(size_octets=50_000)) as server:
        client = await server.connect()
        await client.begin_message()
        assert await client.ask((HUGE + "\r\n") * 2 + ".") == "552 5.3.4 Message exceeds 50000 octets"
        assert await client.codes(MAIL, RCPT, "DATA", "x\r\n.") == [250, 250, 354, 250]
        assert server.seen(Refused)[0].reason is Reason.TOO_LARGE


async def test_a_message_without_end_is_cut():
    async with serving(limits=limits(size_octets=50_000, discard_factor=4)) as server:
        client = await server.connect()
        await client.begin_message()
        client.send(b"x" * 300_000)
        assert (await client.reply()).startswith("552 5.3.4 ")
        assert await client.is_closed()
        await server.until(lambda: endings(server) == [Ending.TOO_LARGE])


# Time.


async def test_a_slow_steady_upload_outlives_the_idle_time():
    async with serving(limits=limits(idle_seconds=0.4)) as server:
        client = await server.connect()
        await client.begin_message()
        for _ in range(8):
            client.send(b"slow\r\n")
            await asyncio.sleep(0.1)
        assert await client.codes(".") == [250]


@pytest.mark.parametrize(
    ("changes", "ending"),
    [({"idle_seconds": 0.1}, Ending.IDLE), ({"session_seconds": 0.1}, Ending.SESSION_TOO_LONG)],
)
async def test_a_silent_client_is_sent_away(changes: dict[str, float], ending: Ending):
    async with serving(limits=limits(**changes)) as server:
        client = await server.connect()
        assert (await client.reply()).startswith("421 4.4.2 ")
        assert await client.is_closed()
        await server.until(lambda: endings(server) == [ending])


@pytest.mark.parametrize(
    ("changes", "ending"), [({"idle_seconds": 0.2}, Ending.IDLE), ({"data_seconds": 0.2}, Ending.DATA_TOO_SLOW)]
)
async def test_a_message_that_stalls_is_given_up(changes: dict[str, float], ending: Ending):
    async with serving(limits=limits(**changes)) as server:
        client = await server.connect()
        await client.begin_message()
        client.send(b"x\r\n")
        assert (await client.reply()).startswith("421 4.4.2 ")
        assert await client.is_closed()
        await server.until(lambda: endings(server) == [ending])
        assert server.door.submissions == []


async def test_a_drip_within_a_command_line_is_idle():
    async with serving(limits=limits(idle_seconds=0.3)) as server:
        client = await server.connect()
        goodbye = asyncio.create_task(client.reply())
        while not goodbye.done():
            client.send(b"N")
            await asyncio.sleep(0.05)
        assert (await goodbye).startswith("421 4.4.2 ")


async def test_a_client_that_does_not_read_is_dropped():
    changes = {"idle_seconds": 0.3, "session_seconds": 0.3, "linger_seconds": 0.1, "max_commands": 10_000_000}
    async with serving(limits=limits(**changes)) as server:
        client = await server.connect()
        client.reader._transport.pause_reading()  # type: ignore[attr-defined]
        client.send(b"HELP\r\n" * 300_000)
        await server.until(lambda: server.listener.connections == 0)


async def test_waiting_for_the_door_is_not_idle():
    async with serving(limits=limits(idle_seconds=0.1, data_seconds=0.1, session_seconds=0.5)) as server:
        server.door.opened.clear()
        client = await server.connect()
        await client.begin_message()
        client.send(b"x\r\n.\r\n")
        await asyncio.sleep(0.7)
        server.door.opened.set()
        assert (await client.reply()).startswith("250 2.0.0 queued")


# Shutting down.


async def drained(server: Server, timeout_seconds: float = 20) -> asyncio.Task[bool]:
    draining = asyncio.create_task(server.listener.drain(timeout_seconds))
    await asyncio.sleep(0)
    return draining


async def test_a_drain_sends_idle_clients_away():
    async with serving() as server:
        client = await server.connect()
        draining = await drained(server)
        assert await client.reply() == "421 4.3.2 Service shutting down"
        assert await client.is_closed()
        assert await draining
        with pytest.raises(ConnectionRefusedError):
            await server.connect()
        assert endings(server) == [Ending.DRAINED]


async def finish(client: RawClient) -> list[str]:
    client.send(b"x\r\n.\r\n")
    return [(await client.reply())[:9] for _ in range(2)]


async def test_a_drain_lets_a_message_finish():
    async with serving() as server:
        client = await server.connect()
        await client.begin_message()
        draining = await drained(server)
        assert await finish(client) == ["250 2.0.0", "421 4.3.2"]
        assert await draining


async def test_a_drain_waits_for_what_the_door_has_begun():
    async with serving() as server:
        server.door.opened.clear()
        client = await server.connect()
        await client.begin_message()
        client.send(b"x\r\n.\r\n")
        await asyncio.wait_for(server.door.entered.wait(), 20)
        client.writer.transport.abort()
        draining = await drained(server)
        await asyncio.sleep(0.05)
        assert not draining.done() and server.listener.accepting == 1
        server.door.opened.set()
        assert await draining
        assert len(server.door.submissions) == 1


async def test_a_drain_has_an_end():
    async with serving() as server:
        client = await server.connect()
        await client.begin_message()
        draining = await drained(server, 0.1)
        assert await client.reply() == "421 4.3.2 Service shutting down"
        assert await client.is_closed()
        assert not await draining
        assert server.door.submissions == []


async def test_messages_on_their_way_in_share_a_bounded_memory():
    large = "x" * 60_000 + "\r\n"
    async with serving(limits=limits(max_held_octets=100_000)) as server:
        first, second = await server.connect(), await server.connect()
        await first.begin_message()
        first.send(large.encode())
        # The first is read in full before the second begins.
        await asyncio.sleep(0.2)
        await second.begin_message()
        assert await second.ask(large + ".") == "452 4.3.1 Too much mail is coming in just now, try again later"
        assert await first.ask(".") == "250 2.0.0 queued as 1"
        for number in (2, 3):
            await second.begin_message()
            assert await second.ask(large + ".") == f"250 2.0.0 queued as {number}"


async def test_what_a_sender_asks_to_be_told_reaches_the_door():
    async with serving() as server:
        client = await server.connect()
        await client.ask("EHLO app")
        assert await client.codes(
            MAIL + " RET=hdrs ENVID=Qq+2B1",
            "RCPT TO:<b@example.net> NOTIFY=success,DELAY ORCPT=rfc822;Bob@Example.NET",
            "RCPT TO:<c@example.net>",
            "RCPT TO:<b@example.net> NOTIFY=NEVER",
            "DATA",
        ) == [250, 250, 250, 250, 354]
        assert await client.codes("x\r\n.") == [250]
        envelope = server.door.submissions[0].envelope
        assert (envelope.dsn_ret, envelope.envelope_id) == ("HDRS", "Qq+2B1")
        assert [str(path) for path in envelope.forward_paths] == ["b@example.net", "c@example.net"]
        assert [(each.notify, each.orcpt) for each in envelope.notices] == [
            ("SUCCESS,DELAY", "rfc822;Bob@Example.NET"),
            (None, None),
        ]


async def test_a_recipient_that_the_door_refuses_is_not_taken():
    refusal = Reply(550, "5.7.1", "<b@example.net> is suppressed")
    async with serving() as server:
        server.door.suppressed[Address.parse("b@example.net")] = refusal
        client = await server.connect()
        await client.ask("EHLO app")
        assert await client.codes(MAIL) == [250]
        assert await client.ask("RCPT TO:<b@example.net>") == str(refusal)
        assert await client.codes("DATA", "RCPT TO:<c@example.net>", "DATA") == [554, 250, 354]
        assert await client.codes("x\r\n.") == [250]
        assert [str(path) for path in server.door.submissions[0].envelope.forward_paths] == ["c@example.net"]
        assert [event.reason for event in server.seen(Refused)] == [Reason.SUPPRESSED, Reason.BAD_SEQUENCE]

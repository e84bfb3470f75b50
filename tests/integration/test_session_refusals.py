"""Every refusal counts, whatever it is for; a session with many of them ends and is summed up in one line."""

import asyncio
from base64 import b64encode
from dataclasses import replace

import pytest

from relayd.mail.reply import Reply
from relayd.maillog.events import level_of
from relayd.rules.session_events import Ending, Reason, RefusalsSummed, Refused, SessionClosed
from relayd.submission.limits import SessionLimits
from relayd.submission.refusal_pace import FREE_REFUSALS
from tests.peers.raw_smtp import RawClient, serving

LIMITS = SessionLimits(auth_failure_delay_seconds=0, linger_seconds=1, max_refusals=10, max_recipients=5)
MAIL = "MAIL FROM:<a@example.com>"
RCPT = "RCPT TO:<b@example.net>"


async def read_to_end(client: RawClient) -> list[str]:
    replies = []
    while reply := await client.reply():
        replies.append(reply)
    return replies


@pytest.mark.parametrize(
    "line",
    [
        RCPT,
        "DATA",
        MAIL,
        "AUTH PLAIN AGFwcABzZXNhbWU=",
        "STARTTLS",
        "EXPN list",
        "NONSENSE",
        "RSET now",
        "MAIL FROM:<a",
        "MAIL",
        "",
        "RCPT TO:<not an address>",
    ],
)
async def test_a_stranger_who_repeats_what_is_refused_is_sent_away(line: str):
    async with serving(limits=LIMITS, trusted=False) as server:
        client = await server.connect()
        client.send(b"EHLO x\r\n" + f"{line}\r\n".encode() * 2_000)
        replies = await read_to_end(client)
        assert replies[-1].startswith("421 4.7.0 ")
        assert len(replies) <= 1 + 10 + 1
        await server.until(lambda: server.seen(SessionClosed))
        assert server.seen(SessionClosed)[0].reason in {Ending.TOO_MANY_REFUSALS, Ending.TOO_MANY_ERRORS}


@pytest.mark.parametrize("recipient", ["<nobody>", "<a@b..c>", "<>", "a b", "<x@192.0.2.1>"])
async def test_an_app_with_invalid_recipients_is_sent_away_too(recipient: str):
    async with serving(limits=LIMITS) as server:
        client = await server.connect()
        client.send(f"EHLO x\r\n{MAIL}\r\n".encode() + f"RCPT TO:{recipient}\r\n".encode() * 2_000)
        replies = await read_to_end(client)
        assert replies[-1].startswith("421 4.7.0 ") and len(replies) <= 2 + 15 + 1


async def test_repeated_recipients_count_towards_the_cap():
    async with serving(limits=LIMITS) as server:
        client = await server.connect()
        await client.codes("EHLO x", MAIL)
        assert await client.codes(*[RCPT] * 7) == [250] * 5 + [452] * 2
        assert await client.codes("DATA", "x\r\n.") == [354, 250]
        assert len(server.door.submissions[0].envelope.forward_paths) == 1


async def test_an_app_that_pipelines_far_more_recipients_than_the_cap_still_sends():
    async with serving(limits=LIMITS) as server:
        client = await server.connect()
        names = "".join(f"RCPT TO:<b{each}@example.net>\r\n" for each in range(500))
        client.send(f"EHLO x\r\n{MAIL}\r\n{names}DATA\r\n".encode())
        replies = await client.replies(503)
        assert [reply[:3] for reply in replies[2:]] == ["250"] * 5 + ["452"] * 495 + ["354"]
        assert await client.ask("x\r\n.") == "250 2.0.0 queued as 1"


async def test_recipients_without_end_end_the_session():
    async with serving(limits=LIMITS) as server:
        client = await server.connect()
        names = "".join(f"RCPT TO:<b{each}@example.net>\r\n" for each in range(3_000))
        client.send(f"EHLO x\r\n{MAIL}\r\n{names}".encode())
        replies = await read_to_end(client)
        assert replies[-1].startswith("421 ") and sum(each.startswith("452") for each in replies) == 1_015


async def test_an_accepted_message_starts_the_count_anew():
    async with serving(limits=LIMITS) as server:
        client = await server.connect()
        await client.ask("EHLO x")
        for _ in range(5):
            assert await client.codes("DATA", "DATA", "DATA", "DATA") == [503] * 4
            assert await client.codes(MAIL, RCPT, "DATA", "x\r\n.") == [250, 250, 354, 250]


async def test_messages_that_the_door_refuses_count():
    async with serving(limits=LIMITS) as server:
        server.door.final = Reply(550, "5.7.1", "No")
        client = await server.connect()
        client.send(b"EHLO x\r\n" + f"{MAIL}\r\n{RCPT}\r\nDATA\r\nx\r\n.\r\n".encode() * 50)
        replies = await read_to_end(client)
        assert replies[-1].startswith("421 4.7.0 ") and sum(each.startswith("550") for each in replies) == 15


async def test_a_session_logs_a_few_refusals_and_one_sum():
    async with serving(limits=LIMITS, trusted=False) as server:
        client = await server.connect()
        client.send(b"EHLO x\r\n" + b"RCPT TO:<b@example.net>\r\n" * 100)
        await read_to_end(client)
        await server.until(lambda: server.seen(RefusalsSummed))
        refusals = server.seen(Refused)
        assert len(refusals) == 10, "metrics count each"
        assert [level_of(each) for each in refusals] == [30] * 5 + [10] * 5
        assert server.seen(RefusalsSummed) == [
            RefusalsSummed("127.0.0.1", None, None, refusals=10, unlogged=5, most_frequent=Reason.BAD_SEQUENCE)
        ]


def plain(octets: int) -> str:
    """A response of exactly so many octets."""
    response = b64encode(b"\0app\0" + b"s" * (octets // 4 * 3 - 5)).decode()
    assert len(response) == octets
    return response


async def test_auth_lines_may_have_12288_octets():
    async with serving(limits=LIMITS, trusted=False, allow_plaintext_auth=True) as server:
        client = await server.connect()
        await client.ask("EHLO x")
        # Understood, and wrong: a line that is too long gets a 500.
        assert (await client.ask(f"AUTH PLAIN {plain(12_276)}")).startswith("535 ")
        assert await client.ask("AUTH PLAIN") == "334 "
        assert (await client.ask(plain(12_288))).startswith("535 ")
        assert await client.ask("AUTH PLAIN AGFwcABzZXNhbWU=") == "235 2.7.0 Authentication successful"


@pytest.mark.parametrize("octets", [12_289, 13_000, 100_000])
async def test_a_longer_auth_line_is_refused_and_the_session_goes_on(octets: int):
    async with serving(limits=LIMITS, trusted=False, allow_plaintext_auth=True) as server:
        client = await server.connect()
        await client.ask("EHLO x")
        assert (await client.ask("AUTH PLAIN " + "A" * octets)).startswith("500 5.5.2 ")
        assert await client.ask("AUTH PLAIN") == "334 "
        assert await client.ask("A" * octets) == "500 5.5.6 Authentication exchange line is too long"
        assert await client.ask("AUTH LOGIN") == "334 VXNlcm5hbWU6"
        await client.ask("YXBw")
        assert await client.ask("A" * octets) == "500 5.5.6 Authentication exchange line is too long"
        assert await client.codes("NOOP", "AUTH PLAIN AGFwcABzZXNhbWU=") == [250, 235]


async def test_other_commands_keep_their_length():
    async with serving(limits=LIMITS) as server:
        client = await server.connect()
        assert (await client.ask("NOOP " + "x" * 4_092)).startswith("500 5.5.2 ")
        assert await client.ask("NOOP " + "x" * 4_091) == "250 2.0.0 OK"
        await asyncio.sleep(0)


async def test_failed_logins_of_other_connections_count():
    async with serving(limits=LIMITS, trusted=False, allow_plaintext_auth=True) as server:
        known = await server.connect()
        assert await known.codes("EHLO x", "AUTH PLAIN AGFwcABzZXNhbWU=", "QUIT") == [250, 235, 221]
        guard = server.listener._service.login_guard
        for number in range(20):
            guard.fail("127.0.0.1", f"guess{number}", first_delay_seconds=0)
        client = await server.connect()
        await client.ask("EHLO x")
        other = b64encode(b"\0other\0sesame").decode()
        assert (await client.ask(f"AUTH PLAIN {other}")).startswith("421 4.7.0 Too many failed logins")
        assert await client.is_closed()
        assert server.seen(Refused)[-1].reason is Reason.LOGINS_BLOCKED
        client = await server.connect()
        assert await client.codes("EHLO x", "AUTH PLAIN AGFwcABzZXNhbWU=") == [250, 235]


async def test_refusals_of_other_connections_slow_a_stranger_down_and_no_login():
    async with serving(
        limits=replace(LIMITS, refusal_delay_seconds=1.0), trusted=False, allow_plaintext_auth=True
    ) as server:
        app = await server.connect()
        assert await app.codes("EHLO x", "AUTH PLAIN AGFwcABzZXNhbWU=") == [250, 235]
        for _ in range(FREE_REFUSALS // 10):
            client = await server.connect()
            client.send(b"EHLO x\r\n" + b"DATA\r\n" * 10)
            assert (await read_to_end(client))[-1].startswith("421 ")
        stranger = await server.connect()
        await stranger.ask("EHLO x")
        slow = asyncio.create_task(stranger.ask("DATA"))
        await server.until(lambda: len(server.seen(Refused)) == FREE_REFUSALS + 1)
        assert (await app.ask("DATA")).startswith("503 ")
        assert not slow.done()
        assert (await slow).startswith("503 ")

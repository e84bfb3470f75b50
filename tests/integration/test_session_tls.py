"""STARTTLS and implicit TLS."""

import asyncio
import ssl
from base64 import b64encode
from collections.abc import Iterator

import pytest
import trustme

from relayd.rules.session_events import Cap, Ending, SessionClosed, SessionRefused, TlsFailed
from relayd.submission.limits import SessionLimits
from relayd.submission.listener import Listener, ListeningSocket, Mode
from tests.peers.raw_smtp import APP, RecordingDoor, TableVerifier, listening_socket, serving

AUTH = "AUTH PLAIN " + b64encode(b"\0app\0sesame").decode()
MESSAGE = ("MAIL FROM:<a@example.com>", "RCPT TO:<b@example.net>", "DATA", "x\r\n.")
IMPATIENT = SessionLimits(tls_handshake_seconds=0.2, linger_seconds=1)


def server_side(authority: trustme.CA) -> ssl.SSLContext:
    context = ssl.SSLContext(ssl.PROTOCOL_TLS_SERVER)
    authority.issue_cert("localhost").configure_cert(context)
    return context


@pytest.fixture(scope="module")
def authority() -> trustme.CA:
    return trustme.CA()


@pytest.fixture
def server_context(authority: trustme.CA) -> ssl.SSLContext:
    return server_side(authority)


@pytest.fixture
def trusting(authority: trustme.CA) -> Iterator[ssl.SSLContext]:
    context = ssl.create_default_context()
    authority.configure_trust(context)
    return context


async def test_starttls_then_auth_then_a_message(server_context: ssl.SSLContext, trusting: ssl.SSLContext):
    async with serving(tls_context=server_context, trusted=False) as server:
        client = await server.connect()
        offers = await client.ask("EHLO x")
        assert "STARTTLS" in offers and "AUTH" not in offers
        assert await client.ask("MAIL FROM:<a@example.com>") == "530 5.7.0 Issue STARTTLS first, then authenticate"
        assert (await client.ask(AUTH)).startswith("538 5.7.11 ")
        assert await client.ask("STARTTLS") == "220 2.0.0 Ready to start TLS"
        await client.start_tls(trusting)
        assert (await client.ask(AUTH)).startswith("503 5.5.1 "), "EHLO is forgotten"
        offers = await client.ask("EHLO x")
        assert "STARTTLS" not in offers and "AUTH PLAIN LOGIN" in offers
        assert await client.codes(AUTH, *MESSAGE) == [235, 250, 250, 354, 250]
        (submission,) = server.door.submissions
        assert submission.identity == APP and submission.protocol == "ESMTPSA"
        assert submission.tls == "TLSv1.3 TLS_AES_256_GCM_SHA384"
        assert (await client.ask("STARTTLS")).startswith("503 5.5.1 ")
        assert await client.ask("QUIT") == "221 2.0.0 Bye"


async def test_what_was_said_in_the_clear_does_not_survive(server_context: ssl.SSLContext, trusting: ssl.SSLContext):
    async with serving(tls_context=server_context) as server:
        client = await server.connect()
        await client.ask("EHLO x")
        await client.ask("MAIL FROM:<injected@example.com>")
        client.send(b"STARTTLS\r\nEHLO injected\r\nMAIL FROM:<injected@example.com>\r\nRCPT TO:<x@example.net>\r\n")
        assert (await client.reply()).startswith("220 ")
        await client.start_tls(trusting)
        assert (await client.ask("RCPT TO:<b@example.net>")).startswith("503 5.5.1 ")
        assert (await client.ask("MAIL FROM:<a@example.com>")).startswith("503 5.5.1 ")
        assert (await client.ask("EHLO x")).startswith("250-mail.test\n")


@pytest.mark.parametrize("mode", [Mode.STARTTLS, Mode.IMPLICIT])
async def test_a_broken_handshake_closes_quietly(server_context: ssl.SSLContext, mode: Mode, caplog):
    async with serving(tls_context=server_context, mode=mode) as server:
        client = await server.connect(greeted=mode is Mode.STARTTLS)
        if mode is Mode.STARTTLS:
            await client.ask("STARTTLS")
        client.send(b"this is not a handshake\r\n" * 4)
        assert await client.reader.read(3) in {b"", b"\x15\x03\x01", b"\x15\x03\x03"}
        await server.until(lambda: server.seen(SessionClosed))
        assert server.seen(SessionClosed)[0].reason is Ending.TLS_FAILED
        assert len(server.seen(TlsFailed)) == 1
        assert caplog.records == []


@pytest.mark.parametrize("mode", [Mode.STARTTLS, Mode.IMPLICIT])
@pytest.mark.parametrize("leaves", [True, False])
async def test_a_handshake_that_never_comes_is_given_up(server_context: ssl.SSLContext, mode: Mode, leaves: bool):
    async with serving(tls_context=server_context, mode=mode, limits=IMPATIENT) as server:
        client = await server.connect(greeted=mode is Mode.STARTTLS)
        if mode is Mode.STARTTLS:
            await client.ask("STARTTLS")
        if leaves:
            await server.until(lambda: server.listener.connections == 1)
            await client.close()
        await server.until(lambda: server.seen(SessionClosed))
        assert server.listener.connections == 0


async def test_implicit_tls_greets_inside(server_context: ssl.SSLContext, trusting: ssl.SSLContext):
    async with serving(tls_context=server_context, mode=Mode.IMPLICIT, trusted=False) as server:
        client = await server.connect(trusting)
        offers = await client.ask("EHLO x")
        assert "STARTTLS" not in offers and "AUTH PLAIN LOGIN" in offers
        assert await client.codes(AUTH, *MESSAGE) == [235, 250, 250, 354, 250]
        assert server.door.submissions[0].protocol == "ESMTPSA"
        assert (await client.ask("STARTTLS")).startswith("503 5.5.1 ")


async def test_a_large_message_over_tls_is_whole(server_context: ssl.SSLContext, trusting: ssl.SSLContext):
    content = b"".join(b"%d %s\r\n" % (number, b"x" * 70) for number in range(40_000))
    async with serving(tls_context=server_context, mode=Mode.IMPLICIT) as server:
        client = await server.connect(trusting)
        await client.begin_message()
        client.send(content + b".\r\n")
        assert (await client.reply()).startswith("250 ")
        assert server.door.submissions[0].content == content


async def test_a_message_over_tls_is_accepted_though_the_client_leaves(
    server_context: ssl.SSLContext, trusting: ssl.SSLContext
):
    async with serving(tls_context=server_context, mode=Mode.IMPLICIT) as server:
        server.door.opened.clear()
        client = await server.connect(trusting)
        await client.begin_message()
        client.send(b"x\r\n.\r\n")
        await asyncio.wait_for(server.door.entered.wait(), 20)
        client.writer.transport.abort()
        server.door.opened.set()
        await asyncio.wait_for(server.door.settled.wait(), 20)


@pytest.mark.parametrize("mode", [Mode.STARTTLS, Mode.IMPLICIT])
async def test_a_new_certificate_serves_the_next_connection(
    server_context: ssl.SSLContext, trusting: ssl.SSLContext, mode: Mode
):
    other = trustme.CA()
    async with serving(tls_context=server_context, mode=mode) as server:
        server.listener.set_tls_context(server_side(other))
        if mode is Mode.IMPLICIT:
            with pytest.raises(ssl.SSLCertVerificationError):
                await server.connect(trusting)
        else:
            client = await server.connect()
            await client.ask("STARTTLS")
            with pytest.raises(ssl.SSLCertVerificationError):
                await client.start_tls(trusting)


async def test_a_drain_says_goodbye_over_tls(server_context: ssl.SSLContext, trusting: ssl.SSLContext):
    async with serving(tls_context=server_context, mode=Mode.IMPLICIT) as server:
        client = await server.connect(trusting)
        draining = asyncio.create_task(server.listener.drain(20))
        assert await client.reply() == "421 4.3.2 Service shutting down"
        await client.close()
        assert await draining


async def test_implicit_tls_needs_a_certificate():
    with listening_socket() as listening, pytest.raises(ValueError, match="certificate"):
        Listener(
            sockets=[ListeningSocket(listening, Mode.IMPLICIT)],
            door=RecordingDoor(),
            verifier=TableVerifier(),
            emit=lambda event: None,
            limits=SessionLimits(),
            tls_context=None,
            hostname="mail.test",
        )


async def test_a_handshake_under_way_counts_as_a_connection(server_context: ssl.SSLContext):
    limits = SessionLimits(max_connections=1)
    async with serving(tls_context=server_context, mode=Mode.IMPLICIT, limits=limits) as server:
        await server.connect(greeted=False)
        await server.until(lambda: server.listener.connections == 1)
        second = await server.connect(greeted=False)
        assert await second.is_closed()
        assert server.seen(SessionRefused) == [SessionRefused("127.0.0.1", Cap.CONNECTIONS)]


async def test_a_drain_does_not_wait_for_a_handshake(server_context: ssl.SSLContext):
    async with serving(tls_context=server_context, mode=Mode.IMPLICIT) as server:
        client = await server.connect(greeted=False)
        await server.until(lambda: server.listener.connections == 1)
        assert await server.listener.drain(20)
        assert await client.is_closed()
        assert [event.reason for event in server.seen(SessionClosed)] == [Ending.DRAINED]


async def test_a_login_that_was_taken_away_sends_nothing_more(server_context: ssl.SSLContext, trusting: ssl.SSLContext):
    async with serving(tls_context=server_context, trusted=False) as server:
        client = await server.connect()
        assert await client.codes("EHLO x", "STARTTLS") == [250, 220]
        await client.start_tls(trusting)
        assert await client.codes("EHLO x", AUTH, *MESSAGE) == [250, 235, 250, 250, 354, 250]
        server.verifier.is_withdrawn = True
        assert await client.ask(MESSAGE[0]) == "530 5.7.0 Authentication required"
        server.verifier.is_withdrawn = False
        assert await client.codes(AUTH, *MESSAGE) == [235, 250, 250, 354, 250]

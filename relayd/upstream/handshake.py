"""Everything before the first MAIL: greeting, EHLO, STARTTLS, AUTH."""

import asyncio
import ssl
from dataclasses import replace

from aiosmtplib.esmtp import parse_esmtp_extensions

from relayd.rules.outcome import Outcome, Stage
from relayd.upstream import client_certificate
from relayd.upstream.certificate import Certificate, is_mismatch
from relayd.upstream.connection import Connection, is_socket_path
from relayd.upstream.login import expect, log_in, needs_login, secrets
from relayd.upstream.settings import SmarthostSettings
from relayd.upstream.verdict import Unfit


async def open_connection(settings: SmarthostSettings, tls: ssl.SSLContext | None) -> Connection | Outcome:
    """A connection ready for MAIL, or why there is none. `tls` is needed unless the settings say "none"."""
    opened = await _open(settings, tls)
    if settings.tls == "opportunistic" and not isinstance(opened, Connection) and opened.cause.stage is Stage.STARTTLS:
        # RFC 7435 3: what cannot be had is done without. A login is not: it stays away from a line that can be read.
        return await _open(replace(settings, tls="none"), None)
    return opened


def make_tls_context(settings: SmarthostSettings) -> ssl.SSLContext:
    """Reads certificate files: call it in a thread. Raises Unfit if they cannot be read or used."""
    try:
        # TLS 1.2 or newer, and the ciphers that the system's OpenSSL thinks fit.
        context = ssl.create_default_context(ssl.Purpose.SERVER_AUTH, cafile=settings.ca_file)
    except OSError as error:
        raise Unfit(f"ca_file {settings.ca_file} cannot be used: {error.strerror or error}") from error
    if not settings.verify_certificate or settings.tls == "opportunistic":
        context.check_hostname = False
        context.verify_mode = ssl.CERT_NONE
    if settings.client_certificate is not None and settings.client_key is not None:
        client_certificate.load(context, settings.client_certificate, settings.client_key)
    return context


async def greet(connection: Connection, settings: SmarthostSettings) -> None:
    """EHLO. The connection knows the extensions afterwards."""
    response = expect(250, await connection.ask(Stage.EHLO, b"EHLO " + settings.ehlo_name.encode()))
    connection.extensions, _ = parse_esmtp_extensions(response.message)


async def secure(connection: Connection, settings: SmarthostSettings, tls: ssl.SSLContext | None) -> None:
    """STARTTLS and a second EHLO; nothing where the policy is opportunistic and it is not offered."""
    assert tls is not None
    if "starttls" not in connection.extensions:
        if settings.tls == "opportunistic":
            return
        connection.stage = Stage.STARTTLS
        raise Unfit("the upstream does not offer STARTTLS, which its settings require")
    await connection.start_tls(tls)
    # RFC 3207 4.2: what was learned before TLS is forgotten.
    await greet(connection, settings)


async def presented_certificate(settings: SmarthostSettings) -> Certificate | None:
    """What the server shows to who does not verify, None if that cannot be found out. A connection of its own."""
    asking = replace(settings, verify_certificate=False, client_certificate=None, client_key=None)
    connection = Connection(asking)
    try:
        tls = await asyncio.to_thread(make_tls_context, asking)
        await (connection.connect(tls) if asking.tls == "implicit" else _reach(connection, asking, tls))
        return connection.peer_certificate
    except Exception:
        return None  # It explains a failure; it is none.
    finally:
        connection.abort()


async def explained(error: Exception, settings: SmarthostSettings) -> Exception:
    """The same error, or for a certificate of another name one that says which names it has."""
    if is_mismatch(error) and (certificate := await presented_certificate(settings)) is not None:
        return Unfit(f"TLS: certificate not accepted: it is for {certificate.named}, not for {settings.host}")
    return error


async def _open(settings: SmarthostSettings, tls: ssl.SSLContext | None) -> Connection | Outcome:
    connection = Connection(settings, secrets(settings))
    try:
        await _reach(connection, settings, tls)
        if needs_login(settings):
            await log_in(connection, settings)
    except Exception as error:
        connection.abort()
        return connection.judge(await explained(error, settings))
    except BaseException:
        connection.abort()
        raise
    return connection


async def _reach(connection: Connection, settings: SmarthostSettings, tls: ssl.SSLContext | None) -> None:
    if is_socket_path(settings.host) and settings.tls != "none":
        raise Unfit("TLS is not spoken over a Unix socket: set tls to none")
    await connection.connect(tls if settings.tls == "implicit" else None)
    expect(220, await connection.greeting())
    await greet(connection, settings)
    if settings.tls in ("starttls", "opportunistic"):
        await secure(connection, settings, tls)

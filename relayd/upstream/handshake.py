"""Everything before the first MAIL: greeting, EHLO, STARTTLS, AUTH."""

import base64
import ssl

from aiosmtplib import SMTPResponse, SMTPResponseException
from aiosmtplib.esmtp import parse_esmtp_extensions

from relayd.rules.outcome import Outcome, Stage
from relayd.upstream import xoauth2
from relayd.upstream.connection import Connection
from relayd.upstream.settings import AuthMechanism, SmarthostSettings
from relayd.upstream.verdict import Unfit


async def open_connection(settings: SmarthostSettings, tls: ssl.SSLContext | None) -> Connection | Outcome:
    """A connection ready for MAIL, or why there is none. `tls` is needed unless the settings say "none"."""
    connection = Connection(settings, _secrets(settings))
    try:
        _expect(220, await connection.connect(tls if settings.tls == "implicit" else None))
        await _greet(connection, settings)
        if settings.tls == "starttls":
            await _secure(connection, settings, tls)
        if settings.auth_mechanism == "XOAUTH2":
            await xoauth2.log_in(connection, settings)
        elif settings.username is not None:
            await _log_in(connection, settings)
    except Exception as error:
        connection.abort()
        return connection.judge(error)
    except BaseException:
        connection.abort()
        raise
    return connection


def make_tls_context(settings: SmarthostSettings) -> ssl.SSLContext:
    """Reads certificate files: call it in a thread. Raises Unfit if they cannot be read."""
    try:
        context = ssl.create_default_context(ssl.Purpose.SERVER_AUTH, cafile=settings.ca_file)
    except OSError as error:
        raise Unfit(f"ca_file {settings.ca_file} cannot be used: {error.strerror or error}") from error
    if not settings.verify_certificate:
        context.check_hostname = False
        context.verify_mode = ssl.CERT_NONE
    return context


async def _greet(connection: Connection, settings: SmarthostSettings) -> None:
    response = await connection.ask(Stage.EHLO, b"EHLO " + settings.ehlo_name.encode())
    _expect(250, response)
    connection.extensions, _ = parse_esmtp_extensions(response.message)


async def _secure(connection: Connection, settings: SmarthostSettings, tls: ssl.SSLContext | None) -> None:
    assert tls is not None
    if "starttls" not in connection.extensions:
        connection.stage = Stage.STARTTLS
        raise Unfit("the upstream does not offer STARTTLS, which its settings require")
    await connection.start_tls(tls)
    # RFC 3207 4.2: what was learned before TLS is forgotten.
    await _greet(connection, settings)


async def _log_in(connection: Connection, settings: SmarthostSettings) -> None:
    connection.stage = Stage.AUTH
    if settings.tls == "none" and not settings.allow_plaintext_auth:
        raise Unfit("a password is not sent without TLS: set tls, or allow_plaintext_auth")
    mechanism = settings.auth_mechanism or _first_common(connection.extensions.get("auth"))
    user, password = _credentials(settings)
    if mechanism == "PLAIN":
        _expect(235, await connection.ask(Stage.AUTH, b"AUTH PLAIN " + _plain(user, password).encode()))
    else:
        _expect(334, await connection.ask(Stage.AUTH, b"AUTH LOGIN"))
        _expect(334, await connection.ask(Stage.AUTH, _base64(user).encode()))
        _expect(235, await connection.ask(Stage.AUTH, _base64(password).encode()))


def _first_common(offered: str | None) -> AuthMechanism:
    if offered is None:
        raise Unfit("the upstream does not offer AUTH, but its settings have a user name")
    mechanisms = offered.upper().split()
    if "PLAIN" in mechanisms:
        return "PLAIN"
    if "LOGIN" in mechanisms:
        return "LOGIN"
    raise Unfit(f"the upstream offers AUTH {offered}; relayd speaks PLAIN and LOGIN")


def _expect(code: int, response: SMTPResponse) -> None:
    if response.code != code:
        raise SMTPResponseException(response.code, response.message)


def _secrets(settings: SmarthostSettings) -> tuple[str, ...]:
    """Every form in which the password goes over the wire, the longest first."""
    user, password = _credentials(settings)
    if not password:
        return ()
    return (_plain(user, password), _base64(password), password)


def _credentials(settings: SmarthostSettings) -> tuple[str, str]:
    return settings.username or "", settings.password or ""


def _plain(user: str, password: str) -> str:
    return _base64(f"\0{user}\0{password}")


def _base64(text: str) -> str:
    return base64.b64encode(text.encode()).decode()

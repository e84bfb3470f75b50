"""AUTH: which mechanism, and how it goes (RFC 4954).

PLAIN, LOGIN and XOAUTH2 send what anybody who reads along could log in with: never over a line that can be read, nor
to whom opportunistic TLS has found, unless the operator permits it. The SCRAM mechanisms are not spoken: aiosmtplib has
none.
"""

from aiosmtplib import SMTPResponse, SMTPResponseException
from aiosmtplib.auth import auth_crammd5_verify, auth_login_encode, auth_plain_encode

from relayd.rules.outcome import Stage
from relayd.upstream import xoauth2
from relayd.upstream.connection import Connection
from relayd.upstream.settings import AuthMechanism, SmarthostSettings
from relayd.upstream.verdict import Unfit

# Of a command line with its end (RFC 5321 4.5.3.1.4); RFC 4954 4 grants an initial response no more.
MAX_COMMAND_OCTETS = 512

_READABLE: tuple[AuthMechanism, ...] = ("PLAIN", "LOGIN", "XOAUTH2")
# Where nobody reads along a password goes by PLAIN: CRAM-MD5 only makes the server keep it readable.
_PRIVATE: tuple[AuthMechanism, ...] = ("PLAIN", "LOGIN", "CRAM-MD5")
_IN_THE_CLEAR: tuple[AuthMechanism, ...] = ("CRAM-MD5", "PLAIN", "LOGIN")


def needs_login(settings: SmarthostSettings) -> bool:
    """Whether anything is to be proved."""
    return settings.username is not None or settings.auth_mechanism == "XOAUTH2"


async def log_in(connection: Connection, settings: SmarthostSettings) -> AuthMechanism:
    """Prove who we are; returns by which mechanism. Raises Unfit, SMTPResponseException for a refusal; GrantDead,
    TokenUnavailable and LoginRefused for a token."""
    connection.stage = Stage.AUTH
    mechanism = choose(connection, settings)
    user, password = _credentials(settings)
    match mechanism:
        case "PLAIN":
            await _respond(connection, b"PLAIN", auth_plain_encode(user, password))
        case "LOGIN":
            expect(334, await connection.ask(Stage.AUTH, b"AUTH LOGIN"))
            encoded_user, encoded_password = auth_login_encode(user, password)
            expect(334, await connection.ask(Stage.AUTH, encoded_user))
            expect(235, await connection.ask(Stage.AUTH, encoded_password))
        case "CRAM-MD5":
            challenge = expect(334, await connection.ask(Stage.AUTH, b"AUTH CRAM-MD5"))
            proof = auth_crammd5_verify(user, password, challenge.message)
            # Whoever has it can try passwords against it.
            connection.conceal(proof.decode())
            expect(235, await connection.ask(Stage.AUTH, proof))
        case "XOAUTH2":
            await xoauth2.log_in(connection, settings)
    return mechanism


def choose(connection: Connection, settings: SmarthostSettings) -> AuthMechanism:
    """The mechanism that the settings name, else the best that is offered. Raises Unfit if none will do."""
    if connection.ehlo_refusal is not None:
        raise Unfit(
            "the upstream does not offer AUTH, but its settings have a login: "
            f"it knows HELO alone (EHLO: {connection.ehlo_refusal})"
        )
    is_safe = connection.is_private or settings.allow_plaintext_auth
    named = settings.auth_mechanism
    if named is not None:
        if named in _READABLE and not is_safe:
            raise Unfit(_to_anybody(connection, named))
        return named
    offered = connection.extensions.get("auth")
    if offered is None:
        raise Unfit("the upstream does not offer AUTH, but its settings have a user name")
    mechanisms = offered.upper().split()
    common = [each for each in (_PRIVATE if connection.is_private else _IN_THE_CLEAR) if each in mechanisms]
    usable = [each for each in common if is_safe or each not in _READABLE]
    if usable:
        return usable[0]
    if common:
        raise Unfit(_to_anybody(connection, ", ".join(common)))
    raise Unfit(f"the upstream offers AUTH {offered}; relayd speaks PLAIN, LOGIN and CRAM-MD5")


def expect(code: int, response: SMTPResponse) -> SMTPResponse:
    """The response, if it has this code. Raises SMTPResponseException."""
    if response.code != code:
        raise SMTPResponseException(response.code, response.message)
    return response


def secrets(settings: SmarthostSettings) -> tuple[str, ...]:
    """Every form in which the password goes over the wire, the longest first."""
    user, password = _credentials(settings)
    if not password:
        return ()
    return (auth_plain_encode(user, password).decode(), auth_login_encode(user, password)[1].decode(), password)


async def _respond(connection: Connection, mechanism: bytes, response: bytes) -> None:
    command = b"AUTH " + mechanism + b" " + response
    if len(command) + 2 <= MAX_COMMAND_OCTETS:
        expect(235, await connection.ask(Stage.AUTH, command))
        return
    expect(334, await connection.ask(Stage.AUTH, b"AUTH " + mechanism))
    expect(235, await connection.ask(Stage.AUTH, response))


def _to_anybody(connection: Connection, mechanisms: str) -> str:
    secret = "an access token" if mechanisms == "XOAUTH2" else "a password"
    if connection.tls_object is not None:
        return (
            f"{secret} is not sent over opportunistic TLS, which verifies no certificate: set tls to starttls, or "
            f"allow_plaintext_auth; to whoever answers relayd speaks CRAM-MD5, here it would be {mechanisms}"
        )
    return (
        f"{secret} is not sent without TLS: set tls, or allow_plaintext_auth; in the clear relayd speaks CRAM-MD5, "
        f"here it would be {mechanisms}"
    )


def _credentials(settings: SmarthostSettings) -> tuple[str, str]:
    return settings.username or "", settings.password or ""

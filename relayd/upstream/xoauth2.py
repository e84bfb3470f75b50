"""AUTH XOAUTH2: log in with an access token. A token that is refused is exchanged for a fresh one, once."""

import base64

from aiosmtplib import SMTPResponse, SMTPResponseException

from relayd.mail.reply import enhanced_code
from relayd.rules.outcome import Stage
from relayd.upstream.connection import Connection
from relayd.upstream.settings import SmarthostSettings
from relayd.upstream.tokens import LoginRefused
from relayd.upstream.verdict import Unfit

_REFUSED = 535


async def log_in(connection: Connection, settings: SmarthostSettings) -> None:
    """As `settings.username`. Raises GrantDead, TokenUnavailable, LoginRefused; SMTPResponseException for a 4xx."""
    if settings.tokens is None:
        raise Unfit("XOAUTH2 needs a grant")
    if "XOAUTH2" not in connection.extensions.get("auth", "").upper().split():
        raise Unfit("the upstream does not offer AUTH XOAUTH2, which its settings require")
    token = await settings.tokens.token(settings.token_subject)
    if settings.username is None:
        raise Unfit("XOAUTH2 needs to know whose token it is: relayd upstream set NAME --oauth-account ADDRESS")
    response = await _try(connection, settings.username, token)
    if response.code == _REFUSED:
        await settings.tokens.refused(token, settings.token_subject)
        fresh = await settings.tokens.token(settings.token_subject)
        if fresh != token:
            response = await _try(connection, settings.username, fresh)
    if response.code == 235:
        return
    if response.code >= 500:
        raise _refused(response, settings)
    raise SMTPResponseException(response.code, response.message)


async def _try(connection: Connection, account: str, token: str) -> SMTPResponse:
    initial = base64.b64encode(f"user={account}\x01auth=Bearer {token}\x01\x01".encode())
    connection.conceal(initial.decode())
    connection.conceal(token)
    response = await connection.ask(Stage.AUTH, b"AUTH XOAUTH2 " + initial)
    if response.code == 334:
        # The reason in base64, as a challenge; an empty answer to it brings the reply itself.
        response = await connection.ask(Stage.AUTH, b"")
    return response


def _refused(response: SMTPResponse, settings: SmarthostSettings) -> LoginRefused:
    is_of_account = settings.token_subject is not None
    cure = (
        "may this account use SMTP, and is it the one that the service account speaks for?"
        if is_of_account
        else "is the grant another account's? relayd upstream login, as this one"
    )
    text = f"{settings.username} may not log in with its token: {response.message} ({cure})"
    return LoginRefused(text, is_of_account=is_of_account, code=response.code, enhanced=enhanced_code(response.message))

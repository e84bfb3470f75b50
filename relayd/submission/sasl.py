"""What SASL PLAIN and LOGIN say (RFC 4616, RFC 4954): base64 in, a login and its secret out. Pure."""

import binascii
from base64 import b64decode
from dataclasses import dataclass, field

from relayd.mail.reply import Reply

MECHANISMS = ("PLAIN", "LOGIN")

PROMPT = "334 "
USERNAME_PROMPT = "334 VXNlcm5hbWU6"
PASSWORD_PROMPT = "334 UGFzc3dvcmQ6"  # noqa: S105 - "Password:", as every client expects it

ABORTED = Reply(501, "5.7.0", "Authentication cancelled")
MALFORMED = Reply(501, "5.5.2", "Malformed authentication data")
TOO_LONG = Reply(500, "5.5.6", "Authentication exchange line is too long")
FAILED = Reply(535, "5.7.8", "Authentication credentials invalid")


@dataclass(frozen=True, slots=True)
class Credentials:
    """A claim to be checked."""

    login: str
    secret: str = field(repr=False)


def decode_plain(response: str) -> Credentials | Reply:
    """`authzid NUL authcid NUL secret`. Acting for somebody else (another authzid) is refused."""
    message = decode(response)
    if isinstance(message, Reply):
        return message
    parts = message.split("\0")
    if len(parts) != 3:
        return MALFORMED
    authorization, login, secret = parts
    if authorization not in {"", login}:
        return FAILED
    return claim(login, secret)


def claim(login: str, secret: str) -> Credentials | Reply:
    """Credentials that may be looked up: neither part empty, no NUL, which no database takes."""
    if not login or not secret or "\0" in login + secret:
        return MALFORMED
    return Credentials(login, secret)


def decode(response: str) -> str | Reply:
    """A response as text. `=` is an empty one, `*` calls the exchange off."""
    if response == "*":
        return ABORTED
    try:
        return "" if response == "=" else b64decode(response.encode(), validate=True).decode()
    except (binascii.Error, UnicodeDecodeError):
        return MALFORMED

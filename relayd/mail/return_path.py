"""Reverse-paths that say what they were used for: `b+TOKEN@bounce-domain`, made and recognised with a key.

The token is the id of an entry or a message and 48 bits that only the key's holder can make, in base 32, which no
system's lower-casing spoils.
"""

import base64
import binascii
import hmac
from collections.abc import Iterable
from uuid import UUID

from relayd.mail.address import Address

PREFIX = "b+"

_PROOF_OCTETS = 6
_TOKEN_CHARACTERS = 36


def made_for(subject: UUID, bounce_domain: str, key: bytes) -> Address:
    """The reverse-path for an entry or a message."""
    octets = subject.bytes + _proof(subject, key)
    token = base64.b32encode(octets).decode().rstrip("=").lower()
    return Address(PREFIX + token, bounce_domain)


def subject_of(local_part: str, keys: Iterable[bytes]) -> UUID | None:
    """What such an address was made for under one of the keys; None for every other."""
    low = local_part.lower()
    token = low.removeprefix(PREFIX)
    if token == low or len(token) != _TOKEN_CHARACTERS or not token.isascii():
        return None
    try:
        octets = base64.b32decode(token.upper() + "=" * (-len(token) % 8))
    except binascii.Error:
        return None
    subject = UUID(bytes=octets[:16])
    proofs = [hmac.compare_digest(octets[16:], _proof(subject, key)) for key in keys]
    return subject if any(proofs) else None


def _proof(subject: UUID, key: bytes) -> bytes:
    return hmac.digest(key, subject.bytes, "sha256")[:_PROOF_OCTETS]

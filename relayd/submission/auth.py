"""SCRAM-SHA-256 verifiers (RFC 5802, RFC 7677) of secrets that relayd makes itself.

The secrets are random, 160 bits each, so no slow hash has to make up for bad ones: a check takes about a
millisecond, and what is stored cannot be used to log in.
"""

import hashlib
import hmac
import secrets
from dataclasses import dataclass

SECRET_BITS = 160
# Crockford's base 32: nothing in it is taken for something else when read aloud or copied by hand.
_ALPHABET = "0123456789abcdefghjkmnpqrstvwxyz"


@dataclass(frozen=True, slots=True)
class ScramVerifier:
    """What is kept of a secret."""

    salt: bytes
    iterations: int
    stored_key: bytes
    server_key: bytes


def new_secret() -> str:
    """160 random bits as 32 letters and digits."""
    number = secrets.randbits(SECRET_BITS)
    return "".join(_ALPHABET[number >> shift & 31] for shift in range(0, SECRET_BITS, 5))


def make_verifier(secret: str, *, salt: bytes, iterations: int = 4096) -> ScramVerifier:
    """The verifier of a secret. The salt is 16 random bytes, new for each secret."""
    salted = hashlib.pbkdf2_hmac("sha256", secret.encode(), salt, iterations)
    client_key = hmac.digest(salted, b"Client Key", "sha256")
    server_key = hmac.digest(salted, b"Server Key", "sha256")
    return ScramVerifier(salt, iterations, hashlib.sha256(client_key).digest(), server_key)


def matches(verifier: ScramVerifier, secret: str) -> bool:
    """Whether this is the verifier's secret, in a time that does not depend on how wrong it is."""
    made = make_verifier(secret, salt=verifier.salt, iterations=verifier.iterations)
    return hmac.compare_digest(made.stored_key, verifier.stored_key)

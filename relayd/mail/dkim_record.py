"""What a domain publishes for a DKIM key (RFC 6376 3.6.1, RFC 8463 4). Text only; no key is handled here."""

import base64
from enum import StrEnum

# RFC 1035 3.3: a TXT value is made of character-strings of at most 255 octets.
_STRING_OCTETS = 255


class Algorithm(StrEnum):
    """A signing algorithm by the name that the `a=` tag gives it."""

    RSA_SHA256 = "rsa-sha256"
    ED25519_SHA256 = "ed25519-sha256"


_KEY_TYPES = {Algorithm.RSA_SHA256: "rsa", Algorithm.ED25519_SHA256: "ed25519"}


def record_name(selector: str, domain: str) -> str:
    """Where verifiers look for the key."""
    return f"{selector}._domainkey.{domain}"


def record_value(algorithm: Algorithm, public: bytes) -> str:
    """The TXT value, whole. `public` as `dkim_key.generate` returns it."""
    return f"v=DKIM1; k={_KEY_TYPES[algorithm]}; p={base64.b64encode(public).decode()}"


def algorithm_of(value: str) -> Algorithm:
    """The algorithm of the key in a value that `record_value` made."""
    return Algorithm.ED25519_SHA256 if "k=ed25519;" in value else Algorithm.RSA_SHA256


def record_strings(value: str) -> tuple[str, ...]:
    """An ASCII TXT value in the strings that DNS carries; readers join them without a space. At least one."""
    return tuple(value[i : i + _STRING_OCTETS] for i in range(0, len(value), _STRING_OCTETS)) or ("",)

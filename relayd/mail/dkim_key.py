"""DKIM keys: made, loaded and told apart. Private bytes are plain here; who stores them seals them first."""

from dataclasses import dataclass, field

from cryptography.exceptions import UnsupportedAlgorithm
from cryptography.hazmat.primitives.asymmetric.ed25519 import Ed25519PrivateKey
from cryptography.hazmat.primitives.asymmetric.rsa import RSAPrivateKey, generate_private_key
from cryptography.hazmat.primitives.serialization import (
    Encoding,
    NoEncryption,
    PrivateFormat,
    PublicFormat,
    load_pem_private_key,
)

from relayd.mail.dkim_record import Algorithm

PrivateKey = RSAPrivateKey | Ed25519PrivateKey

RSA_BITS = 2048
# RFC 8301 3.2: signers use at least 1024 bits, and verifiers refuse less.
MIN_RSA_BITS = 1024
# RFC 8301 3.2: verifiers need not take more than 4096 bits.
MAX_RSA_BITS = 4096
_SEED_OCTETS = 32


@dataclass(frozen=True, slots=True)
class SigningKey:
    """A key that signs for `domain` (ASCII: A-labels), published under `selector`. Raises ValueError if unfit."""

    domain: str
    selector: str
    algorithm: Algorithm
    private_key: PrivateKey = field(repr=False)

    def __post_init__(self) -> None:
        if not (self.domain.isascii() and self.selector.isascii()):
            raise ValueError(f"a key signs for a domain in ASCII; write {self.domain} in its xn-- form")
        if (self.algorithm is Algorithm.RSA_SHA256) != isinstance(self.private_key, RSAPrivateKey):
            raise ValueError(f"the key of {self.selector}._domainkey.{self.domain} is not for {self.algorithm}")


def generate(algorithm: Algorithm) -> tuple[bytes, bytes]:
    """A new key as (private, public): PEM (PKCS #8) for RSA, the raw 32-octet seed for Ed25519."""
    private_key: PrivateKey
    if algorithm is Algorithm.RSA_SHA256:
        private_key = generate_private_key(public_exponent=65537, key_size=RSA_BITS)
        private = private_key.private_bytes(Encoding.PEM, PrivateFormat.PKCS8, NoEncryption())
    else:
        private_key = Ed25519PrivateKey.generate()
        private = private_key.private_bytes_raw()
    return private, public_of(private_key)


def load_private(algorithm: Algorithm, private: bytes) -> PrivateKey:
    """A key as `generate` returned it, or an operator's unencrypted PEM. Raises ValueError without quoting it."""
    if algorithm is Algorithm.ED25519_SHA256 and len(private) == _SEED_OCTETS:
        return Ed25519PrivateKey.from_private_bytes(private)
    try:
        private_key = load_pem_private_key(private, password=None)
    except (ValueError, TypeError, UnsupportedAlgorithm):
        raise ValueError(f"not an unencrypted private key in PEM for {algorithm}") from None
    if algorithm is Algorithm.ED25519_SHA256 and isinstance(private_key, Ed25519PrivateKey):
        return private_key
    if algorithm is Algorithm.RSA_SHA256 and isinstance(private_key, RSAPrivateKey):
        if not MIN_RSA_BITS <= private_key.key_size <= MAX_RSA_BITS:
            raise ValueError(f"an RSA key of {private_key.key_size} bits; use {MIN_RSA_BITS} to {MAX_RSA_BITS}")
        return private_key
    raise ValueError(f"the private key is not for {algorithm}")


def public_of(private_key: PrivateKey) -> bytes:
    """The public half as `p=` holds it: SubjectPublicKeyInfo (DER) for RSA, the raw 32 octets for Ed25519."""
    if isinstance(private_key, Ed25519PrivateKey):
        return private_key.public_key().public_bytes_raw()
    return private_key.public_key().public_bytes(Encoding.DER, PublicFormat.SubjectPublicKeyInfo)

"""Whether the certificate and the key that relayd is to show to a server can be used. No text quotes them."""

import ssl
from datetime import UTC, datetime

from cryptography import x509
from cryptography.exceptions import UnsupportedAlgorithm
from cryptography.hazmat.primitives.asymmetric.types import PrivateKeyTypes, PublicKeyTypes
from cryptography.hazmat.primitives.serialization import Encoding, PublicFormat, load_pem_private_key

from relayd.errors import BadValue
from relayd.upstream import client_certificate
from relayd.upstream.verdict import Unfit

_CHAIN_HINT = "give --client-certificate-file the PEM of the certificate, then of its issuers"
_KEY_HINT = (
    "give --client-key-file the PEM of the private key: -----BEGIN PRIVATE KEY----- to -----END PRIVATE KEY-----"
)


def check(chain: str, key: bytes, *, now: datetime | None = None) -> None:
    """Raises BadValue, which says what is wrong with which of the two."""
    certificate, private_key = _certificate(chain), _private_key(key)
    if _public(private_key.public_key()) != _public(certificate.public_key()):
        raise BadValue(
            "client_key is not the key of the first certificate in client_certificate",
            hint="the certificate's own comes first, then those of its issuers",
        )
    if certificate.not_valid_after_utc <= (now or datetime.now(UTC)):
        raise BadValue(
            f"client_certificate has expired on {certificate.not_valid_after_utc:%Y-%m-%d}",
            hint="have a new one issued; the key may stay",
        )
    try:
        client_certificate.load(ssl.create_default_context(), chain, key)
    except Unfit as error:
        raise BadValue(str(error), hint="RSA keys have at least 2048 bits, and no signature is of SHA-1") from None


def _certificate(chain: str) -> x509.Certificate:
    try:
        return x509.load_pem_x509_certificates(chain.encode())[0]
    except ValueError:
        raise BadValue("client_certificate is not a certificate in PEM, or is cut off", hint=_CHAIN_HINT) from None


def _private_key(key: bytes) -> PrivateKeyTypes:
    try:
        return load_pem_private_key(key, None)
    except TypeError:
        raise BadValue(
            "client_key has a passphrase",
            hint="take it off; relayd seals the key itself: openssl pkey -in key.pem -out plain.pem",
        ) from None
    except (ValueError, UnsupportedAlgorithm):
        raise BadValue("client_key is not a private key in PEM, or is cut off", hint=_KEY_HINT) from None


def _public(key: PublicKeyTypes) -> bytes:
    return key.public_bytes(Encoding.DER, PublicFormat.SubjectPublicKeyInfo)

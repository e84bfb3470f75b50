"""What a server's certificate says, for whoever has to mend a connection. It decides nothing."""

import ssl
from dataclasses import dataclass
from datetime import datetime
from typing import Self

from cryptography import x509

# OpenSSL's X509_V_ERR_HOSTNAME_MISMATCH and X509_V_ERR_IP_ADDRESS_MISMATCH.
_MISMATCHES = (62, 64)
_SHOWN_NAMES = 5


@dataclass(frozen=True, slots=True)
class Certificate:
    """`names` are those that it is for: DNS names, then addresses (RFC 6125 6.4)."""

    subject: str
    names: tuple[str, ...]
    issuer: str
    expires_at: datetime

    @classmethod
    def parse(cls, der: bytes) -> Self:
        """Raises ValueError for what is no certificate that can be read."""
        try:
            certificate = x509.load_der_x509_certificate(der)
            return cls(
                subject=certificate.subject.rfc4514_string(),
                names=_names(certificate),
                issuer=certificate.issuer.rfc4514_string(),
                expires_at=certificate.not_valid_after_utc,
            )
        except x509.DuplicateExtension as error:
            raise ValueError("the certificate has an extension twice") from error

    @property
    def named(self) -> str:
        """Its names in a line, not too many."""
        shown = ", ".join(self.names[:_SHOWN_NAMES]) or "no name"
        more = len(self.names) - _SHOWN_NAMES
        return f"{shown} and {more} more" if more > 0 else shown


def is_mismatch(error: BaseException) -> bool:
    """Whether a certificate was refused because it is for another name."""
    return isinstance(error, ssl.SSLCertVerificationError) and getattr(error, "verify_code", None) in _MISMATCHES


def _names(certificate: x509.Certificate) -> tuple[str, ...]:
    try:
        found = certificate.extensions.get_extension_for_class(x509.SubjectAlternativeName).value
    except x509.ExtensionNotFound:
        return ()
    addresses = [str(address) for address in found.get_values_for_type(x509.IPAddress)]
    return (*found.get_values_for_type(x509.DNSName), *addresses)

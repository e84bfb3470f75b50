"""The TLS context of the listeners, from a certificate chain and its key."""

import ssl
from pathlib import Path

from relayd.errors import RelaydError


def server_context(certificate: Path, key: Path) -> ssl.SSLContext:
    """A server's context, TLS 1.2 or newer. Raises RelaydError naming the file that cannot be used."""
    context = ssl.create_default_context(ssl.Purpose.CLIENT_AUTH)
    context.minimum_version = ssl.TLSVersion.TLSv1_2
    for path in (certificate, key):
        try:
            with path.open("rb"):
                pass
        except OSError as error:
            raise RelaydError(f"submission.tls_certificate/tls_key: {path} cannot be read: {error.strerror}") from error
    try:
        context.load_cert_chain(certificate, key)
    except (ssl.SSLError, OSError) as error:
        raise RelaydError(f"{certificate} and {key} are not a certificate chain and its private key in PEM") from error
    return context

"""The certificate that relayd shows to an upstream. Its key comes from memory and is on no disk."""

import os
import ssl

from relayd.upstream.verdict import Unfit


def load(context: ssl.SSLContext, chain: str, key: bytes) -> None:
    """Show this chain (PEM, its own certificate first) where a server asks for one. Raises Unfit."""
    # OpenSSL reads files only: this one is in memory, has no name, and is gone when it is closed.
    descriptor = os.memfd_create("relayd-client-certificate", os.MFD_CLOEXEC)
    with os.fdopen(descriptor, "wb") as file:
        file.write(key.strip() + b"\n" + chain.encode())
        file.flush()
        try:
            context.load_cert_chain(f"/proc/self/fd/{descriptor}", password=_no_passphrase)
        except (ssl.SSLError, OSError, ValueError) as error:
            raise Unfit(f"the client certificate cannot be used: {_reason(error)}") from None


def _no_passphrase() -> str:
    # Without this OpenSSL would ask on the terminal, and wait.
    raise ValueError("its key has a passphrase")


def _reason(error: Exception) -> str:
    return str(getattr(error, "reason", None) or getattr(error, "strerror", None) or error)

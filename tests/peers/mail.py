"""Transmissions and settings for tests that speak to an upstream."""

import ssl
from dataclasses import replace
from datetime import datetime
from pathlib import Path
from typing import Any
from uuid import UUID

import trustme

from relayd.mail.address import Address
from relayd.mail.envelope import Transmission
from relayd.upstream.settings import SmarthostSettings, Timeouts

PATIENT = Timeouts(connect=20, command=20, data_block=20, dot=20)
QUEUE_ID = UUID("01890000-0000-7000-8000-000000000001")
CONTENT = b"From: app@example.org\r\nSubject: hello\r\n\r\nhello\r\n"


def transmission(*recipients: str, **changes: Any) -> Transmission:
    plain = Transmission(
        queue_id=QUEUE_ID,
        reverse_path=Address.parse("app@example.org"),
        recipients=tuple(Address.parse(recipient) for recipient in recipients or ("one@example.net",)),
        content=CONTENT,
        smtputf8=False,
        body_8bitmime=False,
    )
    return replace(plain, **changes)


def settings(port: int, **changes: Any) -> SmarthostSettings:
    return replace(
        SmarthostSettings(
            host="127.0.0.1",
            port=port,
            tls="none",
            ehlo_name="relay.example.org",
            timeouts=PATIENT,
            idle_seconds=60,
        ),
        **changes,
    )


class Authority:
    """A certificate authority of the test's own, with its certificate in a file."""

    def __init__(self, directory: Path) -> None:
        self._authority = trustme.CA()
        self.file = str(directory / "authority.pem")
        self._authority.cert_pem.write_to_path(self.file)

    def server_context(self, *names: str, client: "Authority | None" = None, **dates: datetime) -> ssl.SSLContext:
        """`client`: who connects has to show a certificate of this one's. `dates`: not_before, not_after."""
        context = ssl.SSLContext(ssl.PROTOCOL_TLS_SERVER)
        self._authority.issue_cert(*names, **dates).configure_cert(context)
        if client is not None:
            context.verify_mode = ssl.CERT_REQUIRED
            client._authority.configure_trust(context)
        return context

    def pair(self, name: str, **dates: datetime) -> tuple[str, bytes]:
        """A certificate chain and its key, both PEM, as a client has them."""
        leaf = self._authority.issue_cert(name, **dates)
        chain = b"".join(blob.bytes() for blob in leaf.cert_chain_pems).decode()
        return chain, leaf.private_key_pem.bytes()

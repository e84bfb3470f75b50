"""What relayd knows of servers by their host's name: whose replies they give, and what they keep of a message.

The only table of host names. A name fits a pattern as a whole, so a name that only ends or begins like a provider's
does not fit.
"""

import re
from collections.abc import Mapping
from dataclasses import dataclass
from enum import StrEnum

from relayd.mail.dkim_record import Algorithm

GENERIC = "generic"


class Dkim(StrEnum):
    """Which DKIM-Signature fields a server accepts."""

    ALL = "all"
    RSA = "rsa"  # one field, by an RSA key
    NONE = "none"

    def accepts(self, algorithm: Algorithm) -> bool:
        """Whether a signature by this algorithm may be in a message."""
        return self is Dkim.ALL or (self is Dkim.RSA and algorithm is Algorithm.RSA_SHA256)


@dataclass(frozen=True, slots=True)
class Signing:
    """How mail is signed for a server. `rewritten`: fields, in lower case, that the server replaces."""

    dkim: Dkim = Dkim.ALL
    rewritten: frozenset[bytes] = frozenset()


USUAL = Signing()  # as the queue stores messages


@dataclass(frozen=True, slots=True)
class KnownServer:
    """A server. `hosts` are patterns of names in lower case; `spf_include` is what its senders put into their SPF
    record."""

    hosts: tuple[str, ...]
    spf_include: str | None = None
    signing: Signing = USUAL


_LABEL = "[a-z0-9-]+"

# By dialect. Amazon's other names are not SES: a customer's own server on EC2 has one of them.
KNOWN_SERVERS: Mapping[str, KnownServer] = {
    "google": KnownServer(
        (
            r"smtp(-relay)?\.gmail\.com",
            r"smtp\.googlemail\.com",
            r"smtp\.google\.com",
            r"(alt[1-4]\.)?aspmx\.l\.google\.com",
            r"aspmx[2-5]\.googlemail\.com",
        ),
        "_spf.google.com",
    ),
    "microsoft365": KnownServer(
        (r"smtp\.office365\.com", rf"{_LABEL}\.mail\.protection\.outlook\.com", rf"{_LABEL}\.{_LABEL}\.mx\.microsoft"),
        "spf.protection.outlook.com",
    ),
    "ses": KnownServer(
        (rf"email-smtp(-fips)?\.{_LABEL}\.amazonaws\.com(\.cn)?",),
        "amazonses.com",
        # It refuses a second DKIM-Signature field, and writes its own Message-ID and Date.
        Signing(Dkim.RSA, frozenset({b"message-id", b"date"})),
    ),
    "sendgrid": KnownServer((r"smtp\.sendgrid\.net",), "sendgrid.net"),
}
_BY_PROVIDER = {"google_workspace": "google", "sendgrid": "sendgrid"}
_UNKNOWN = KnownServer(())
_PATTERNS = {name: re.compile("|".join(server.hosts)) for name, server in KNOWN_SERVERS.items()}


def dialect_of(provider: str, dialect: str | None, host: str | None) -> str:
    """The dialect that the operator names; else that of the provider; else that of the host."""
    name = (host or "").lower().removesuffix(".")
    by_host = next((known for known, pattern in _PATTERNS.items() if pattern.fullmatch(name)), GENERIC)
    return dialect or _BY_PROVIDER.get(provider) or by_host


def known_server(provider: str, dialect: str | None, host: str | None) -> KnownServer:
    """What is known of an upstream; of most servers nothing is."""
    return KNOWN_SERVERS.get(dialect_of(provider, dialect, host), _UNKNOWN)


def signing_for(provider: str, dialect: str | None, host: str | None, dkim: str | None) -> Signing:
    """How mail for an upstream is signed. `dkim` is what the operator says that it accepts."""
    known = known_server(provider, dialect, host).signing
    return Signing(Dkim(dkim) if dkim else known.dkim, known.rewritten)

"""What a smarthost needs to be told. Values alone; whoever wires the daemon fills them in."""

from collections.abc import Sequence
from dataclasses import dataclass, field
from typing import Literal

from relayd.upstream.tokens import TokenSource
from relayd.upstream.verdict import GENERIC, Rule

# opportunistic: STARTTLS where it is offered, whatever its certificate; it keeps out who only listens.
Tls = Literal["none", "opportunistic", "starttls", "implicit"]
AuthMechanism = Literal["PLAIN", "LOGIN", "CRAM-MD5", "XOAUTH2"]


@dataclass(frozen=True, slots=True)
class Timeouts:
    """RFC 5321 4.5.3.2 in seconds, smaller where giving up costs a retry only.

    `dot` keeps the RFC's ten minutes: giving up there leaves a doubt, and a doubt may become a duplicate. `connect` is
    for each address, `opening` for everything before MAIL, whatever addresses are tried. None: as the others add up.
    """

    connect: float = 30.0
    greeting: float | None = None
    opening: float | None = None
    command: float = 120.0
    data_block: float = 120.0
    dot: float = 600.0
    quit: float = 2.0

    @property
    def greeting_seconds(self) -> float:
        """How long a server that has taken the connection may say nothing."""
        return self.connect if self.greeting is None else self.greeting

    @property
    def opening_seconds(self) -> float:
        """How long it may take until a connection is ready for MAIL."""
        return self.connect + self.greeting_seconds + self.command if self.opening is None else self.opening


@dataclass(frozen=True, slots=True)
class SmarthostSettings:
    """`host` is a name or an IP literal, with or without brackets, or the path of a Unix socket, which has no port.
    `source_address` is a local IP literal.

    `max_recipients` is a cap on one transmission, for whoever makes them; it is not looked at here. `tokens` gives the
    access tokens of XOAUTH2, for `token_subject` where one grant speaks for many accounts. `rules` say what the
    server's replies mean. The client's certificate and key are PEM.
    """

    host: str
    port: int | None
    tls: Tls
    ehlo_name: str
    verify_certificate: bool = True
    ca_file: str | None = None
    username: str | None = None
    password: str | None = field(default=None, repr=False)
    auth_mechanism: AuthMechanism | None = None
    tokens: TokenSource | None = field(default=None, repr=False)
    token_subject: str | None = None
    client_certificate: str | None = field(default=None, repr=False)
    client_key: bytes | None = field(default=None, repr=False)
    rules: Sequence[Rule] = field(default=GENERIC, repr=False)
    allow_plaintext_auth: bool = False
    source_address: str | None = None
    max_connections: int = 4
    max_recipients: int = 100
    max_messages_per_connection: int = 100
    idle_seconds: float = 10.0
    timeouts: Timeouts = field(default_factory=Timeouts)


def is_socket_path(host: str) -> bool:
    """Whether it is the path of a Unix socket."""
    return host.startswith("/")


def bare_host(host: str) -> str:
    """An address literal without its brackets, as sockets and certificates want it."""
    return host.removeprefix("[").removesuffix("]").removeprefix("IPv6:")

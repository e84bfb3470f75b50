"""What happens in sessions. Metrics count these and the mail log writes them; nothing else does.

Labels that metrics count by are enumerations, so that a peer cannot make new ones. `detail` is for the log alone;
it never holds a secret, nor anything that a client sent where a secret could have been meant.
"""

from dataclasses import dataclass
from enum import StrEnum

from relayd.rules.outcome import Stage


class Cap(StrEnum):
    """Which cap turned a connection away before the greeting."""

    CONNECTIONS = "connections"
    CONNECTIONS_PER_PEER = "connections_per_peer"
    DRAINING = "draining"


class Ending(StrEnum):
    """Why a session ended."""

    QUIT = "quit"
    DISCONNECTED = "disconnected"
    IDLE = "idle"
    DATA_TOO_SLOW = "data_too_slow"
    SESSION_TOO_LONG = "session_too_long"
    TOO_LARGE = "too_large"
    TOO_MANY_ERRORS = "too_many_errors"
    TOO_MANY_REFUSALS = "too_many_refusals"
    TOO_MANY_COMMANDS = "too_many_commands"
    TOO_MANY_AUTH_TRIES = "too_many_auth_tries"
    LOGINS_BLOCKED = "logins_blocked"
    BARE_NEWLINE = "bare_newline"
    NOT_SMTP = "not_smtp"
    TLS_FAILED = "tls_failed"
    DRAINED = "drained"
    BROKEN = "broken"


class Reason(StrEnum):
    """Why a command or a message was refused."""

    BAD_SYNTAX = "bad_syntax"
    BAD_SEQUENCE = "bad_sequence"
    BAD_ADDRESS = "bad_address"
    BAD_PARAMETER = "bad_parameter"
    UNKNOWN_COMMAND = "unknown_command"
    LINE_TOO_LONG = "line_too_long"
    BARE_LF = "bare_lf"
    BARE_CR = "bare_cr"
    NUL = "nul"
    TOO_LARGE = "too_large"
    NO_ROOM = "no_room"
    TOO_MANY_RECIPIENTS = "too_many_recipients"
    AUTH_REQUIRED = "auth_required"
    AUTH_FAILED = "auth_failed"
    LOGINS_BLOCKED = "logins_blocked"
    CLIENT_SUSPENDED = "client_suspended"
    CREDENTIAL_DISABLED = "credential_disabled"
    TLS_REQUIRED = "tls_required"
    RELAY_DENIED = "relay_denied"
    POLICY = "policy"
    SUPPRESSED = "suppressed"
    UNAVAILABLE = "unavailable"


@dataclass(frozen=True, slots=True)
class SessionOpened:
    """A client was greeted."""

    peer: str


@dataclass(frozen=True, slots=True)
class SessionClosed:
    """A session that had been opened is over."""

    peer: str
    reason: Ending
    seconds: float


@dataclass(frozen=True, slots=True)
class SessionRefused:
    """A connection was closed before it became a session."""

    peer: str
    reason: Cap


@dataclass(frozen=True, slots=True)
class TlsFailed:
    """A TLS handshake came to nothing."""

    peer: str
    detail: str


@dataclass(frozen=True, slots=True)
class Refused:
    """A command or a message was answered with 4xx or 5xx. `client` is a name; POLICY is the door's word."""

    peer: str
    client: str | None
    login: str | None
    stage: Stage
    code: int
    enhanced: str
    reason: Reason
    detail: str
    # The how-manieth refusal of its session, from the first one that the log only sums up; None before.
    number: int | None = None


@dataclass(frozen=True, slots=True)
class RefusalsSummed:
    """A session is over in which more was refused than the log has lines for. `unlogged` are those without one."""

    peer: str
    client: str | None
    login: str | None
    refusals: int
    unlogged: int
    most_frequent: Reason


@dataclass(frozen=True, slots=True)
class PeerLinesSummed:
    """What a peer caused and the log has left out in the last minute. `peer` is a network for IPv6, or `all`."""

    peer: str
    unlogged: int
    seconds: float


@dataclass(frozen=True, slots=True)
class Authenticated:
    """An app has proven its login."""

    peer: str
    login: str
    mechanism: str


@dataclass(frozen=True, slots=True)
class AuthenticationFailed:
    """An unknown login or a wrong secret; which of them is not said."""

    peer: str
    login: str
    mechanism: str


SessionEvent = (
    SessionOpened
    | SessionClosed
    | SessionRefused
    | TlsFailed
    | Refused
    | RefusalsSummed
    | PeerLinesSummed
    | Authenticated
    | AuthenticationFailed
)

"""How much a session may take: bytes, time, tries. Every one bounds memory or patience."""

from dataclasses import dataclass


@dataclass(frozen=True, slots=True)
class SessionLimits:
    """Caps of one listener. Connections are counted in this process alone.

    `max_line_octets` is 64 KiB where RFC 5321 4.5.3.1.6 asks for 998: apps write HTML on one line, other relays
    take it, DKIM survives it, and breaking the line here would change what was signed elsewhere.
    """

    size_octets: int = 26_214_400
    discard_factor: int = 4  # so many times `size_octets` are read to answer 552 politely; then the line is cut
    max_held_octets: int = 268_435_456  # of messages on their way in, all sessions together
    max_line_octets: int = 65_536
    max_command_octets: int = 4_096
    max_recipients: int = 100
    max_connections: int = 1_000
    max_connections_per_peer: int = 100
    max_auth_tries: int = 3
    auth_failure_delay_seconds: float = 1.0
    max_commands: int = 100  # other than RCPT and DATA, since the last whole message
    max_bad_commands: int = 20  # since the last accepted message
    max_refusals: int = 40  # of any kind, since the last accepted message
    logged_refusals: int = 5  # of a session; the others are summed up in one line at its end
    refusal_delay_seconds: float = 1.0  # for a stranger who was refused too often in the last minute
    max_auth_octets: int = 12_288  # RFC 4954 4: of an AUTH command and of each response
    idle_seconds: float = 300.0
    data_seconds: float = 1_800.0
    session_seconds: float = 7_200.0
    tls_handshake_seconds: float = 30.0
    reject_invalid_helo: bool = False  # else any EHLO name is taken, and made fit for Received
    linger_seconds: float = 5.0  # for the last reply to reach a peer that does not read

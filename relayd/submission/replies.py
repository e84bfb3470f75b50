"""What relayd says by itself. The door's replies are the door's; a peer learns no cause but its own doing."""

from relayd.mail.reply import Reply
from relayd.rules.session_events import Reason

OK = Reply(250, "2.0.0", "OK")
BYE = Reply(221, "2.0.0", "Bye")
CANNOT_VERIFY = Reply(252, "2.5.2", "Cannot verify, but will take messages for it")

TRY_LATER = Reply(451, "4.3.0", "Temporary server problem, try again later")
BROKEN = Reply(421, "4.3.0", "Temporary server problem, closing")
SHUTTING_DOWN = Reply(421, "4.3.2", "Service shutting down")
IDLE = Reply(421, "4.4.2", "Idle too long, closing")
DATA_TOO_SLOW = Reply(421, "4.4.2", "Message took too long, closing")
SESSION_TOO_LONG = Reply(421, "4.4.2", "Session too long, closing")
TOO_MANY_CONNECTIONS = Reply(421, "4.7.0", "Too many connections")
TOO_MANY_ERRORS = Reply(421, "4.7.0", "Too many errors, closing")
TOO_MANY_COMMANDS = Reply(421, "4.7.0", "Too many commands without a message")
TOO_MANY_AUTH_TRIES = Reply(421, "4.7.0", "Too many authentication failures")
LOGINS_BLOCKED = Reply(421, "4.7.0", "Too many failed logins from your address, wait a minute")
NOT_SMTP = Reply(421, "4.7.0", "This is not a web server")

NOT_UTF8 = Reply(500, "5.5.2", "Not UTF-8")
NOT_RECOGNIZED = Reply(500, "5.5.2", "Command not recognized")
LINE_TOO_LONG = Reply(500, "5.5.2", "Line too long")
NOT_IMPLEMENTED = Reply(502, "5.5.1", "Not implemented")
NO_ARGUMENT = Reply(501, "5.5.4", "This command takes no argument")
EHLO_SYNTAX = Reply(501, "5.5.4", "Syntax: EHLO hostname")

TLS_READY = Reply(220, "2.0.0", "Ready to start TLS")
TLS_IS_ON = Reply(503, "5.5.1", "TLS is already on")
TLS_NOT_OFFERED = Reply(502, "5.5.1", "TLS is not offered")

EHLO_FIRST = Reply(503, "5.5.1", "Send EHLO first")
MAIL_FIRST = Reply(503, "5.5.1", "Send MAIL first")
SENDER_GIVEN = Reply(503, "5.5.1", "Sender already given")
SENDER_OK = Reply(250, "2.1.0", "Sender OK")
RECIPIENT_OK = Reply(250, "2.1.5", "Recipient OK")
TOO_MANY_RECIPIENTS = Reply(452, "4.5.3", "Too many recipients")
NO_ROOM = Reply(452, "4.3.1", "Too much mail is coming in just now, try again later")
NO_RECIPIENTS = Reply(554, "5.5.1", "No valid recipients")

AUTHENTICATED = Reply(235, "2.7.0", "Authentication successful")
AUTH_UNAVAILABLE = Reply(454, "4.7.0", "Temporary authentication failure")
AUTH_NEEDS_TLS = Reply(538, "5.7.11", "Encryption required for authentication")
AUTH_DONE = Reply(503, "5.5.1", "Already authenticated")
AUTH_IN_TRANSACTION = Reply(503, "5.5.1", "Not within a mail transaction")
AUTH_MECHANISM = Reply(504, "5.5.4", "Mechanism not supported")
AUTH_REQUIRED = Reply(530, "5.7.0", "Authentication required")
TLS_REQUIRED = Reply(530, "5.7.0", "Issue STARTTLS first, then authenticate")
# RFC 5248 2.4, X.7.13. Said only behind the right secret, or to an address of a trusted network.
CLIENT_SUSPENDED = Reply(525, "5.7.13", "Client suspended; ask the operator of this relay")
CREDENTIAL_DISABLED = Reply(525, "5.7.13", "Credential disabled; ask the operator of this relay")
RELAY_DENIED = Reply(550, "5.7.1", "Relaying denied")

# What is wrong, and what to do about it in a message.
_OCTETS = {
    Reason.BARE_LF: ("Bare LF", "end each line with CRLF"),
    Reason.BARE_CR: ("Bare CR", "end each line with CRLF"),
    Reason.NUL: ("NUL", "remove it, or send the part in base64"),
}


def stopped(reason: Reason) -> Reply:
    """For an identity that may not send now."""
    return CLIENT_SUSPENDED if reason is Reason.CLIENT_SUSPENDED else CREDENTIAL_DISABLED


def too_large(size_octets: int) -> Reply:
    """For SIZE= on MAIL, and for the message itself."""
    return Reply(552, "5.3.4", f"Message exceeds {size_octets} octets")


def bad_line(reason: Reason) -> Reply:
    """For a command line."""
    if reason is Reason.LINE_TOO_LONG:
        return LINE_TOO_LONG
    advice = "remove it" if reason is Reason.NUL else _OCTETS[reason][1]
    return Reply(500, "5.5.2", f"{_OCTETS[reason][0]} in a command: {advice}. Closing")


def bad_content(reason: Reason, size_octets: int) -> Reply:
    """For a message that was read whole."""
    if reason is Reason.TOO_LARGE:
        return too_large(size_octets)
    if reason is Reason.NO_ROOM:
        return NO_ROOM
    if reason is Reason.LINE_TOO_LONG:
        return Reply(550, "5.6.0", "A line of the message is too long: write that part as quoted-printable or base64")
    name, advice = _OCTETS[reason]
    return Reply(550, "5.6.0", f"{name} in the message: {advice}")

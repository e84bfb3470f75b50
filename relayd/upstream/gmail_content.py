"""Make of a message what Gmail's API sends to exactly these recipients: it goes by the header, not by an envelope.

Who is not in the header goes into a Bcc on top, which Gmail takes out again and no signature of ours covers. Who is in
the header and not to get it cannot be kept from getting it: such a message is not handed over.
"""

from collections.abc import Awaitable, Callable, Iterable
from uuid import UUID

from relayd.mail import headers
from relayd.mail.address import Address
from relayd.mail.envelope import Transmission
from relayd.mail.header_recipients import header_recipients
from relayd.rules.outcome import Cause, Failed, Outcome, Postponed, Scope, Stage
from relayd.upstream.verdict import refuse

# What Google takes of one message.
MAX_RECIPIENTS = 500
MAX_OCTETS = 35 * 1024 * 1024
TOGETHER_SECONDS = 300.0
MARK = "X-Relayd-Attempt"

# The recipients of a message that may still go together, these included.
Others = Callable[[UUID], Awaitable[Iterable[Address]]]


async def complete(transmission: Transmission, mark: str, others: Others) -> bytes | Outcome:
    """The bytes to hand over, or why they cannot be. `mark` is what the sent message is known by afterwards."""
    given = {address.key: address for address in transmission.recipients}
    try:
        scan = headers.scan(transmission.content)
        named = header_recipients(scan)
    except ValueError as error:
        return refuse(Scope.MESSAGE, "5.6.0", f"Gmail's API sends to whom the header names, and {error}")
    surplus = {key: address for key, address in named.items() if key not in given}
    if surplus:
        waiting = {address.key for address in await others(transmission.queue_id)}
        return _surplus(transmission, surplus, waiting)
    hidden = [address for key, address in given.items() if key not in named]
    top = f"{MARK}: {mark}\r\n".encode() + _bcc(hidden)
    content = top + (b"\r\n" if scan.needs_empty_line else b"") + transmission.content
    if len(content) > MAX_OCTETS:
        text = f"the message has {len(transmission.content)} octets, Gmail's API takes {MAX_OCTETS}"
        return refuse(Scope.MESSAGE, "5.3.4", text)
    return content


def _surplus(transmission: Transmission, surplus: dict[str, Address], waiting: set[str]) -> Outcome:
    """The header names somebody who is not among the recipients of this transaction."""
    some = ", ".join(str(address) for address in list(surplus.values())[:3]) + (", …" if len(surplus) > 3 else "")
    if surplus.keys() <= waiting and len(waiting) <= MAX_RECIPIENTS:
        text = f"waits to go together with {some}: Gmail's API sends to all that To and Cc name, at once"
        return Postponed(Scope.MESSAGE, Cause(Stage.LOCAL, text), TOGETHER_SECONDS)
    text = (
        f"To or Cc names {some}, who would get it too: Gmail's API sends to all that the header names; "
        "an upstream that speaks SMTP can carry this message"
    )
    return Failed(Scope.MESSAGE, Cause(Stage.LOCAL, text[:500], None, "5.6.0"))


def _bcc(addresses: list[Address]) -> bytes:
    """One address a line, so that no line is too long (RFC 5322 2.1.1)."""
    return b"Bcc: " + b",\r\n\t".join(each.wire.encode() for each in addresses) + b"\r\n" if addresses else b""

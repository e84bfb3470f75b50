"""A sink that treats messages as Amazon SES does: one DKIM-Signature field at most, and its own Message-ID and Date."""

import re
from dataclasses import dataclass, field, replace

from tests.peers.sink import Arrival, Sink

DUPLICATE = "554 Transaction failed: Duplicate header 'DKIM-Signature'."
_REWRITTEN = re.compile(rb"^(Message-ID|Date):[^\r\n]*\r\n(?:[ \t][^\r\n]*\r\n)*", re.IGNORECASE | re.MULTILINE)
_OWN = {
    b"message-id": b"Message-ID: <0102-000000@eu-west-1.amazonses.test>\r\n",
    b"date": b"Date: Thu, 1 Jan 2026 00:00:00 +0000\r\n",
}


def signatures(content: bytes) -> int:
    """How many DKIM-Signature fields the header has."""
    header = content.partition(b"\r\n\r\n")[0]
    return len(re.findall(rb"^DKIM-Signature:", header, re.IGNORECASE | re.MULTILINE))


@dataclass
class SesSink(Sink):
    """As Sink. `refused` counts what it did not take because of its signatures."""

    refused: list[bytes] = field(default_factory=list)

    def __post_init__(self) -> None:
        self.on_content = self._reply

    def record(self, arrival: Arrival) -> None:
        """As SES would pass it on."""
        head, separator, body = arrival.content.partition(b"\r\n\r\n")
        head = _REWRITTEN.sub(lambda match: _OWN[match.group(1).lower()], head + b"\r\n")
        super().record(replace(arrival, content=head + separator[2:] + body))

    def _reply(self, content: bytes) -> str:
        if signatures(content) > 1:
            self.refused.append(content)
            return DUPLICATE
        return "250 Ok 0102-000000"

r"""A message on its way in, between DATA and the true end of data. Pure: chunks go in, bytes or a reason come out.

Only `CRLF . CRLF` ends a message. `LF . LF` and its kin are content, and the message is refused *at its true end*:
whoever ends it earlier, or repairs it, lets somebody else's relay be talked into a second message (SMTP smuggling).
"""

from relayd.mail.transfer_encoding import has_long_line
from relayd.rules.session_events import Reason

_END = b"\r\n.\r\n"


class IncomingMessage:
    """Collects one message, holding at most a third more than `size_octets` (one stuffed dot for three octets).

    `beginning_octets`: of a longer one so much is enough, in whole lines; the rest is read and thrown away, and
    counted as it comes, stuffed dots and all.
    """

    def __init__(self, *, size_octets: int, max_line_octets: int, beginning_octets: int | None = None) -> None:
        self._size_octets = size_octets
        self._max_line_octets = max_line_octets
        self._beginning_octets = beginning_octets
        kept_octets = size_octets if beginning_octets is None else min(size_octets, beginning_octets)
        self._held_octets_at_most = kept_octets + kept_octets // 3 + len(_END)
        self._beginning: bytes | None = None
        # The CRLF of the DATA command opens the first line, so an empty message ends at once.
        self._held = bytearray(b"\r\n")
        self._is_too_large = False
        self._is_given_up = False
        self._message_octets = 0
        self.octets = 0
        """All that was read, kept or not."""

    def feed(self, chunk: bytes | bytearray) -> bytes | None:
        """Take a chunk. At the end of data: what followed it, perhaps nothing. Before: None."""
        held = self._held
        scanned = max(0, len(held) - len(_END) + 1)
        held += chunk
        self.octets += len(chunk)
        end = held.find(_END, scanned)
        if end >= 0:
            surplus = bytes(held[end + len(_END) :])
            self._message_octets = self.octets - len(surplus) - len(_END) + 2
            del held[end + 2 :]
            return surplus
        if len(held) > self._held_octets_at_most and not self._is_given_up:
            if self._beginning_octets is None:
                self._is_too_large = True
            elif self._beginning is None:
                self._beginning = bytes(held[: self._held_octets_at_most])
        if self._is_too_large or self._is_given_up or self._beginning is not None:
            del held[: -len(_END) + 1]
        return None

    @property
    def held_octets(self) -> int:
        """What is kept in memory."""
        return len(self._held) + len(self._beginning or b"")

    def give_up(self) -> None:
        """Keep nothing more of it: there is no room. It is still read to its true end."""
        self._is_given_up = True
        self._beginning = None
        del self._held[: -len(_END) + 1]

    def finish(self) -> bytes | Reason:
        """The content, dots unstuffed, or why it is refused. Only after the end of data."""
        if self._is_given_up:
            return Reason.NO_ROOM
        if self._is_too_large:
            return Reason.TOO_LARGE
        content = self._unstuffed()
        most = self._beginning_octets
        if (len(content) if most is None else self._message_octets) > self._size_octets:
            return Reason.TOO_LARGE
        if most is not None and (self._beginning is not None or len(content) > most):
            content = _whole_lines(content, most)
        lines = content.count(b"\r\n")
        if content.count(b"\n") != lines:
            return Reason.BARE_LF
        if content.count(b"\r") != lines:
            return Reason.BARE_CR
        if b"\x00" in content:
            return Reason.NUL
        if has_long_line(content, most=self._max_line_octets):
            return Reason.LINE_TOO_LONG
        return content

    def _unstuffed(self) -> bytes:
        # RFC 5321 4.5.2: a line's leading dot is deleted, whatever follows it.
        held = self._held if self._beginning is None else self._beginning
        if b"\r\n." in held:
            return bytes(held.replace(b"\r\n.", b"\r\n")[2:])
        return bytes(memoryview(held)[2:])


def _whole_lines(content: bytes, octets: int) -> bytes:
    """The beginning, up to a line's end; one line that is longer than that is cut."""
    end = content.rfind(b"\r\n", 0, octets)
    return content[: end + 2] if end >= 0 else content[:octets].rstrip(b"\r")

"""imaplib's clients, with a bound on what a server may answer to one command.

imaplib reads a literal as long as the server announces, and as many responses as it sends.
"""

import imaplib
from collections.abc import Iterator
from contextlib import contextmanager
from typing import Any

# Answers that hold no message: greetings, lists of folders and UIDs.
ANSWER_OCTETS = 4 * 1024 * 1024
ANSWER_LINES = 20_000
# What stands around a message that is fetched.
FRAME_OCTETS = 65_536


class _Bounded(imaplib.IMAP4):
    """Counts the octets and lines of each answer. What is too much ends the connection (imaplib's `abort`)."""

    _octets_left = ANSWER_OCTETS
    _lines_left = ANSWER_LINES
    _most_octets = ANSWER_OCTETS

    @contextmanager
    def fetching(self, most_octets: int) -> Iterator[None]:
        """Commands within may be answered with a message of so many octets."""
        self._most_octets = most_octets + FRAME_OCTETS
        try:
            yield
        finally:
            self._most_octets = ANSWER_OCTETS

    def _command(self, name: str, *args: Any) -> Any:
        self._octets_left, self._lines_left = self._most_octets, ANSWER_LINES
        return super()._command(name, *args)  # type: ignore[misc]

    def read(self, size: int) -> bytes:
        """A literal of that size; refused before a single octet of it is read."""
        self._take(size)
        return super().read(size)

    def readline(self) -> bytes:
        """A line."""
        line: bytes = self.file.readline(min(imaplib._MAXLINE, self._octets_left) + 1)  # type: ignore[assignment, attr-defined]
        self._take(len(line))
        if line and not line.endswith(b"\n") and len(line) > imaplib._MAXLINE:  # type: ignore[attr-defined]
            raise self.abort("it sends a line without end; relayd has closed the connection")
        return line

    def _take(self, octets: int) -> None:
        self._octets_left -= octets
        self._lines_left -= 1
        if self._octets_left < 0 or self._lines_left < 0:
            raise self.abort("it sends more than was asked for; relayd has closed the connection")


class BoundedImap(_Bounded):
    """On a plain connection, for STARTTLS."""


class BoundedImapTls(_Bounded, imaplib.IMAP4_SSL):
    """With TLS from the first octet."""

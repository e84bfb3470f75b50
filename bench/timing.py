"""What the bench's own generator notes of each message."""

from dataclasses import dataclass


@dataclass(frozen=True, slots=True)
class Timing:
    """Of one message: when it was due, before connecting, and when its 250 was read; on the monotonic clock.

    `dot_seconds`: from writing the message, which its dot ends, to the 250.
    """

    due_at: float
    replied_at: float
    dot_seconds: float

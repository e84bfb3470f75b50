"""What a worker says of whether it can queue mail. Apart from `readiness`: a worker needs no HTTP server."""

from collections.abc import Callable

from relayd.rules.relay_events import BatchCommitted, RelayEvent, StoreLost

REPEAT_SECONDS = 1.0


class QueueingReport:
    """In a worker, among those who are told events: tells the supervisor, by `send`, whether messages can be queued.

    Once a second while they cannot, and once when they can again.
    """

    def __init__(
        self, emit: Callable[[RelayEvent], None], send: Callable[[str], None], *, clock: Callable[[], float]
    ) -> None:
        self._emit = emit
        self._send = send
        self._clock = clock
        self._refused_at: float | None = None

    def emit(self, event: RelayEvent) -> None:
        """Pass the event on, and look at it."""
        self._emit(event)
        match event:
            case StoreLost(step="enqueue"):
                if self._refused_at is None or self._clock() - self._refused_at >= REPEAT_SECONDS:
                    self._refused_at = self._clock()
                    self._send("refusing")
            case BatchCommitted(step="enqueue") if self._refused_at is not None:
                self._refused_at = None
                self._send("queueing")

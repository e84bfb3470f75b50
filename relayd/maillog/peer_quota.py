"""How many log lines one peer may cause, so that a stranger who connects again and again does not fill the disk.

Only lines about what a peer got refused count. Those that are left out are counted, and one line a minute says how
many. Metrics still count each.
"""

from collections.abc import Callable

from relayd.rules.events import Event
from relayd.rules.peer_network import peer_network
from relayd.rules.relay_events import Rejected
from relayd.rules.session_events import (
    AuthenticationFailed,
    PeerLinesSummed,
    RefusalsSummed,
    Refused,
    SessionRefused,
    TlsFailed,
)

WINDOW_SECONDS = 60.0
PEER_LINES = 60
ALL_LINES = 600
MAX_PEERS = 10_000
ALL = "all"

_COUNTED = (Refused, RefusalsSummed, SessionRefused, TlsFailed, AuthenticationFailed, Rejected)


class PeerQuota:
    """Counts the lines of the running minute. `clock` counts seconds."""

    def __init__(self, clock: Callable[[], float], *, peer_lines: int = PEER_LINES, all_lines: int = ALL_LINES) -> None:
        self._clock = clock
        self._peer_lines = peer_lines
        self._all_lines = all_lines
        self._began = clock()
        self._lines: dict[str, int] = {}
        self._total = 0
        self._unlogged: dict[str, int] = {}

    def admit(self, event: Event) -> bool:
        """Whether this event gets a line."""
        if not isinstance(event, _COUNTED) or (isinstance(event, Refused) and event.number is not None):
            return True
        key = peer_network(event.peer)
        lines = self._lines.get(key, 0)
        if lines < self._peer_lines and self._total < self._all_lines:
            self._lines[key] = lines + 1
            self._total += 1
            return True
        if lines < self._peer_lines or (key not in self._unlogged and len(self._unlogged) >= MAX_PEERS):
            key = ALL  # not one peer's doing, or too many peers to name
        self._unlogged[key] = self._unlogged.get(key, 0) + 1
        return False

    def sums(self) -> list[PeerLinesSummed]:
        """What was left out in the minute that is over, the worst peers first; nothing while it still runs."""
        now = self._clock()
        if now - self._began < WINDOW_SECONDS:
            return []
        seconds, self._began = now - self._began, now
        worst = sorted(self._unlogged.items(), key=lambda pair: -pair[1])
        self._lines.clear()
        self._unlogged.clear()
        self._total = 0
        sums = [PeerLinesSummed(peer, count, seconds) for peer, count in worst[:20]]
        if rest := sum(count for _, count in worst[20:]):
            sums.append(PeerLinesSummed(ALL, rest, seconds))
        return sums

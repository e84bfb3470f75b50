"""Failed logins, counted per peer: each makes the next one slower, and too many end the guessing.

One table in each process of a node; the supervisor passes every failure and success on to all of them. A success
forgives the failures of its own login alone: an attacker who owns a login must not clear the count with it. And a
login that has succeeded from a peer stays usable there while others fail, so that one app with a wrong password, or
one attacker behind the same NAT, does not lock out everybody else.
"""

import hashlib
from collections import OrderedDict
from collections.abc import Callable, Iterable

# One failure is forgotten in so many seconds: a peer that keeps guessing gets one try a minute.
FORGET_SECONDS = 60.0
FREE_FAILURES = 3  # each of these costs the first delay; then it doubles
LONGEST_DELAY_SECONDS = 15.0
MAX_FAILURES = 20
MAX_PEERS = 10_000
MAX_KNOWN = 10_000
MAX_ROWS = 2_000  # that a process is given at its start

Row = tuple[str, float, list[tuple[str, int]]]


def login_key(login: str) -> str:
    """What stands for a login: some logins are passwords in the wrong field."""
    return hashlib.blake2b(login.encode("utf-8", "replace"), digest_size=8).hexdigest()


class LoginFailures:
    """The counts, in bounded memory. `clock` counts seconds; peers are networks (`peer_network`)."""

    def __init__(self, clock: Callable[[], float]) -> None:
        self._clock = clock
        # By peer, the latest last: when its failures were last reduced, and how many each login has.
        self._peers: OrderedDict[str, tuple[float, dict[str, int]]] = OrderedDict()
        self._known: OrderedDict[tuple[str, str], None] = OrderedDict()

    def is_blocked(self, peer: str, login: str) -> bool:
        """Whether this login is refused without looking at its secret."""
        key = login_key(login)
        failures = self._current(peer)
        if (peer, key) in self._known:
            return failures.get(key, 0) >= MAX_FAILURES
        return sum(failures.values()) >= MAX_FAILURES

    def delay_seconds(self, peer: str, first: float) -> float:
        """How long the reply to a failure waits, that failure counted already."""
        surplus = max(0, sum(self._current(peer).values()) - FREE_FAILURES)
        return float(max(first, min(first * 2 ** min(surplus, 30), LONGEST_DELAY_SECONDS)))

    def fail(self, peer: str, key: str) -> None:
        """Count a failure of the login with that key."""
        failures = self._current(peer)
        if sum(failures.values()) < 2 * MAX_FAILURES:
            failures[key] = failures.get(key, 0) + 1
        began = self._peers[peer][0] if peer in self._peers else self._clock()
        self._peers[peer] = (began, failures)
        self._peers.move_to_end(peer)
        if len(self._peers) > MAX_PEERS:
            self._peers.popitem(last=False)

    def succeed(self, peer: str, key: str) -> bool:
        """Forgive the failures of the login with that key; whether the other processes have to hear of it."""
        failures = self._current(peer)
        is_news = failures.pop(key, None) is not None or (peer, key) not in self._known
        if not failures:
            self._peers.pop(peer, None)
        self._known[(peer, key)] = None
        self._known.move_to_end((peer, key))
        if len(self._known) > MAX_KNOWN:
            self._known.popitem(last=False)
        return is_news

    def rows(self) -> tuple[list[Row], list[tuple[str, str]]]:
        """The latest, with ages instead of times, for a process that starts."""
        now = self._clock()
        rows = [(peer, now - began, list(failures.items())) for peer, (began, failures) in self._peers.items()]
        return rows[-MAX_ROWS:], list(self._known)[-MAX_ROWS:]

    def load(self, rows: Iterable[Row], known: Iterable[tuple[str, str]]) -> None:
        """Take what `rows` of another process gave."""
        now = self._clock()
        for peer, age, failures in rows:
            self._peers[peer] = (now - age, dict(failures))
        for peer, key in known:
            self._known[(peer, key)] = None

    def _current(self, peer: str) -> dict[str, int]:
        """The peer's failures that are not forgotten yet."""
        if peer not in self._peers:
            return {}
        began, failures = self._peers[peer]
        forgotten = int((self._clock() - began) // FORGET_SECONDS)
        if forgotten <= 0:
            return failures
        for _ in range(min(forgotten, 2 * MAX_FAILURES)):
            if not failures:
                break
            worst = max(failures, key=lambda key: failures[key])
            failures[worst] -= 1
            if not failures[worst]:
                del failures[worst]
        if failures:
            self._peers[peer] = (began + forgotten * FORGET_SECONDS, failures)
        else:
            del self._peers[peer]
        return failures

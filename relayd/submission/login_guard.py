"""Failed logins as the sessions of one process see them: counted here, and passed on to the node's other processes."""

import time
from collections.abc import Callable

from relayd.rules.login_failures import LoginFailures, login_key
from relayd.rules.peer_network import peer_network

# What happened (`login_failed` or `login_succeeded`), the peer's network, the key of the login.
PassOn = Callable[[str, str, str], None]

FAILED = "login_failed"
SUCCEEDED = "login_succeeded"


class LoginGuard:
    """Slows down those who guess passwords. One a process."""

    def __init__(
        self,
        failures: LoginFailures | None = None,
        *,
        pass_on: PassOn = lambda kind, peer, key: None,
    ) -> None:
        self._failures = failures if failures is not None else LoginFailures(time.monotonic)
        self._pass_on = pass_on

    def is_blocked(self, peer: str, login: str) -> bool:
        """Whether this login is refused without looking at its secret."""
        return self._failures.is_blocked(peer_network(peer), login)

    def fail(self, peer: str, login: str, *, first_delay_seconds: float) -> float:
        """Count a failed login; how long its reply has to wait."""
        network, key = peer_network(peer), login_key(login)
        self._failures.fail(network, key)
        self._pass_on(FAILED, network, key)
        return self._failures.delay_seconds(network, first_delay_seconds)

    def succeed(self, peer: str, login: str) -> None:
        """Note a login that succeeded."""
        network, key = peer_network(peer), login_key(login)
        if self._failures.succeed(network, key):
            self._pass_on(SUCCEEDED, network, key)

    def hear(self, kind: str, network: str, key: str) -> None:
        """Take what another process has passed on."""
        if kind == FAILED:
            self._failures.fail(network, key)
        else:
            self._failures.succeed(network, key)

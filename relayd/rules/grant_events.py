"""What becomes of the grants behind logins by token. Metrics count these and the mail log writes them."""

from dataclasses import dataclass


@dataclass(frozen=True, slots=True)
class GrantDied:
    """A grant gives no token any more, and mail waits until somebody mends it. `subject`: for whom, "" for itself."""

    upstream: str
    subject: str
    reason: str


GrantEvent = GrantDied

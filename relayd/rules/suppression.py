"""Which failures say that an address will never take mail, and for how long it is left alone. Pure."""

from enum import StrEnum

from relayd.rules.settlement import Settlement
from relayd.rules.states import Status

DEFAULT_DAYS = 90.0

# RFC 3463 3.2 and RFC 7505: no such mailbox, no such host, no such address, moved, takes no mail. Whatever speaks of
# a limit, a policy or a full mailbox may be over tomorrow.
_SUPPRESSING = frozenset({"5.1.1", "5.1.2", "5.1.3", "5.1.6", "5.1.10"})


class SuppressionReason(StrEnum):
    """suppressions.reason."""

    HARD_BOUNCE = "hard_bounce"
    COMPLAINT = "complaint"
    MANUAL = "manual"
    IMPORT = "import"

    @property
    def words(self) -> str:
        """For people."""
        return self.value.replace("_", " ")


def is_suppressing(enhanced: str | None) -> bool:
    """Whether a bounce with this enhanced code puts its address on the list."""
    return enhanced in _SUPPRESSING


def suppresses(settlement: Settlement) -> bool:
    """Whether this end of an entry puts its address on the list: it was refused for this recipient, for good."""
    return settlement.status is Status.BOUNCED and is_suppressing(settlement.cause.enhanced)

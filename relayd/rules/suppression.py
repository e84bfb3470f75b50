"""Why an address is on the suppression list, and for how long a bounce puts it there."""

from enum import StrEnum

DEFAULT_DAYS = 90.0


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

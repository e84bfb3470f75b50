"""Settings of what comes back: reports, and addresses that are written to no more."""

from typing import Annotated

from pydantic import Field

from relayd.config.section import Section
from relayd.rules.suppression import DEFAULT_DAYS


class ReportSettings(Section):
    """Bounces, complaints and answers that come back."""

    max_octets: Annotated[int, Field(ge=4096, le=26_214_400)] = 1_048_576
    max_waiting: Annotated[int, Field(ge=1, le=10_000_000)] = 10_000
    retention_days: Annotated[float, Field(gt=0, le=3650)] = 14.0
    pull_seconds: Annotated[float, Field(ge=10, le=86400)] = 300.0


class SuppressionSettings(Section):
    """Addresses that get no more mail."""

    hard_bounce_days: Annotated[float, Field(ge=0, le=36500)] = DEFAULT_DAYS

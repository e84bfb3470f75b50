"""What an operator asked for and was not given. Metrics count these and the log writes them."""

from dataclasses import dataclass


@dataclass(frozen=True, slots=True)
class TierRefused:
    """A client has asked for more than its tier allows. `noun`: of what, in the plural."""

    actor: str
    noun: str
    reason: str


ControlEvent = TierRefused

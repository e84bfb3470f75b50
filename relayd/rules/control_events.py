"""What an operator asked for and was not given. Metrics count these and the log writes them."""

from dataclasses import dataclass


@dataclass(frozen=True, slots=True)
class ChangeRefused:
    """A change over the control socket broke a rule: a tier is full, a thing is in use. `noun`: the kind, plural."""

    actor: str
    noun: str
    reason: str


ControlEvent = ChangeRefused

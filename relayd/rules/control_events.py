"""What an operator did, or asked for and was not given. Metrics count these and the log writes them."""

from dataclasses import dataclass


@dataclass(frozen=True, slots=True)
class TierRefused:
    """A client has asked for more than its tier allows. `noun`: of what, in the plural."""

    actor: str
    noun: str
    reason: str


@dataclass(frozen=True, slots=True)
class SecretsResealed:
    """So many values were sealed anew with the key of that id; `closed` of those looked at open under no key."""

    actor: str
    key: str
    resealed: int
    closed: int


ControlEvent = TierRefused | SecretsResealed

"""What a look at a provider has found: each check is ok, a problem with its cure, or could not be made."""

from dataclasses import dataclass
from enum import StrEnum


class Result(StrEnum):
    """How one check ended."""

    OK = "ok"
    PROBLEM = "problem"
    UNKNOWN = "could not be checked"


@dataclass(frozen=True, slots=True)
class Finding:
    """`what` was seen; `cure` is what to do, where there is something to do."""

    check: str
    result: Result
    what: str
    cure: str | None = None


def ok(check: str, what: str) -> Finding:
    """All is well."""
    return Finding(check, Result.OK, what)


def problem(check: str, what: str, cure: str) -> Finding:
    """Something is to be mended."""
    return Finding(check, Result.PROBLEM, what, cure)


def unknown(check: str, why: str, cure: str | None = None) -> Finding:
    """Nobody can tell."""
    return Finding(check, Result.UNKNOWN, why, cure)

"""Parameters that many commands share."""

from collections.abc import Mapping
from typing import Annotated, Any, Literal

from cyclopts import Parameter

from relayd.control.client import ControlClient

AsJson = Annotated[bool, Parameter(name="--json", negative="", help="Print the server's answer as JSON.")]
DailyLimit = int | Literal["unlimited"]
Limit = int | Literal["none"]
LimitWindow = Literal["calendar", "rolling"]
# Not of the command line: the program hands it to each command that asks for it.
Control = Annotated[ControlClient, Parameter(parse=False)]


def limit_of(word: int | str) -> int | None:
    """As the control socket has it: null for `none`, `unlimited` and `auto`."""
    return None if isinstance(word, str) else word


def given(values: Mapping[str, Any]) -> dict[str, Any]:
    """The options that were on the command line: those that are not None."""
    return {name: value for name, value in values.items() if value is not None}

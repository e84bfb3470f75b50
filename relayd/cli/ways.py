"""Lists of upstreams on the command line: `a,b` in order, `a=70,b=30` by weight."""

from typing import Annotated, Any

from cyclopts import Parameter

from relayd.errors import BadValue

Listed = Annotated[str, Parameter(allow_leading_hyphen=False)]


def listed(text: str | None) -> list[dict[str, Any]] | None:
    """The list as the control socket takes it. Raises BadValue."""
    if text is None:
        return None
    found: list[dict[str, Any]] = []
    for part in text.split(","):
        name, equals, weight = (each.strip() for each in part.partition("="))
        if not name or (equals and not (weight.isascii() and weight.isdigit())):
            raise BadValue(
                "a list of upstreams is written a,b (in order) or a=70,b=30 (by weight)",
                hint="relayd upstream list shows their names",
            )
        found.append({"name": name, "weight": int(weight)} if equals else {"name": name})
    return found

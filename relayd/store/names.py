"""Telling an operator which names there are, when the one that was given is not among them."""

from collections.abc import Sequence

from relayd.errors import NotFound

# One more is asked for than is shown, to know whether there are more.
ASKED = 6


def unknown(kind: str, name: str, living: Sequence[str], *, add: str) -> NotFound:
    """The error for `name`; `living` are up to ASKED names of that kind, `add` the command that would make it."""
    if not living:
        return NotFound(f"there is no {kind} {name}, nor any other", hint=f"add it: {add}")
    shown = ", ".join(living[: ASKED - 1])
    more = ", …" if len(living) >= ASKED else ""
    return NotFound(f"there is no {kind} {name}; there are: {shown}{more}", hint=f"add it: {add}")

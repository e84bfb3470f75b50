"""What a reload can change, and what it changes. The supervisor's sockets, locks and connections stay as they are."""

from collections.abc import Iterator, Mapping
from typing import Any

from relayd.config.settings import Settings

# Bound, locked or opened once, at the start.
FIXED = (
    ("node",),
    ("database",),
    ("submission", "listen"),
    ("submission", "listen_implicit_tls"),
    ("http",),
    ("control",),
)


def merge(running: Settings, wanted: Settings) -> tuple[Settings, list[str]]:
    """The settings to go on with, and the keys that need a restart to change."""
    values = wanted.model_dump()
    kept = running.model_dump()
    needs_restart = []
    for path in FIXED:
        target, source = values, kept
        for key in path[:-1]:
            target, source = target[key], source[key]
        if target[path[-1]] != source[path[-1]]:
            needs_restart.append(".".join(path))
            target[path[-1]] = source[path[-1]]
    return Settings.model_validate(values), needs_restart


def changed_keys(before: Settings, after: Settings) -> list[str]:
    """The settings that differ, as `section.key`; no values, since they may be private."""
    return sorted(_differing(before.model_dump(), after.model_dump(), ""))


def _differing(before: Mapping[str, Any], after: Mapping[str, Any], prefix: str) -> Iterator[str]:
    for key in before.keys() | after.keys():
        old, new = before.get(key), after.get(key)
        if isinstance(old, Mapping) and isinstance(new, Mapping):
            yield from _differing(old, new, f"{prefix}{key}.")
        elif old != new:
            yield f"{prefix}{key}"

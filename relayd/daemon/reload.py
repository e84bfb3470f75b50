"""What SIGHUP can change. Workers are exchanged and so take everything, sealing keys included; what the supervisor has
bound, locked or opened stays as it is."""

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

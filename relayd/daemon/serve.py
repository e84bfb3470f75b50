"""Production mode: serve what a configuration file says."""

import asyncio
from pathlib import Path

from relayd.config import secrets
from relayd.config.load import load
from relayd.config.settings import Settings
from relayd.daemon.orders import Secrets
from relayd.daemon.tls import server_context


def run(config: Path) -> None:
    """Serve until stopped. Raises RelaydError."""
    settings, keys = read(config)
    # Not before: it takes a second to load, and a mistake in the configuration is told at once.
    from relayd.daemon.supervisor import Supervisor

    asyncio.run(Supervisor(settings, keys, reread=lambda: read(config)).run())


def read(config: Path) -> tuple[Settings, Secrets]:
    """The configuration with its secrets, whole or not at all. Raises RelaydError."""
    settings = load(config)
    current, older = secrets.sealing_keys(settings)
    submission = settings.submission
    if submission.tls_certificate and submission.tls_key:
        server_context(submission.tls_certificate, submission.tls_key)
    return settings, Secrets(secrets.database_password(settings), current, older)

"""Open the database as the settings say."""

import ssl

from relayd.config.settings import DatabaseSettings
from relayd.errors import RelaydError
from relayd.store.pool import Database

# A plan made while the queue was empty must not be a scan of the whole table when it is full.
HOT_PATH = {"enable_seqscan": "off", "jit": "off"}
# Nobody waits at a port for these: an operator's command over a million entries, a chore.
PATIENT_STATEMENT_SECONDS = 30.0


async def open_database(
    settings: DatabaseSettings,
    password: str | None,
    *,
    name: str,
    connections: int | None = None,
    hot: bool = False,
) -> Database:
    """A pool for one process. Does not connect. Raises RelaydError for settings that cannot be used."""
    return await Database.open(
        settings.dsn,
        password=password,
        max_size=connections or settings.connections,
        connect_timeout_seconds=settings.connect_timeout_seconds,
        acquire_timeout_seconds=settings.acquire_timeout_seconds,
        statement_timeout_seconds=settings.statement_timeout_seconds
        if hot
        else max(settings.statement_timeout_seconds, PATIENT_STATEMENT_SECONDS),
        ssl=_tls(settings),
        application_name=name,
        server_settings=HOT_PATH if hot else None,
    )


def _tls(settings: DatabaseSettings) -> ssl.SSLContext | None:
    if settings.tls == "default":
        return None  # as the DSN's sslmode says
    try:
        context = ssl.create_default_context(cafile=settings.tls_ca_file)
    except OSError as error:
        raise RelaydError(f"database.tls_ca_file: {settings.tls_ca_file} cannot be used: {error.strerror}") from error
    context.check_hostname = settings.tls == "verify-full"
    if settings.tls == "require":
        context.verify_mode = ssl.CERT_NONE
    return context

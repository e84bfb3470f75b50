"""The secrets that a configuration points at: from files or from systemd credentials, never from the file itself."""

import os
from pathlib import Path

from relayd.config.load import ConfigError
from relayd.config.secret_file import read_secret
from relayd.config.settings import Settings
from relayd.errors import RelaydError
from relayd.seal import SealError, parse_key


def database_password(settings: Settings) -> str | None:
    """The password for Postgres, or None where the DSN or the server's rules need none. Raises ConfigError."""
    database = settings.database
    found = _read("database.password", database.password_file, database.password_credential)
    if found is None:
        return None
    try:
        password = found.decode("utf-8").rstrip("\r\n")
    except UnicodeDecodeError:
        raise ConfigError("database.password: the file does not hold UTF-8 text") from None
    if not password:
        raise ConfigError("database.password: the file is empty")
    return password


def sealing_keys(settings: Settings) -> tuple[bytes, tuple[bytes, ...]]:
    """The current sealing key and older ones that can still open. Raises ConfigError."""
    current = _read("seal.key", settings.seal.key_file, settings.seal.key_credential)
    if current is None:
        raise ConfigError(
            "seal.key_file or seal.key_credential is required: it keeps passwords and DKIM keys sealed. "
            "Make a key with: (umask 077; relayd key new > /etc/relayd/seal.key)"
        )
    older = [
        _parsed(f"seal.older_key_files: {path}", _read_file("seal.older_key_files", path))
        for path in settings.seal.older_key_files
    ]
    return _parsed("seal.key", current), tuple(older)


def _parsed(key: str, content: bytes) -> bytes:
    try:
        return parse_key(content)
    except SealError as error:
        # Not chained: what is below quotes the key.
        described = f"{key}: {error}"
    raise ConfigError(described)


def _read(key: str, path: Path | None, credential: str | None) -> bytes | None:
    """The settings exclude each other; that was checked when they were read."""
    if path is not None:
        return _read_file(f"{key}_file", path)
    if credential is None:
        return None
    directory = os.environ.get("CREDENTIALS_DIRECTORY")
    if directory is None or not Path(directory, credential).is_file():
        raise ConfigError(
            f"{key}_credential: systemd gave no credential {credential!r}; "
            f"the unit needs LoadCredential={credential}:/path/to/file"
        )
    return _read_file(f"{key}_credential", Path(directory, credential))


def _read_file(key: str, path: Path) -> bytes:
    try:
        return read_secret(path)
    except RelaydError as error:
        raise ConfigError(f"{key}: {error}") from error

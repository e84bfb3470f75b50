"""The secrets that a configuration points at: from files or from systemd credentials, never from the file itself."""

import os
import stat
from pathlib import Path

from relayd.config.load import ConfigError
from relayd.config.settings import Settings
from relayd.seal import SealError, parse_key


def database_password(settings: Settings) -> str | None:
    """The password for Postgres, or None where the DSN or the server's rules need none. Raises ConfigError."""
    database = settings.database
    found = _read("database.password", database.password_file, database.password_credential)
    return found.decode("utf-8", "strict").rstrip("\r\n") if found is not None else None


def sealing_keys(settings: Settings) -> tuple[bytes, tuple[bytes, ...]]:
    """The current sealing key and older ones that can still open. Raises ConfigError."""
    current = _read("seal.key", settings.seal.key_file, settings.seal.key_credential)
    if current is None:
        raise ConfigError(
            "seal.key_file or seal.key_credential is required: it keeps passwords and DKIM keys sealed. "
            "Make a key with: relayd key new > /etc/relayd/seal.key && chmod 600 /etc/relayd/seal.key"
        )
    older = [_read_file("seal.older_key_files", path) for path in settings.seal.older_key_files]
    try:
        return parse_key(current), tuple(parse_key(key) for key in older)
    except SealError as error:
        raise ConfigError(f"seal.key: {error}") from error


def _read(key: str, path: Path | None, credential: str | None) -> bytes | None:
    if path is not None and credential is not None:
        raise ConfigError(f"{key}_file and {key}_credential exclude each other")
    if path is not None:
        return _read_file(f"{key}_file", path)
    if credential is None:
        return None
    directory = os.environ.get("CREDENTIALS_DIRECTORY")
    if directory is None or "/" in credential:
        raise ConfigError(
            f"{key}_credential: systemd gave no credential {credential!r}; "
            f"the unit needs LoadCredential={credential}:/path/to/file"
        )
    return _read_file(f"{key}_credential", Path(directory) / credential)


def _read_file(key: str, path: Path) -> bytes:
    try:
        with path.open("rb") as file:
            mode = os.fstat(file.fileno()).st_mode
            if stat.S_ISREG(mode) and mode & 0o007:
                raise ConfigError(f"{key}: {path} can be read by everybody on this machine; run: chmod o= {path}")
            return file.read(65536)
    except OSError as error:
        raise ConfigError(f"{key}: {path} cannot be read: {error.strerror}") from error

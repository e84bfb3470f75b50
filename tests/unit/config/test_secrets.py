"""Secrets from files and from systemd credentials: what is refused, and that nothing refused is shown."""

import traceback
from pathlib import Path

import pytest

from relayd.config.load import ConfigError
from relayd.config.secrets import database_password, sealing_keys
from relayd.config.settings import Settings
from relayd.seal import new_key, parse_key

KEY = new_key()


def settings(*, database: dict[str, object] | None = None, seal: dict[str, object] | None = None) -> Settings:
    return Settings.model_validate(
        {"database": {"dsn": "postgresql://relayd@db/relayd", **(database or {})}, "seal": seal or {}}
    )


@pytest.fixture
def credentials(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> Path:
    """As systemd gives them: read-only files for the service alone."""
    monkeypatch.setenv("CREDENTIALS_DIRECTORY", str(tmp_path))
    return tmp_path


def secret(directory: Path, name: str, content: str | bytes, mode: int = 0o400) -> Path:
    path = directory / name
    path.write_bytes(content.encode() if isinstance(content, str) else content)
    path.chmod(mode)
    return path


def test_password_from_a_file(tmp_path: Path) -> None:
    path = secret(tmp_path, "password", " pass word \r\n", 0o640)
    assert database_password(settings(database={"password_file": path})) == " pass word "


def test_password_from_a_credential(credentials: Path) -> None:
    secret(credentials, "database-password", "pässword\n")
    assert database_password(settings(database={"password_credential": "database-password"})) == "pässword"


def test_no_password_is_none() -> None:
    assert database_password(settings()) is None


def test_keys_from_a_credential_and_older_ones_from_files(credentials: Path) -> None:
    older = new_key()
    secret(credentials, "sealing-key", KEY + "\n")
    path = secret(credentials, "older", older)
    current, others = sealing_keys(settings(seal={"key_credential": "sealing-key", "older_key_files": (path,)}))
    assert current == parse_key(KEY.encode())
    assert others == (parse_key(older.encode()),)


def test_key_is_required_and_the_message_says_how_to_make_one() -> None:
    with pytest.raises(ConfigError, match=r"seal\.key_file or seal\.key_credential is required.*relayd key new"):
        sealing_keys(settings())


@pytest.mark.parametrize("mode", [0o604, 0o602, 0o601, 0o644])
def test_file_open_to_everybody_is_refused(mode: int, tmp_path: Path) -> None:
    path = secret(tmp_path, "key", KEY, mode)
    with pytest.raises(ConfigError, match=rf"seal\.key_file: {path} is open to everybody .* chmod o= {path}"):
        sealing_keys(settings(seal={"key_file": path}))


def test_older_key_file_open_to_everybody_is_refused(tmp_path: Path) -> None:
    key, older = secret(tmp_path, "key", KEY), secret(tmp_path, "older", new_key(), 0o644)
    with pytest.raises(ConfigError, match=r"seal\.older_key_files: .*older is open to everybody"):
        sealing_keys(settings(seal={"key_file": key, "older_key_files": (older,)}))


@pytest.mark.parametrize(
    ("content", "expected"),
    [
        (b"", "the sealing key is empty"),
        (b"hunter2 hunter2", "the sealing key is not base64"),
        (b"aHVudGVyMg==", "the sealing key is 7 octets in base64, not 32"),
        (b"\xff\xfehunter2", "the sealing key is not base64"),
        (b"A" * 70_000, "too long for a secret"),
    ],
)
def test_key_that_is_none_is_refused_and_not_shown(content: bytes, expected: str, tmp_path: Path) -> None:
    path = secret(tmp_path, "key", content)
    with pytest.raises(ConfigError, match=rf"seal\.key.*{expected}") as caught:
        sealing_keys(settings(seal={"key_file": path}))
    told = "".join(traceback.format_exception(caught.value))
    assert "hunter2" not in told and "aHVudGVyMg" not in told


def test_wrong_older_key_is_named(tmp_path: Path) -> None:
    key, older = secret(tmp_path, "key", KEY), secret(tmp_path, "older", "x")
    with pytest.raises(ConfigError, match=rf"seal\.older_key_files: {older}: the sealing key is"):
        sealing_keys(settings(seal={"key_file": key, "older_key_files": (older,)}))


@pytest.mark.parametrize(
    ("content", "expected"),
    [(b"\n", "the file is empty"), (b"\xff", "does not hold UTF-8 text"), (b"x" * 70_000, "long")],
)
def test_password_that_cannot_be_one_is_refused(content: bytes, expected: str, tmp_path: Path) -> None:
    path = secret(tmp_path, "password", content)
    with pytest.raises(ConfigError, match=rf"database\.password.*{expected}"):
        database_password(settings(database={"password_file": path}))


def test_missing_file_is_named(tmp_path: Path) -> None:
    path = tmp_path / "key"
    with pytest.raises(ConfigError, match=rf"seal\.key_file: {path} cannot be read: No such file"):
        sealing_keys(settings(seal={"key_file": path}))


def test_credential_outside_systemd_says_what_the_unit_needs(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.delenv("CREDENTIALS_DIRECTORY", raising=False)
    with pytest.raises(ConfigError, match=r"no credential 'sealing-key'.*LoadCredential=sealing-key:"):
        sealing_keys(settings(seal={"key_credential": "sealing-key"}))


def test_credential_that_the_unit_lacks(credentials: Path) -> None:
    with pytest.raises(ConfigError, match=r"no credential 'database-password'.*LoadCredential=database-password:"):
        database_password(settings(database={"password_credential": "database-password"}))

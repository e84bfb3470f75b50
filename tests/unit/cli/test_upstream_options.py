"""Secrets of an upstream come from files, and not from files that everybody may open."""

from pathlib import Path

import pytest

from relayd.cli.upstream_options import Options, body
from relayd.errors import RelaydError

SECRET_FILES = ("password_file", "client_key_file", "api_key_file", "oauth_client_secret_file", "refresh_token_file")


@pytest.fixture
def file(tmp_path: Path) -> Path:
    path = tmp_path / "secret"
    path.write_text("canary\n")
    path.chmod(0o640)
    return path


@pytest.mark.parametrize("option", SECRET_FILES)
def test_a_file_that_everybody_may_open_is_refused_with_the_command_that_mends_it(option: str, file: Path) -> None:
    assert body(Options(**{option: str(file)})) == {
        option.removesuffix("_file"): "canary\n" if option == "client_key_file" else "canary"
    }
    for mode in (0o644, 0o601, 0o602):
        file.chmod(mode)
        with pytest.raises(RelaydError, match=f"{file} is open to everybody .* chmod o= {file}") as caught:
            body(Options(**{option: str(file)}))
        assert "canary" not in str(caught.value)


def test_a_certificate_is_no_secret(file: Path) -> None:
    file.chmod(0o644)
    assert body(Options(client_certificate_file=str(file))) == {"client_certificate": "canary\n"}


@pytest.mark.parametrize(
    ("content", "text"),
    [(b"", "there is no password in"), (b"\xff\xfecanary", "it is not text"), (b"canary" * 20_000, "too long")],
)
def test_what_is_no_secret_is_told_without_being_shown(content: bytes, text: str, file: Path) -> None:
    file.write_bytes(content)
    with pytest.raises(RelaydError, match=text) as caught:
        body(Options(password_file=str(file)))
    assert "canary" not in str(caught.value)


def test_a_file_that_is_not_there_is_told(tmp_path: Path) -> None:
    with pytest.raises(RelaydError, match=r"cannot use the password: .*nothing cannot be read: No such file"):
        body(Options(password_file=str(tmp_path / "nothing")))

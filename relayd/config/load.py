"""Read a configuration file. A wrong one is refused whole, with every error: file, line, key, what was expected."""

import tomllib
from pathlib import Path
from typing import Any

from pydantic import ValidationError

from relayd.config.lines import key_lines, line_of
from relayd.config.settings import Settings
from relayd.errors import RelaydError


class ConfigError(RelaydError):
    """The configuration cannot be used; the text has one line for each error."""


def load(path: Path) -> Settings:
    """The settings in `path`. Raises ConfigError naming every error. No value is repeated: it may be a secret."""
    try:
        text = path.read_text(encoding="utf-8")
    except OSError as error:
        raise ConfigError(f"{path}: cannot be read: {error.strerror}; copy config.example.toml to start one") from error
    except UnicodeDecodeError as error:
        raise ConfigError(f"{path}: is not UTF-8 text") from error
    try:
        values = tomllib.loads(text)
    except tomllib.TOMLDecodeError as error:
        raise ConfigError(f"{path}: not valid TOML: {error}") from error
    return parse(values, text, str(path))


def parse(values: dict[str, Any], text: str, name: str) -> Settings:
    """Settings from parsed TOML; `text` is for line numbers and `name` for messages."""
    try:
        return Settings.model_validate(values)
    except ValidationError as error:
        raise ConfigError("\n".join(_describe(error, text, name))) from None


def _describe(error: ValidationError, text: str, name: str) -> list[str]:
    lines = key_lines(text)
    described = []
    for problem in error.errors(include_url=False, include_input=False):
        path = tuple(problem["loc"])
        where = line_of(lines, path)
        key = ".".join(str(part) for part in path) or "configuration"
        described.append((where, f"{name}:{where}: {key}: {_expected(problem['type'], problem['msg'])}"))
    return [text for _, text in sorted(dict.fromkeys(described))]


def _expected(kind: str, message: str) -> str:
    if kind == "missing":
        return "is required and missing"
    if kind == "extra_forbidden":
        return "is not a setting; see config.example.toml for those there are"
    if kind == "value_error":
        return "expected " + message.removeprefix("Value error, ")
    return message.replace("Input should be", "expected").replace("String should", "expected a text that should")

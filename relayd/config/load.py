"""Read a configuration file. A wrong one is refused whole, with every error: file, line, key, what was expected."""

import json
import re
import tomllib
from pathlib import Path
from typing import Any

from pydantic import ValidationError

from relayd.config.lines import key_lines, line_of
from relayd.config.settings import Settings
from relayd.errors import RelaydError

_POSITION = re.compile(r" \(at line (\d+), column \d+\)$")


class ConfigError(RelaydError):
    """The configuration cannot be used; the text has one line for each error."""


def load(path: Path) -> Settings:
    """The settings in `path`. Raises ConfigError naming every error. No value is repeated: it may be a secret."""
    try:
        # Some editors begin a file with a byte order mark.
        text = path.read_text(encoding="utf-8-sig")
    except OSError as error:
        raise ConfigError(f"{path}: cannot be read: {error.strerror}; copy config.example.toml to start one") from error
    except UnicodeDecodeError:
        # Not chained: the error holds the file's content.
        raise ConfigError(f"{path}: is not UTF-8 text") from None
    try:
        values = tomllib.loads(text)
    except (ValueError, RecursionError) as error:
        # Not only TOMLDecodeError: a number of thousands of digits is a plain ValueError.
        raise ConfigError(_syntax_error(str(path), text, error)) from None
    return parse(values, text, str(path))


def parse(values: dict[str, Any], text: str, name: str) -> Settings:
    """Settings from parsed TOML; `text` is for line numbers and `name` for messages."""
    try:
        # By way of JSON: strict there means what it should here, that "10" and true are no numbers, while a path may
        # still be written as a string and a tuple as a list.
        return Settings.model_validate_json(json.dumps(values, default=str), strict=True)
    except ValidationError as error:
        described = _describe(error, text, name)
    raise ConfigError("\n".join(described))


def _syntax_error(name: str, text: str, error: Exception) -> str:
    message = str(error)
    position = _POSITION.search(message)
    if position:
        return f"{name}:{position.group(1)}: not valid TOML: {message[: position.start()]}"
    if message.endswith(" (at end of document)"):
        last_line = max(text.rstrip("\n").count("\n") + 1, 1)
        return f"{name}:{last_line}: not valid TOML: {message}"
    return f"{name}: not valid TOML: a number too long or values nested too deeply"


def _describe(error: ValidationError, text: str, name: str) -> list[str]:
    lines = key_lines(text)
    described: list[tuple[int, str]] = []
    for problem in error.errors(include_url=False, include_input=False):
        path = tuple(problem["loc"])
        where = line_of(lines, path)
        key = ".".join(str(part) for part in path) or "configuration"
        described.append((where, f"{name}:{where}: {key}: {_expected(problem['type'], problem['msg'])}"))
    # By line alone, so that errors of one line keep the order of the settings.
    return [line for _, line in sorted(dict.fromkeys(described), key=lambda pair: pair[0])]


def _expected(kind: str, message: str) -> str:
    match kind:
        case "missing":
            return "is required and missing"
        case "extra_forbidden":
            return "is not a setting; see config.example.toml for those there are"
        case "value_error":
            return "expected " + message.removeprefix("Value error, ")
        case "model_type":
            return "expected a table"
        case "path_type":
            return "expected a path, as a string"
        case _:
            return message.replace("Input should be", "expected").replace(
                "String should", "expected a text that should"
            )

"""config.example.toml: it loads, it is complete, and what it calls a default is one."""

import re
import tomllib
from collections.abc import Iterator
from pathlib import Path
from typing import Any, get_args

import pytest
from pydantic import BaseModel
from pydantic.fields import FieldInfo
from pydantic_core import PydanticUndefined

from relayd.config.lines import key_lines
from relayd.config.load import load, parse
from relayd.config.settings import DeliverySettings, Settings

EXAMPLE = Path(__file__).parents[3] / "config.example.toml"
# An uncommented line for each setting, whose numbers stay those of the file.
FULL = re.sub(r"^#(?=[a-z_]+ = |\[\[)", "", EXAMPLE.read_text(), flags=re.MULTILINE)
LINES = FULL.splitlines()

Path_ = tuple[str | int, ...]


def settings_of(model: type[BaseModel], above: Path_ = ()) -> Iterator[tuple[Path_, FieldInfo]]:
    for name, field in model.model_fields.items():
        annotation = field.annotation
        inner = [each for each in (annotation, *get_args(annotation)) if isinstance(each, type)]
        section = next((each for each in inner if issubclass(each, BaseModel)), None)
        if section is None:
            yield (*above, name), field
        else:
            yield from settings_of(section, (*above, name) if section is annotation else (*above, name, 0))


SETTINGS = list(settings_of(Settings))


def shown(path: Path_) -> Any:
    value: Any = tomllib.loads(FULL)
    for part in path:
        value = value[part]
    return value


def test_it_loads_as_it_is() -> None:
    assert load(EXAMPLE).delivery == DeliverySettings()


def test_what_is_not_commented_out_must_be_set() -> None:
    lines = [line for line in EXAMPLE.read_text().splitlines() if line and line[0] not in "#["]
    assert [line.split()[0] for line in lines] == ["dsn", "password_credential", "key_credential"]


def test_it_loads_with_every_setting_that_does_not_exclude_another() -> None:
    values = tomllib.loads(FULL)
    del values["database"]["password_file"], values["seal"]["key_file"]
    values["database"]["tls"] = "verify-full"
    del values["verdicts"][0]["reason"]
    parse(values, FULL, EXAMPLE.name)


def test_it_has_no_line_for_what_is_not_a_setting() -> None:
    known = {path for path, _ in SETTINGS}
    tables = {path[:-1] for path in known}
    assert {path for path in key_lines(FULL) if isinstance(path[-1], str)} - tables - {
        ("trusted_networks",),
        ("tiers",),
        ("verdicts",),
    } == known


@pytest.mark.parametrize(("path", "field"), SETTINGS, ids=[".".join(map(str, path)) for path, _ in SETTINGS])
def test_setting_has_a_comment_and_its_default(path: Path_, field: FieldInfo) -> None:
    comment = LINES[key_lines(FULL)[path] - 2]
    assert comment.startswith("# ") and comment.endswith("."), comment
    if field.default_factory is not None:
        assert "Default: " in comment
    elif field.default is None or field.default is PydanticUndefined:
        assert "o default" in comment
    else:
        default = list(field.default) if isinstance(field.default, tuple) else field.default
        value = shown(path)
        assert value == (str(default) if isinstance(default, Path) else default)
        assert type(value) is not int or type(default) is int

"""The OpenAPI document, checked by the rules of OpenAPI 3.1 that matter to a reader."""

import re
from collections.abc import Iterator
from typing import Any

import pytest

from relayd.control.openapi import document
from relayd.control.routes import ROUTES

DOCUMENT = document(ROUTES, version="1.2.3")
METHODS = {"GET", "POST", "PATCH", "DELETE"}


def operations() -> Iterator[tuple[str, str, dict[str, Any]]]:
    for path, methods in DOCUMENT["paths"].items():
        for method, operation in methods.items():
            yield method.upper(), path, operation


def test_every_route_is_described_once() -> None:
    described = [(method, path) for method, path, _ in operations()]
    assert sorted(described) == sorted((route.method, route.path) for route in ROUTES)
    assert len(set(described)) == len(ROUTES)
    identifiers = [operation["operationId"] for _, _, operation in operations()]
    assert len(set(identifiers)) == len(identifiers)


def test_the_head_is_what_3_1_asks_for() -> None:
    assert DOCUMENT["openapi"] == "3.1.0"
    assert DOCUMENT["info"] == {"title": "relayd control", "version": "1.2.3"}


@pytest.mark.parametrize(("method", "path", "operation"), list(operations()))
def test_an_operation_is_whole(method: str, path: str, operation: dict[str, Any]) -> None:
    assert method in METHODS and operation["summary"] and path.startswith("/v1/")
    in_path = {each["name"] for each in operation["parameters"] if each["in"] == "path"}
    assert in_path == set(re.findall(r"\{(\w+)\}", path))
    for parameter in operation["parameters"]:
        assert parameter["in"] in ("path", "query") and isinstance(parameter["schema"], dict)
        assert parameter["required"] is True or parameter["in"] == "query"
    assert "requestBody" not in operation or method in ("POST", "PATCH")
    for code, response in operation["responses"].items():
        assert re.fullmatch(r"\d{3}", code) and response["description"]
        assert response["content"]["application/json"]["schema"]["$ref"]


def test_every_reference_leads_somewhere() -> None:
    for reference in _references(DOCUMENT):
        assert reference.removeprefix("#/components/schemas/") in DOCUMENT["components"]["schemas"], reference


def test_a_change_has_no_defaults_and_no_password_is_readable() -> None:
    change = DOCUMENT["paths"]["/v1/upstreams/{name}"]["patch"]["requestBody"]
    schema = change["content"]["application/json"]["schema"]
    assert change["required"] is False and "name" not in schema["properties"]
    assert not [name for name, field in schema["properties"].items() if "default" in field]
    assert "writeOnly" in str(schema["properties"]["password"])
    views = [schema for name, schema in DOCUMENT["components"]["schemas"].items() if name.endswith("View")]
    assert views and not [view for view in views if "password" in view["properties"]]


def _references(node: Any) -> Iterator[str]:
    match node:
        case {"$ref": str(reference)}:
            yield reference
        case dict():
            for child in node.values():
                yield from _references(child)
        case list():
            for child in node:
                yield from _references(child)

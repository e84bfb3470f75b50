"""The OpenAPI 3.1 document of the control socket, made from the routes and their models alone."""

import re
from collections.abc import Sequence
from typing import Any

from pydantic import BaseModel
from pydantic.json_schema import JsonSchemaMode, models_json_schema

from relayd.control.route import Octets, Route

PATH = "/v1/openapi.json"
_SCHEMAS = "#/components/schemas/"
_ERROR = {
    "type": "object",
    "required": ["error"],
    "properties": {
        "error": {
            "type": "object",
            "required": ["message", "hint"],
            "properties": {
                "message": {"type": "string"},
                "hint": {"type": ["string", "null"]},
                "fields": {
                    "type": "array",
                    "items": {
                        "type": "object",
                        "required": ["field", "message"],
                        "properties": {"field": {"type": "string"}, "message": {"type": "string"}},
                    },
                },
            },
        }
    },
}
_FAILURES = {
    "404": "The name or the path is unknown",
    "409": "Refused: nothing was changed",
    "413": "The body is too large",
    "422": "A value cannot be used",
    "500": "An error of relayd's own",
    "503": "The database cannot be reached",
}


def document(routes: Sequence[Route], *, version: str) -> dict[str, Any]:
    """The document that `GET /v1/openapi.json` answers."""
    inputs: set[tuple[type[BaseModel], JsonSchemaMode]] = {(route.request, "validation") for route in routes}
    outputs: set[tuple[type[BaseModel], JsonSchemaMode]] = {(route.response, "serialization") for route in routes}
    ordered = sorted(inputs | outputs, key=lambda pair: (pair[0].__name__, pair[1]))
    references, definitions = models_json_schema(ordered, ref_template=_SCHEMAS + "{model}")
    schemas = dict(definitions.get("$defs", {}))
    paths: dict[str, dict[str, Any]] = {}
    for route in routes:
        request = schemas[_name(references[route.request, "validation"])]
        paths.setdefault(route.path, {})[route.method.lower()] = {
            "operationId": route.handler.__name__,
            "summary": route.summary,
            **_parameters(route, request),
            "responses": {
                "200": {"description": "Done", **_answer(route, references[route.response, "serialization"])},
                **{code: _failure(text) for code, text in _FAILURES.items()},
            },
        }
    for model in {route.request for route in routes}:
        # Written into parameters and bodies above, where the path's part is told apart from the rest.
        schemas.pop(_name(references[model, "validation"]), None)
    return {
        "openapi": "3.1.0",
        "info": {"title": "relayd control", "version": version},
        "paths": paths,
        "components": {"schemas": {**schemas, "Error": _ERROR}},
    }


def _parameters(route: Route, request: dict[str, Any]) -> dict[str, Any]:
    in_path = re.findall(r"\{(\w+)\}", route.path)
    properties: dict[str, Any] = request.get("properties", {})
    required = request.get("required", [])
    parameters = [{"name": name, "in": "path", "required": True, "schema": properties[name]} for name in in_path]
    others = {name: schema for name, schema in properties.items() if name not in in_path}
    if route.method == "GET":
        parameters += [
            {"name": name, "in": "query", "required": name in required, "schema": schema}
            for name, schema in others.items()
        ]
        return {"parameters": parameters}
    if not others:
        return {"parameters": parameters}
    if route.method == "PATCH":
        # What is left out stays as it is: a default in the model says nothing.
        others = {name: {k: v for k, v in schema.items() if k != "default"} for name, schema in others.items()}
    needed = [name for name in required if name in others]
    body = {**request, "properties": others, "required": needed}
    return {"parameters": parameters, "requestBody": {"required": bool(needed), **_content(body)}}


def _answer(route: Route, reference: Any) -> dict[str, Any]:
    if route.response is Octets:
        return {"content": {"application/octet-stream": {"schema": {"type": "string", "format": "binary"}}}}
    return _content(reference)


def _content(schema: Any) -> dict[str, Any]:
    return {"content": {"application/json": {"schema": schema}}}


def _failure(description: str) -> dict[str, Any]:
    return {"description": description, **_content({"$ref": _SCHEMAS + "Error"})}


def _name(reference: Any) -> str:
    return str(reference["$ref"]).removeprefix(_SCHEMAS)

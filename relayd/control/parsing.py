"""From an HTTP request to a route's request model, or a list of everything that is wrong with it."""

import asyncio
import json
from typing import Any

from aiohttp import web
from pydantic import ValidationError

from relayd.control.route import Request, Route
from relayd.errors import BadValue

BODY_SECONDS = 30.0


class BadRequest(BadValue):
    """A request that its model does not take; `fields` pairs each bad field with what is wrong."""

    def __init__(self, fields: list[tuple[str, str]]) -> None:
        super().__init__("; ".join(f"{name}: {text}" if name else text for name, text in fields))
        self.fields = fields


async def parse(route: Route, http_request: web.Request) -> Request:
    """Raises BadRequest naming every bad field, never its value: it may be a secret."""
    path = dict(http_request.match_info)
    try:
        if route.method == "GET":
            return route.request.model_validate(path | _query(route, http_request))
        body = await _body(http_request)
        if twice := sorted(path.keys() & body.keys()):
            raise BadRequest([(name, "is given in the path already") for name in twice])
        # Strict, and by way of JSON: "5" is no number there, but a time is still written as text.
        return route.request.model_validate_json(json.dumps(path | body), strict=True)
    except RecursionError:
        raise BadRequest([("", "the request's body is nested too deeply")]) from None
    except ValidationError as error:
        raise BadRequest(
            [_explain(detail) for detail in error.errors(include_url=False, include_input=False)]
        ) from None


def _query(route: Route, http_request: web.Request) -> dict[str, Any]:
    lists = (
        {name for name, schema in route.request.model_json_schema()["properties"].items() if _takes_list(schema)}
        if route.request.model_fields
        else set()
    )
    query: dict[str, Any] = {}
    for name in dict.fromkeys(http_request.query):
        values = http_request.query.getall(name)
        if name in http_request.match_info:
            raise BadRequest([(name, "is given in the path already")])
        if len(values) > 1 and name not in lists:
            raise BadRequest([(name, "is given more than once")])
        query[name] = values if name in lists else values[0]
    return query


def _takes_list(schema: dict[str, Any]) -> bool:
    return any(kind.get("type") == "array" for kind in (schema, *schema.get("anyOf", ())))


async def _body(http_request: web.Request) -> dict[str, Any]:
    try:
        async with asyncio.timeout(BODY_SECONDS):
            raw = await http_request.read()
    except TimeoutError:
        raise BadRequest([("", f"the request's body did not come within {BODY_SECONDS:g} s")]) from None
    except web.RequestPayloadError:
        raise BadRequest([("", "the request's body is not what its Content-Encoding says")]) from None
    if not raw:
        return {}
    try:
        body = json.loads(raw)
    except (ValueError, RecursionError):
        raise BadRequest([("", "the request's body is not JSON")]) from None
    if not isinstance(body, dict):
        raise BadRequest([("", "the request's body is not a JSON object")])
    return body


def _explain(detail: Any) -> tuple[str, str]:
    name = ".".join(str(part) for part in detail["loc"])
    match detail["type"]:
        case "missing":
            return name, "is required"
        case "extra_forbidden":
            return name, "is not known here"
        case _:
            text = detail["msg"].removeprefix("Value error, ").removeprefix("Input ")
            return name, text[0].lower() + text[1:]

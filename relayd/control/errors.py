"""The one place where an error becomes an HTTP answer. What the peer need not know goes to the log."""

import logging
from collections.abc import Awaitable, Callable

import asyncpg
from aiohttp import web

from relayd.control.parsing import BadRequest
from relayd.errors import BadValue, NotFound, Refusal, RelaydError, StoreUnavailable

logger = logging.getLogger(__name__)

_Handler = Callable[[web.Request], Awaitable[web.StreamResponse]]


@web.middleware
async def answering_errors(request: web.Request, handler: _Handler) -> web.StreamResponse:
    """Every answer that is not a success has the body `{"error": {"message", "hint"}}`."""
    try:
        return await handler(request)
    except BadRequest as error:
        fields = [{"field": name, "message": text} for name, text in error.fields]
        return _answer(422, str(error), error.hint, fields)
    except NotFound as error:
        return _answer(404, str(error), error.hint)
    except BadValue as error:
        return _answer(422, str(error), error.hint)
    except Refusal as error:
        return _answer(409, str(error), error.hint)
    except StoreUnavailable as error:
        logger.warning("%s %s: %s", request.method, request.path, error)
        hint = (
            "try again in a moment" if request.method == "GET" else "it may be done all the same: look, then try again"
        )
        return _answer(503, "the database cannot be reached just now", hint)
    except (asyncpg.DeadlockDetectedError, asyncpg.SerializationError) as error:
        logger.warning("%s %s: %s", request.method, request.path, type(error).__name__)
        return _answer(503, "the database is busy with the same rows; nothing was changed", "try again")
    except RelaydError as error:
        return _answer(500, str(error), None)
    except web.HTTPRequestEntityTooLarge as error:
        return _answer(413, f"the request's body is larger than {request.client_max_size} bytes", error.reason)
    except web.HTTPException as error:
        return _answer(error.status, f"{error.reason}: {request.method} {request.path}", None)
    except Exception:
        logger.exception("%s %s failed", request.method, request.path)
        return _answer(500, "relayd could not do this because of an error of its own", "its log has the details")


def _answer(status: int, message: str, hint: str | None, fields: list[dict[str, str]] | None = None) -> web.Response:
    error: dict[str, object] = {"message": message, "hint": hint}
    if fields is not None:
        error["fields"] = fields
    return web.json_response({"error": error}, status=status)

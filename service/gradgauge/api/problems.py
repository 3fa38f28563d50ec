"""Every refusal as an RFC 9457 problem document, and the one table from errors to statuses."""

from collections.abc import Sequence
from http import HTTPStatus
from typing import Any

import structlog
from fastapi import FastAPI, Request
from fastapi.exceptions import RequestValidationError
from fastapi.routing import APIRoute, iter_route_contexts
from starlette.exceptions import HTTPException
from starlette.requests import ClientDisconnect
from starlette.responses import JSONResponse
from starlette.routing import Match, Route
from starlette.types import Scope

from gradgauge import errors
from gradgauge.schema import strict
from gradgauge.schema.resources import Problem

log = structlog.get_logger()

MEDIA_TYPE = "application/problem+json"
MOST_FAULTS = 20
_LONGEST = 200

# The nearest ancestor counts.
STATUSES: dict[type[Exception], int] = {
    errors.InvalidInput: 422,
    errors.KeyReused: 422,
    errors.UnsupportedOps: 422,
    errors.LimitExceeded: 413,
    errors.NotFound: 404,
    errors.Conflict: 409,
    errors.FetchFailed: 424,
    errors.TooManyWaiting: 429,
    errors.StorageFull: 507,
    errors.Unavailable: 503,
    errors.GradgaugeError: 500,
}
_RETRY_AFTER = {429: "10", 503: "2", 507: "60"}

# What the framework refuses by itself.
_CODES = {
    400: "bad_request",
    404: "not_found",
    405: "method_not_allowed",
    406: "not_acceptable",
    413: "body_too_large",
    415: "unsupported_media_type",
}


class Refused(HTTPException):
    """One of our errors, raised where the framework lets only its own kind pass."""

    def __init__(self, error: errors.GradgaugeError, status: int | None = None) -> None:
        super().__init__(status or status_of(error))
        self.error = error


class NotReadable(errors.InvalidInput):
    """The request's body is not what its type says, or of a type we do not read."""


def status_of(error: errors.GradgaugeError) -> int:
    """The HTTP status of an error of the tree."""
    return next(STATUSES[kind] for kind in type(error).__mro__ if kind in STATUSES)


def document(
    scope: Scope,
    status: int,
    code: str,
    detail: str,
    *,
    headers: dict[str, str] | None = None,
    **where: str | None,
) -> JSONResponse:
    """A problem document; `where` may hold node, op, limit and hint."""
    problem = Problem(
        type="about:blank",
        title=HTTPStatus(status).phrase,
        status=status,
        detail=detail,
        instance=scope.get("path", "")[:_LONGEST],
        code=code,
        request_id=scope.get("state", {}).get("request_id", ""),
        **{name: where.get(name) for name in ("node", "op", "limit", "hint")},
    )
    extra = {"Retry-After": _RETRY_AFTER[status]} if status in _RETRY_AFTER else {}
    return JSONResponse(
        problem.model_dump(mode="json"),
        status_code=status,
        media_type=MEDIA_TYPE,
        headers=extra | (headers or {}),
    )


def of_error(scope: Scope, error: errors.GradgaugeError, status: int | None = None) -> JSONResponse:
    """The problem document of an error of the tree; a rejected model brings its own reason."""
    told: dict[str, Any] = error.as_dict()
    if isinstance(error, errors.ModelRejected):
        told |= {name: error.problem.get(name) for name in ("where", "op", "limit")}
    headers = {"Retry-After": "1"} if isinstance(error, errors.KeyInFlight) else None
    return document(
        scope,
        status or status_of(error),
        error.code,
        error.message,
        headers=headers,
        node=told["where"],
        op=told["op"],
        limit=told["limit"],
        hint=told["hint"],
    )


def install(app: FastAPI) -> None:
    """Have all that goes wrong answered by a problem document."""
    app.add_exception_handler(errors.GradgaugeError, _ours)
    app.add_exception_handler(HTTPException, _http)
    app.add_exception_handler(RequestValidationError, _invalid)
    app.add_exception_handler(ClientDisconnect, _gone)
    app.add_exception_handler(Exception, _unforeseen)


async def _ours(request: Request, error: Exception) -> JSONResponse:
    assert isinstance(error, errors.GradgaugeError)  # noqa: S101 - registered for it
    return of_error(request.scope, error)


async def _http(request: Request, error: Exception) -> JSONResponse:
    assert isinstance(error, HTTPException)  # noqa: S101 - registered for it
    if isinstance(error, Refused):
        return of_error(request.scope, error.error, error.status_code)
    status = error.status_code
    details = {
        404: "there is nothing at this address",
        405: f"{request.method[:20]} is not among the methods of this address",
    }
    headers = {"Allow": ", ".join(_methods(request))} if status == 405 else error.headers
    return document(
        request.scope,
        status,
        _CODES.get(status, "refused"),
        details.get(status, str(error.detail)),
        headers=dict(headers or {}),
    )


def _methods(request: Request) -> list[str]:
    """Of all routes at this address: the framework names those of the first."""
    found: set[str] = set()
    for each in iter_route_contexts(request.app.routes):
        route = each.original_route
        if (
            isinstance(route, Route | APIRoute)
            and route.matches(request.scope)[0] is not Match.NONE
        ):
            found |= set(route.methods or ())
    return sorted(found | ({"HEAD"} if "GET" in found else set()))


async def _invalid(request: Request, error: Exception) -> JSONResponse:
    assert isinstance(error, RequestValidationError)  # noqa: S101 - registered for it
    found = error.errors()
    first = _path(found[0])
    return document(
        request.scope, 422, "invalid_request", "; ".join(_told(found)), node=first or None
    )


def _told(found: Sequence[Any]) -> list[str]:
    """One line per fault, at most MOST_FAULTS, and nothing of what was sent but its field names."""
    lines = [f"{_path(fault) or 'body'}: {_words(fault)}" for fault in found[:MOST_FAULTS]]
    more = len(found) - MOST_FAULTS
    return [*lines, f"and {more} more"] if more > 0 else lines


def _words(fault: Any) -> str:
    if fault["type"] == "unknown_field":
        context = fault["ctx"]
        return (
            f"there is no field {context['field'][:60]!r}; allowed: {', '.join(context['allowed'])}"
        )
    if fault["type"] == "missing":
        return "this is required"
    return str(fault["msg"]).removeprefix("Value error, ")[:_LONGEST]


def _path(fault: Any) -> str:
    loc = [part if isinstance(part, int) else part[:60] for part in fault["loc"][:32]]
    return strict.spell(loc[1:] if loc and loc[0] == "body" else loc)


async def _gone(request: Request, _error: Exception) -> JSONResponse:
    return document(request.scope, 400, "client_disconnected", "the client went away half way")


async def _unforeseen(request: Request, _error: Exception) -> JSONResponse:
    return document(
        request.scope,
        500,
        "internal_error",
        "the service met something unforeseen; its log has it under this request_id",
    )

"""What every request passes first: its id, its size, where it was sent and from which page."""

import re
import secrets
import time
from contextlib import AbstractContextManager, nullcontext
from urllib.parse import urlsplit

import structlog
from starlette.datastructures import Headers, MutableHeaders
from starlette.responses import Response
from starlette.types import ASGIApp, Message, Receive, Scope, Send

from gradgauge import metrics, traces
from gradgauge.api.address import LOOPBACK
from gradgauge.api.problems import document

log = structlog.get_logger()

API = "/v1/"
MOST_HEADERS = 100
MOST_HEADER_BYTES = 16 << 10
_REQUEST_ID = re.compile(r"[A-Za-z0-9._-]{1,64}")
_UNLOGGED = frozenset({"/healthz", "/readyz", "/metrics"})

# Whatever a page says, a browser is to believe our types and to load nothing from elsewhere.
_ALWAYS = {
    "X-Content-Type-Options": "nosniff",
    # With no-referrer a browser would send its own form with the Origin `null`.
    "Referrer-Policy": "same-origin",
    "Cross-Origin-Resource-Policy": "same-origin",
}


class Guard:
    """Refuses what no route should see; gives every request an id and one line in the log.

    Without keys the only thing between a web page and this service is the browser: a name that
    resolves to this machine (DNS rebinding) shows in Host, a foreign page in Origin. With keys
    any name will do, and a page of another origin is refused all the same, unless it is one of
    `origins`, which may use the API and no page.
    """

    def __init__(
        self,
        app: ASGIApp,
        *,
        loopback_only: bool = True,
        origins: frozenset[str] = frozenset(),
    ) -> None:
        self._app = app
        self._loopback_only = loopback_only
        self._origins = origins

    async def __call__(self, scope: Scope, receive: Receive, send: Send) -> None:
        """Pass an HTTP request on, or answer it with a problem document."""
        if scope["type"] != "http":
            await self._app(scope, receive, send)
            return
        headers = Headers(scope=scope)
        request_id = _request_id(headers.get("x-request-id"))
        scope.setdefault("state", {})["request_id"] = request_id
        started, status = time.perf_counter(), 500

        async def tagged(message: Message) -> None:
            nonlocal status
            if message["type"] == "http.response.start":
                status = message["status"]
                added = MutableHeaders(scope=message)
                added["X-Request-ID"] = request_id
                for name, value in _ALWAYS.items():
                    added.setdefault(name, value)
            await send(message)

        quiet = scope["path"] in _UNLOGGED
        with (
            nullcontext() if quiet else _traced(headers),
            structlog.contextvars.bound_contextvars(request_id=request_id, **traces.ids()),
        ):
            try:
                refusal = self._refusal(scope, headers)
                if scope["method"] == "HEAD" and not scope["path"].endswith("/events"):
                    # RFC 9110 9.3.2: as GET; the server, which keeps its own scope, drops the body.
                    scope = {**scope, "method": "GET"}
                await (refusal or self._app)(scope, receive, tagged)
            finally:
                seconds = time.perf_counter() - started
                route = getattr(scope.get("route"), "path", None)
                metrics.request(scope["method"], route, status, seconds)
                if not quiet:
                    _log(scope, route, status, seconds)
                    _trace(scope, route, status, request_id)

    def _refusal(self, scope: Scope, headers: Headers) -> Response | None:
        size = sum(len(name) + len(value) for name, value in scope["headers"])
        if len(scope["headers"]) > MOST_HEADERS or size > MOST_HEADER_BYTES:
            limit = f"max_headers={MOST_HEADERS}, max_header_bytes={MOST_HEADER_BYTES}"
            detail = f"the request has {len(scope['headers'])} headers of {size} bytes in all"
            return document(scope, 431, "headers_too_large", detail, limit=limit)
        if self._loopback_only and _host(headers.get("host")) not in LOOPBACK:
            return document(
                scope,
                403,
                "forbidden_host",
                "without API keys this service answers to localhost and loopback addresses only",
                hint="address it as http://127.0.0.1",
            )
        origin = headers.get("origin")
        # Behind a proxy that ends TLS the page's scheme is not ours.
        schemes = {scope["scheme"]} if self._loopback_only else {scope["scheme"], "https"}
        ours = {f"{scheme}://{headers.get('host')}" for scheme in schemes}
        if scope["path"].startswith(API):
            ours |= self._origins
        if origin is not None and origin not in ours:
            return document(
                scope,
                403,
                "forbidden_origin",
                "pages of other origins may not use this service",
                hint="whoever runs it may name this origin in GRADGAUGE_CORS_ORIGINS",
            )
        return None


def _request_id(told: str | None) -> str:
    return told if told and _REQUEST_ID.fullmatch(told) else secrets.token_hex(8)


def _traced(headers: Headers) -> AbstractContextManager[None]:
    """The request's span, of the trace that its sender is in."""
    told = headers.get("traceparent", "")
    parent = told if traces.TRACEPARENT.fullmatch(told) else None
    return traces.span("request", kind="server", parent=parent)


def _trace(scope: Scope, route: str | None, status: int, request_id: str) -> None:
    method = metrics.method(scope["method"])
    attributes: dict[str, str | int | None] = {
        "http.request.method": method,
        "http.response.status_code": status,
        "http.route": route,
        "request_id": request_id,
    }
    failed = str(status) if status >= 500 else None
    traces.note(name=f"{method} {route or metrics.OTHER}", failed=failed, **attributes)


def _host(told: str | None) -> str | None:
    """The name in a Host header without its port; None where it is not one."""
    try:
        return urlsplit(f"//{told}").hostname if told else None
    except ValueError:
        return None


def _log(scope: Scope, route: str | None, status: int, seconds: float) -> None:
    log.info(
        "request",
        method=scope["method"],
        route=route,
        path=scope["path"][:200],
        status=status,
        ms=round(1000 * seconds, 1),
    )

"""Who is asking: every address needs a key with the scope of its method, but for those named here.

Default-deny: what is not on the list is refused before any route sees it, known address or not.
"""

import hmac
import time
from collections import OrderedDict
from dataclasses import dataclass
from datetime import UTC, datetime
from http.cookies import CookieError, SimpleCookie
from urllib.parse import urlsplit

import structlog
from starlette.datastructures import Headers, MutableHeaders
from starlette.responses import Response
from starlette.types import ASGIApp, Message, Receive, Scope, Send

from gradgauge.api import problems
from gradgauge.api.rates import Rates
from gradgauge.api.sign_in import COOKIE, page
from gradgauge.api.tokens import Tokens
from gradgauge.errors import GradgaugeError
from gradgauge.store import keys
from gradgauge.store.database import Database
from gradgauge.store.ids import DEFAULT_PROJECT
from gradgauge.store.repository import audit, direct
from gradgauge.store.repository import keys as rows

log = structlog.get_logger()

OPEN = frozenset({"/healthz", "/readyz", "/openapi.json", "/docs", "/sign-in", "/sign-out"})
OPEN_BELOW = ("/static/",)
ADMIN = ("/v1/audit", "/v1/keys")
OPERATOR = frozenset({"/metrics"})
"""For admins of the project `default`, the operator's own: it tells of all projects."""
READING = frozenset({"GET", "HEAD"})
COMPUTING = frozenset(
    {"/v1/comparisons", "/v1/reports:compare", "/v1/reports:judge", "/v1/reports:render"}
)
"""What changes nothing, whatever its method: for keys of scope read."""
KEY_PREFIX = "gg_"
_RANKS = {"none": -1, "read": 0, "write": 1, "admin": 2}


@dataclass(frozen=True)
class Principal:
    """Who asks, by which key, in which project, and how much the key allows."""

    project_id: str
    name: str
    key_id: str
    scope: str


NOBODY = Principal(DEFAULT_PROJECT, "nobody", "", "admin")
"""Who asks where no keys are asked for: this machine's user."""


@dataclass(frozen=True)
class _Known:
    sha256: str
    principal: Principal
    revoked: bool
    expires_at: datetime | None
    looked_up: float


class KeyRing:
    """Keys as the database told of them at most `FRESH_S` ago, the most recent ones."""

    FRESH_S = 2.0
    MOST = 10_000

    def __init__(self) -> None:
        self._known: OrderedDict[str, _Known] = OrderedDict()

    async def principal(self, database: Database, text: str) -> Principal | None:
        """Return whose key this is; None where it opens nothing."""
        key_id = keys.id_of(text)
        if key_id is None:
            return None
        known = self._known.get(key_id)
        if known is None or time.monotonic() - known.looked_up > self.FRESH_S:
            known = await self._look_up(database, key_id, text)
        if known is None or not hmac.compare_digest(known.sha256, keys.digest(text)):
            return None
        over = known.expires_at is not None and known.expires_at <= datetime.now(UTC)
        return None if known.revoked or over else known.principal

    async def _look_up(self, database: Database, key_id: str, text: str) -> _Known | None:
        # Counted from before the question: an answer on its way is as old as its question.
        began = time.monotonic()
        async with database.direct() as connection:
            row = await direct.key(connection, key_id)
            if row is None:
                self._known.pop(key_id, None)
                return None
            if rows.lives(row) and hmac.compare_digest(row.sha256, keys.digest(text)):
                await direct.touch(connection, key_id)
        known = _Known(
            row.sha256,
            Principal(row.project_id, row.principal, row.id, row.scope),
            row.revoked_at is not None,
            row.expires_at,
            began,
        )
        self._known[key_id] = known
        self._known.move_to_end(key_id)
        while len(self._known) > self.MOST:
            self._known.popitem(last=False)
        return known


class Gate:
    """Lets in who shows a key, tells the routes who that is, and writes down what was written."""

    def __init__(
        self,
        app: ASGIApp,
        *,
        require_keys: bool,
        rates: Rates | None = None,
        tokens: Tokens | None = None,
    ) -> None:
        self._app = app
        self._tokens = tokens
        self._require_keys = require_keys
        self._rates = rates
        self._ring = KeyRing()

    async def __call__(self, scope: Scope, receive: Receive, send: Send) -> None:
        """Pass a request on with its principal in the state, or refuse it."""
        if scope["type"] != "http":
            await self._app(scope, receive, send)
            return
        if _is_open(scope["path"]):
            await self._app(scope, receive, send)
            return
        principal: Principal | None = NOBODY
        if self._require_keys:
            try:
                principal = await self._asks(scope)
            except GradgaugeError as error:
                await problems.of_error(scope, error)(scope, receive, send)
                return
        if principal is None:
            await _unknown(scope)(scope, receive, send)
            return
        await self._let_in(scope, receive, send, principal)

    async def _let_in(
        self, scope: Scope, receive: Receive, send: Send, principal: Principal
    ) -> None:
        """Pass the request of a known principal on, unless it asks too often or for too much."""
        if self._rates is not None:
            passes, told = self._rates.count(principal.key_id)
            if not passes:
                await self._rates.refusal(scope, told)(scope, receive, send)
                return
            send = _with_headers(send, told)
        scope["state"]["principal"] = principal
        if principal is NOBODY:
            await self._app(scope, receive, send)
            return
        refusal = _refusal(scope, principal)
        if refusal is not None:
            await refusal(scope, receive, send)
            return
        with structlog.contextvars.bound_contextvars(
            project=principal.project_id, key=principal.key_id
        ):
            await self._pass(scope, receive, send, principal)

    async def _asks(self, scope: Scope) -> Principal | None:
        text = credential(scope)
        database: Database = scope["state"]["services"].database
        if not text:
            return None
        if self._tokens is None or text.startswith(KEY_PREFIX):
            return await self._ring.principal(database, text)
        held = await self._tokens.holder(database, text)
        if held is None:
            return None
        claims = held.claims
        return Principal(held.project_id, claims.subject, claims.key_id, claims.scope)

    async def _pass(self, scope: Scope, receive: Receive, send: Send, principal: Principal) -> None:
        if scope["method"] in READING:
            await self._app(scope, receive, send)
            return
        status = 500

        async def noted(message: Message) -> None:
            nonlocal status
            if message["type"] == "http.response.start":
                status = message["status"]
            await send(message)

        try:
            await self._app(scope, receive, noted)
        finally:
            await _write_down(scope, principal, status)


def _with_headers(send: Send, told: dict[str, str]) -> Send:
    async def headed(message: Message) -> None:
        if message["type"] == "http.response.start":
            MutableHeaders(scope=message).update(told)
        await send(message)

    return headed


def credential(scope: Scope) -> str | None:
    """Return the key a request shows: as a bearer token, else in the cookie of a signed-in page."""
    headers = Headers(scope=scope)
    told = headers.getlist("authorization")
    if told:
        kind, _, text = told[0].partition(" ")
        return text.strip() if len(told) == 1 and kind.lower() == "bearer" else None
    return _cookie(headers)


def _cookie(headers: Headers) -> str | None:
    try:
        held = SimpleCookie(headers.get("cookie", "")).get(COOKIE)
    except CookieError:
        return None
    return held.value if held else None


def _is_open(path: str) -> bool:
    return path in OPEN or path.startswith(OPEN_BELOW)


def _needed(scope: Scope) -> str:
    """The scope a request needs."""
    if scope["path"].startswith(ADMIN) or scope["path"] in OPERATOR:
        return "admin"
    reads = scope["method"] in READING or scope["path"] in COMPUTING
    return "read" if reads else "write"


def _refusal(scope: Scope, principal: Principal) -> Response | None:
    needed = _needed(scope)
    if _RANKS[principal.scope] < _RANKS[needed]:
        return problems.document(
            scope,
            403,
            "scope_missing",
            f"this needs a key of scope {needed}; this key's scope is {principal.scope}",
            hint="ask whoever runs this service for such a key",
        )
    if scope["path"] in OPERATOR and principal.project_id != DEFAULT_PROJECT:
        return problems.document(
            scope,
            403,
            "scope_missing",
            "this tells of all projects, and needs a key of scope admin of the project default",
            hint="gradgauge keys create prometheus --scope admin",
        )
    if not _meant(scope):
        return problems.document(
            scope,
            403,
            "forbidden_origin",
            "a signed-in page writes only from this service's own pages",
            hint="send the key as Authorization: Bearer",
        )
    return None


def _meant(scope: Scope) -> bool:
    """Whether a write that a cookie allows comes from one of our pages.

    A foreign Origin never gets here (the guard); an absent one would do for a key, which no
    browser adds by itself, and not for a cookie.
    """
    headers = Headers(scope=scope)
    if scope["method"] in READING or "authorization" in headers:
        return True
    origin = headers.get("origin")
    return origin is not None and urlsplit(origin).netloc == headers.get("host")


def _unknown(scope: Scope) -> Response:
    headers = {"WWW-Authenticate": 'Bearer realm="gradgauge"'}
    if scope["method"] in READING and "text/html" in Headers(scope=scope).get("accept", ""):
        return page(status=401, headers=headers)
    return problems.document(
        scope,
        401,
        "key_required",
        "this service asks for an API key, and this request shows none that is live",
        headers=headers,
        hint="send it as Authorization: Bearer gg_..., from GRADGAUGE_API_KEY in the client",
    )


async def _write_down(scope: Scope, principal: Principal, status: int) -> None:
    """Add the write to the audit log; where that cannot be done, the service's log has it."""
    entry = audit.Written(
        project_id=principal.project_id,
        principal=principal.name,
        key_id=principal.key_id,
        method=scope["method"][:16],
        path=scope["path"],
        status=status,
        request_id=scope["state"]["request_id"],
    )
    try:
        async with scope["state"]["services"].database.direct() as connection:
            await direct.write_down(connection, entry)
    except GradgaugeError as error:
        log.error("audit_not_written", reason=error.message, **vars(entry))  # noqa: TRY400 - told whole

"""Bearer tokens of an OpenID Connect issuer: its keys looked up and kept, its tokens judged."""

import asyncio
import hashlib
import json
import time
from collections import OrderedDict
from collections.abc import Mapping
from contextlib import aclosing
from dataclasses import dataclass
from typing import Any

import structlog

from gradgauge.errors import GradgaugeError, InvalidInput, Unavailable
from gradgauge.jobs import web
from gradgauge.jobs.addresses import target
from gradgauge.settings import Settings

try:
    import jwt
except ImportError:  # pragma: no cover - an extra
    _INSTALLED = False
else:
    _INSTALLED = True

log = structlog.get_logger()

ALGORITHMS = {"RS256": "RSA", "ES256": "EC"}
"""Those taken, and the kind of key each needs: a token says which, and is not believed alone."""
MOST_TOKEN = 8 << 10
_DISCOVERY = "/.well-known/openid-configuration"
_FRESH_S = 3600.0
_AGAIN_S = 30.0
"""Least time between two looks at the issuer, whatever tokens come: a flood is not passed on."""
_ANSWER_BYTES = 256 << 10
_ANSWER_S = 10.0
_SCOPES = ("admin", "write", "read")
_LONGEST = 255
_MOST_KNOWN = 1000
_RSA_BITS = 2048
_NEAR = frozenset({"localhost", "127.0.0.1", "::1"})


class _Unfit(Exception):
    """A token that opens nothing, or an answer of the issuer that is none."""


@dataclass(frozen=True)
class Claims:
    """What a token says that counts here."""

    subject: str
    project: str | None
    """The name of its project; None where the settings ask for no such claim."""
    scope: str
    expires_at: float

    @property
    def key_id(self) -> str:
        """What stands in the place of a key's id: of one subject always the same."""
        return f"oidc_{hashlib.sha256(self.subject.encode()).hexdigest()[:32]}"


class Issuer:
    """One issuer; every answer of it is kept for an hour, and used longer where it is away."""

    def __init__(self, settings: Settings) -> None:
        """Raise InvalidInput where PyJWT is not installed, or the issuer is no https URL."""
        if not _INSTALLED:
            raise InvalidInput(
                "extra_missing",
                "GRADGAUGE_OIDC_ISSUER needs PyJWT",
                where="GRADGAUGE_OIDC_ISSUER",
                hint='pip install "gradgauge[oidc]"',
            )
        # A token's header is read before its signature is, and may be nested or numbered beyond
        # measure.
        self._unfit: tuple[type[Exception], ...] = (
            _Unfit,
            ValueError,
            TypeError,
            OverflowError,
            RecursionError,
            jwt.PyJWTError,
        )
        self._away = (GradgaugeError, TimeoutError, *self._unfit)
        self._settings = settings
        self.url = settings.oidc_issuer or ""
        _secure(self.url, "GRADGAUGE_OIDC_ISSUER")
        self._keys: dict[str, Any] = {}
        self._came: float | None = None
        self._tried: float | None = None
        self._lock = asyncio.Lock()
        self._known: OrderedDict[str, Claims] = OrderedDict()

    async def claims(self, token: str) -> Claims | None:
        """What a token says; None where it opens nothing.

        Raises:
            Unavailable: its issuer's keys are not known and cannot be had.
        """
        digest = hashlib.sha256(token.encode()).hexdigest()
        known = self._known.get(digest)
        if known is not None and known.expires_at > time.time() and self._fresh():
            return known
        self._known.pop(digest, None)
        try:
            found = await self._judged(token)
        except self._unfit as error:
            log.info("token_refused", reason=f"{type(error).__name__}: {error}"[:200])
            return None
        self._known[digest] = found
        while len(self._known) > _MOST_KNOWN:
            self._known.popitem(last=False)
        return found

    async def _judged(self, token: str) -> Claims:
        if len(token) > MOST_TOKEN:
            raise _Unfit("the token is too long")
        head = jwt.get_unverified_header(token)
        algorithm, kid = head.get("alg"), head.get("kid")
        if algorithm not in ALGORITHMS or "crit" in head:
            raise _Unfit("the token's algorithm is not taken")
        key = await self._key(kid if isinstance(kid, str) else None, ALGORITHMS[algorithm])
        skew = self._settings.oidc_skew_s
        told = jwt.decode(
            token,
            key,
            algorithms=[algorithm],
            audience=self._settings.oidc_audience,
            issuer=self.url,
            leeway=skew,
            options={"require": ["exp", "iss", "aud", "sub"]},
        )
        return self._read(told, skew)

    def _read(self, told: Mapping[str, Any], skew: float) -> Claims:
        subject, project = told["sub"], None
        if self._settings.oidc_project_claim is not None:
            project = _at(told, self._settings.oidc_project_claim)
            if not isinstance(project, str) or not 0 < len(project) <= _LONGEST:
                raise _Unfit("the token names no project")
        if not isinstance(subject, str) or not 0 < len(subject) <= _LONGEST:
            raise _Unfit("the token names nobody")
        given = _at(told, self._settings.oidc_scope_claim)
        words = (
            given.split() if isinstance(given, str) else given if isinstance(given, list) else []
        )
        prefix = self._settings.oidc_scope_prefix
        scope = next((each for each in _SCOPES if f"{prefix}{each}" in words), "none")
        return Claims(subject, project, scope, float(told["exp"]) + skew)

    async def _key(self, kid: str | None, kind: str) -> Any:
        """The issuer's key; one that is not known is asked for, at most every `_AGAIN_S`."""
        if not self._fresh() or (kid is not None and kid not in self._keys):
            await self._refresh(kid)
        if kid is None:
            fit = [key for key in self._keys.values() if key.key_type == kind]
            found = fit[0] if len(fit) == 1 else None
        else:
            found = self._keys.get(kid)
        if found is None or found.key_type != kind:
            raise _Unfit("the token's key is none of its issuer's")
        return found.key

    def _fresh(self) -> bool:
        return self._came is not None and time.monotonic() - self._came < _FRESH_S

    async def _refresh(self, kid: str | None) -> None:
        async with self._lock:
            if self._fresh() and (kid is None or kid in self._keys):
                return  # somebody else asked meanwhile
            now = time.monotonic()
            if self._tried is None or now - self._tried >= _AGAIN_S:
                self._tried = now
                try:
                    self._keys = await self._looked_up()
                    self._came = now
                except self._away as error:
                    log.warning("issuer_not_read", issuer=self.url, reason=str(error)[:200])
            if self._came is None:
                raise Unavailable(
                    "issuer_unreachable",
                    "the keys of the tokens' issuer cannot be had",
                    hint="try again shortly, or show an API key",
                )

    async def _looked_up(self) -> dict[str, Any]:
        async with asyncio.timeout(_ANSWER_S):
            found = await _json(self.url.rstrip("/") + _DISCOVERY)
            if found.get("issuer") != self.url:
                raise _Unfit("the issuer calls itself otherwise")
            where = found.get("jwks_uri")
            if not isinstance(where, str):
                raise _Unfit("the issuer names no keys")
            _secure(where, "jwks_uri")
            told = await _json(where)
        held = told.get("keys")
        if not isinstance(held, list):
            raise _Unfit("the issuer's keys are none")
        keys = [each for each in held if _fits(each)]
        made = {str(each.get("kid", number)): jwt.PyJWK(each) for number, each in enumerate(keys)}
        return {kid: key for kid, key in made.items() if _strong(key)}


def _fits(key: Any) -> bool:
    """Whether a key verifies what is taken here; a secret one never does."""
    if not isinstance(key, dict) or key.get("use", "sig") != "sig":
        return False
    fit = {"RSA": "RS256", "EC": "ES256"}.get(key.get("kty", ""))
    if fit is None or key.get("alg", fit) != fit:
        return False
    return fit == "RS256" or key.get("crv") == "P-256"


def _strong(key: Any) -> bool:
    return bool(key.key_type != "RSA" or key.key.key_size >= _RSA_BITS)


def _at(told: Mapping[str, Any], path: str) -> Any:
    """The claim of this name, else what lies at it as a path with dots."""
    if path in told:
        return told[path]
    found: Any = told
    for name in path.split("."):
        found = found.get(name) if isinstance(found, dict) else None
    return found


def _secure(url: str, where: str) -> None:
    to = target(url, where)
    if not to.secure and to.host not in _NEAR:
        raise InvalidInput(
            "invalid_url", "keys are read by https, or from this machine", where=where
        )


async def _json(url: str) -> dict[str, Any]:
    """A JSON object; the address is the operator's and may be anywhere."""
    held = bytearray()
    async with web.opened(target(url), private=True) as answer:
        if answer.status != 200:
            raise _Unfit(f"{url} answered {answer.status}")
        async with aclosing(answer.body()) as pieces:
            async for piece in pieces:
                held += piece
                if len(held) > _ANSWER_BYTES:
                    raise _Unfit(f"{url} answered too much")
    told = json.loads(held)
    if not isinstance(told, dict):
        raise _Unfit(f"{url} answered no object")
    return told

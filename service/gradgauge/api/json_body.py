"""A strict reader of JSON bodies, and routes that read theirs by it."""

import json
import math
import re
from collections.abc import Callable, Coroutine
from itertools import pairwise
from typing import Any, NoReturn

from fastapi import Request, Response
from fastapi.routing import APIRoute
from typing_extensions import override

from gradgauge.api.problems import NotReadable, Refused
from gradgauge.errors import LimitExceeded

MOST_DEPTH = 64
MOST_KEYS = 100_000
# Up to the next bracket outside of a string, or the end; possessive: keeps no way back.
_TO_BRACKET = re.compile(rb'(?:[^"\[\]{}]++|"[^"\\]*+(?:\\.[^"\\]*+)*+"?)*+([\[\]{}]?)', re.DOTALL)
_DIGITS = 40  # Python's own int() is quadratic in the digits

Handler = Callable[[Request], Coroutine[Any, Any, Response]]


class StrictRoute(APIRoute):
    """A route whose JSON body is read strictly and up to the settings' limit."""

    @override
    def get_route_handler(self) -> Handler:
        handle = super().get_route_handler()

        async def strictly(request: Request) -> Response:
            return await handle(_StrictRequest(request.scope, request.receive))

        return strictly


class _StrictRequest(Request):
    """A request whose body is JSON by its type and by the strict reader."""

    @override
    async def body(self) -> bytes:
        if not hasattr(self, "_body"):
            self._body = await read_body(self, self.state.services.settings.max_json_bytes)
            if self._body:
                require_json(self)
        return self._body

    @override
    async def json(self) -> Any:
        try:
            return read_json(await self.body())
        except NotReadable as error:
            raise Refused(error) from error


def require_json(request: Request) -> None:
    """Raise Refused (415) where the body is not JSON by its type."""
    kind = request.headers.get("content-type", "").partition(";")[0].strip().lower()
    if kind == "application/json" or kind.endswith("+json"):
        return
    said = NotReadable(
        "unsupported_media_type",
        "the body has to be JSON",
        hint="send it with Content-Type: application/json",
    )
    raise Refused(said, 415)


async def read_body(
    request: Request,
    limit: int,
    *,
    setting: str = "max_json_bytes",
    hint: str = "models go to /v1/models",
) -> bytes:
    """The whole body; raises Refused (413) where it is larger than the setting's bytes."""
    told = request.headers.get("content-length", "")
    held = bytearray()
    if not (told.isdigit() and int(told[:20]) > limit):
        async for piece in request.stream():
            held += piece
            if len(held) > limit:
                break
        else:
            return bytes(held)
    raise Refused(
        LimitExceeded(
            "body_too_large",
            f"the body is larger than {limit} bytes",
            limit=f"{setting}={limit}",
            hint=hint,
        )
    )


def read_json(text: bytes) -> Any:
    """Data of standard JSON (RFC 8259) that no two readers take for different things.

    Raises:
        NotReadable: no JSON, or NaN, an infinity, a number out of range, a key given twice, a lone
            surrogate, more than MOST_DEPTH levels.
    """
    if _depth_bound(text) > MOST_DEPTH:
        _check_depth(text)
    try:
        data = json.loads(
            text.decode("utf-8"),
            object_pairs_hook=_pairs,
            parse_constant=_constant,
            parse_float=_float,
            parse_int=_integer,
        )
    except UnicodeDecodeError as error:
        raise _bad(f"it is not UTF-8 (byte {error.start})") from error
    except json.JSONDecodeError as error:
        raise _bad(f"{error.msg}, line {error.lineno} column {error.colno}") from error
    if b"\\u" in text:
        _check_surrogates(data)
    return data


def _depth_bound(text: bytes) -> int:
    """No text is deeper than it has opening brackets."""
    return text.count(b"[") + text.count(b"{")


def _check_depth(text: bytes) -> None:
    """Count brackets outside of strings, before a recursive reader meets them."""
    depth = 0
    for found in _TO_BRACKET.finditer(text):
        depth += 1 if found[1] in {b"[", b"{"} else -1
        if depth > MOST_DEPTH:
            raise _bad(f"it is nested more than {MOST_DEPTH} levels deep")


def _check_surrogates(data: Any) -> None:
    try:
        json.dumps(data, ensure_ascii=False).encode("utf-8")
    except UnicodeEncodeError as error:
        raise _bad("it holds half of a surrogate pair, which is no text") from error


def _pairs(pairs: list[tuple[str, Any]]) -> dict[str, Any]:
    if len(pairs) > MOST_KEYS:
        raise _bad(f"an object has more than {MOST_KEYS} keys")
    found = dict(pairs)
    if len(found) != len(pairs):
        keys = sorted(key for key, _ in pairs)
        twice = next(a for a, b in pairwise(keys) if a == b)
        raise _bad(f"the key {twice[:60]!r} is given twice")
    return found


def _constant(name: str) -> NoReturn:
    raise _bad(f"{name} is not JSON")


def _float(text: str) -> float:
    number = float(text)
    if not math.isfinite(number):
        raise _bad("a number is out of range")
    return number


def _integer(text: str) -> int:
    if len(text) > _DIGITS:
        raise _bad("a number is out of range")
    return int(text)


def _bad(why: str) -> NotReadable:
    return NotReadable("invalid_json", f"the body is not JSON we read: {why}")

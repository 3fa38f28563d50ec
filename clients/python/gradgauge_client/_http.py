"""Requests to the service: retries, deadlines, and answers turned into JSON or into errors."""

import json
import random
import time
import uuid
from collections.abc import Callable, Iterator, Mapping
from contextlib import contextmanager
from copy import copy
from dataclasses import dataclass, field, replace
from datetime import UTC, datetime
from email.utils import parsedate_to_datetime
from importlib.metadata import PackageNotFoundError, version
from typing import Any, Self

import httpx2

from gradgauge_client._errors import (
    APIConnectionError,
    APIResponseError,
    APIStatusError,
    APITimeoutError,
    status_error,
)

Json = dict[str, Any]
Body = Callable[[], Iterator[bytes]]
Heard = Callable[[httpx2.Response], None]

RETRIES = 2
TIMEOUT_S = 60.0
_CONNECT_S = 10.0
_FIRST_PAUSE_S = 0.5
_LONGEST_PAUSE_S = 8.0
_LONGEST_RETRY_AFTER_S = 60.0
_RETRIED = frozenset({408, 429})
_IN_FLIGHT = "idempotency_in_flight"  # the attempt before this one is still being answered
# A wrong scheme, a proxy that refuses or a protocol we break never gets better by trying again.
_PASSING = (httpx2.NetworkError, httpx2.TimeoutException, httpx2.RemoteProtocolError)


@dataclass(frozen=True, slots=True)
class Request:
    """One call, kept so that it can be sent again as it was."""

    method: str
    path: str
    params: Mapping[str, str | int] = field(default_factory=dict)
    headers: Mapping[str, str] = field(default_factory=dict)
    content: bytes | None = None
    body: Body | None = None
    """A streamed body: called once per attempt, so that each begins at the beginning."""

    def sent_once(self) -> "Request":
        """The same request under an Idempotency-Key that all its attempts share."""
        return replace(self, headers={"Idempotency-Key": uuid.uuid4().hex} | dict(self.headers))


def posted(path: str, value: Any) -> Request:
    """A POST of `value` as JSON, safe to repeat."""
    content = json.dumps(value, allow_nan=False).encode()
    headers = {"Content-Type": "application/json"}
    return Request("POST", path, headers=headers, content=content).sent_once()


class Http:
    """One service's connections; `retries` counts attempts after the first.

    Retried are connections that fail or break, the statuses 408, 429 and 5xx, and a request whose
    first attempt is still being answered; after a pause that doubles and is drawn at random from
    its upper half, or that `Retry-After` asks for. Raises ValueError for a `url` that is none.
    """

    def __init__(
        self,
        url: str,
        api_key: str | None,
        *,
        timeout_s: float = TIMEOUT_S,
        retries: int = RETRIES,
        pause: Callable[[float], None] = time.sleep,
    ) -> None:
        headers = {"User-Agent": f"gradgauge-client/{_version()}"}
        if api_key:
            headers["Authorization"] = f"Bearer {api_key}"
        self.url = _checked(url)
        self.pause = pause
        self._retries = retries
        self._limits = _limits(timeout_s)
        self._heard: Heard | None = None
        self._client = httpx2.Client(base_url=self.url, headers=headers, timeout=self._limits)

    def varied(
        self,
        *,
        timeout_s: float | None = None,
        retries: int | None = None,
        heard: Heard | None = None,
    ) -> Self:
        """The same connections with other patience, or telling `heard` of every good answer."""
        made = copy(self)
        held = {
            "_limits": None if timeout_s is None else _limits(timeout_s),
            "_retries": retries,
            "_heard": heard,
        }
        vars(made).update({name: value for name, value in held.items() if value is not None})
        return made

    def close(self) -> None:
        """Close the connections."""
        self._client.close()

    def send(self, request: Request) -> httpx2.Response:
        """The answer, read whole.

        Raises:
            APIConnectionError: no answer, after all retries.
            APIStatusError: an answer of 300 or more; of its subclass by status.
        """
        with self._told():
            for attempt in range(self._retries):
                answer = self._attempt(request, attempt)
                if answer is not None:
                    return answer
            return self._sent(request)

    def json(self, request: Request) -> Any:
        """The answer's JSON; raises APIResponseError where it is none, else what `send` does."""
        answer = self.send(request)
        try:
            return answer.json()
        except ValueError as bad:
            raise APIResponseError(
                f"{answer.url} answered {answer.status_code} with something that is not JSON: "
                "is this a gradgauge service?"
            ) from bad

    @contextmanager
    def stream(self, request: Request, *, read_s: float) -> Iterator[httpx2.Response]:
        """The answer with its body still to be read, each piece within `read_s` seconds.

        It is sent once. Raises what `send` raises, also while the body is read.
        """
        with self._told():
            answer = self._sent(request, read_s)
            try:
                yield answer
            finally:
                answer.close()

    def _attempt(self, request: Request, attempt: int) -> httpx2.Response | None:
        """The answer, or None where a next attempt may fare better, after the pause before it."""
        try:
            return self._sent(request)
        except _PASSING:
            self.pause(backoff(attempt))
        except APIStatusError as error:
            wait = _pause_before_retry(error, attempt)
            if wait is None:
                raise
            self.pause(wait)
        return None

    def _sent(self, request: Request, read_s: float | None = None) -> httpx2.Response:
        """The answer: streamed where `read_s` bounds its pieces, else read whole."""
        built = self._built(request, read_s)
        answer = self._client.send(built, stream=read_s is not None)
        if answer.status_code < 300:
            if self._heard is not None:
                self._heard(answer)
            return answer
        raise _refusal(answer)

    def _built(self, request: Request, read_s: float | None) -> httpx2.Request:
        built = self._client.build_request(
            request.method,
            request.path,
            params=dict(request.params),
            headers=dict(request.headers),
            content=request.body() if request.body else request.content,
            timeout=self._limits,
        )
        if read_s is not None:
            built.extensions["timeout"] = built.extensions["timeout"] | {"read": read_s}
        return built

    @contextmanager
    def _told(self) -> Iterator[None]:
        """The library's errors as ours, with the URL in them."""
        try:
            yield
        except httpx2.TimeoutException as late:
            raise APITimeoutError(f"{self.url} did not answer in time: {_said(late)}") from late
        except httpx2.TransportError as failed:
            raise APIConnectionError(f"cannot reach {self.url}: {_said(failed)}") from failed
        except httpx2.DecodingError as garbled:
            raise APIResponseError(f"{self.url} sent a garbled answer: {garbled}") from garbled


def _limits(timeout_s: float) -> httpx2.Timeout:
    return httpx2.Timeout(timeout_s, connect=min(timeout_s, _CONNECT_S))


def _checked(url: str) -> str:
    try:
        parsed = httpx2.URL(url)
    except (httpx2.InvalidURL, ValueError) as bad:
        raise ValueError(f"{url!r} is not a URL: {bad}") from bad
    if parsed.scheme not in {"http", "https"} or not parsed.host or (parsed.port or 0) > 65535:
        raise ValueError(f"{url!r} is not the URL of a service, such as http://127.0.0.1:8000")
    return url.rstrip("/")


def _pause_before_retry(error: APIStatusError, attempt: int) -> float | None:
    """Seconds to wait before the same request may fare better; None where it never will.

    One that has to wait longer than anybody would is told at once instead.
    """
    passing = error.status in _RETRIED or error.status >= 500 or error.code == _IN_FLIGHT
    if not passing:
        return None
    asked = error.retry_after_s
    if asked is None:
        return backoff(attempt)
    return asked if asked <= _LONGEST_RETRY_AFTER_S else None


def _refusal(answer: httpx2.Response) -> APIStatusError:
    """The error an answer stands for; its body is read here."""
    try:
        problem = json.loads(answer.read())
    except (ValueError, httpx2.DecodingError):
        problem = {}
    finally:
        answer.close()
    known: Json = problem if isinstance(problem, dict) else {}
    request_id = known.get("request_id") or answer.headers.get("x-request-id")
    error = status_error(answer.status_code, known, request_id)
    error.retry_after_s = _retry_after(answer.headers)
    return error


def _retry_after(headers: Mapping[str, str]) -> float | None:
    """Seconds `Retry-After` asks for (RFC 9110 10.2.3: seconds or a date)."""
    told = headers.get("retry-after", "").strip()
    if told.isascii() and told.isdigit():
        return float(told)
    try:
        at = parsedate_to_datetime(told)
    except ValueError:
        return None
    return max(0.0, (at.replace(tzinfo=at.tzinfo or UTC) - datetime.now(UTC)).total_seconds())


def backoff(attempt: int) -> float:
    """Seconds to wait after the attempt of this number, counted from 0."""
    longest = min(_FIRST_PAUSE_S * 2.0**attempt, _LONGEST_PAUSE_S)
    return random.uniform(longest / 2, longest)  # noqa: S311 - to spread retries, not to hide


def _said(failed: Exception) -> str:
    return str(failed) or type(failed).__name__


def _version() -> str:
    try:
        return version("gradgauge-client")
    except PackageNotFoundError:
        return "0"

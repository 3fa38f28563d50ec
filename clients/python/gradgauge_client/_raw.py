"""What lies under a call: the service's answers as they came, beside what was made of them."""

from collections.abc import Callable, Iterator, Mapping
from dataclasses import dataclass, field
from functools import reduce
from itertools import chain
from typing import Any, Protocol

import httpx2

from gradgauge_client._http import Heard

_END = object()


@dataclass(frozen=True, slots=True)
class RawResponse:
    """The answers a call was made of, in their order; the properties are the last one's."""

    responses: tuple[httpx2.Response, ...]
    _parsed: Any

    def parse(self) -> Any:
        """What the call itself returns."""
        return self._parsed

    @property
    def http_response(self) -> httpx2.Response:
        """The answer; the body of a download has gone to its file."""
        return self.responses[-1]

    @property
    def status_code(self) -> int:
        """Below 300: what is refused raises as ever."""
        return self.http_response.status_code

    @property
    def headers(self) -> Mapping[str, str]:
        """By name in any case."""
        return self.http_response.headers

    @property
    def request_id(self) -> str | None:
        """What the service's log calls the request."""
        return self.http_response.headers.get("x-request-id")

    @property
    def text(self) -> str:
        """The body."""
        return self.http_response.text


class Hearing(Protocol):
    """A client that can be made to tell of its answers."""

    def _hearing(self, heard: Heard) -> Any:
        """The same client, telling `heard`."""


class RawCalls:
    """A client, or a part of one, whose calls return `RawResponse`: same names, same arguments.

    Of a list the first page is asked for at once.
    """

    def __init__(self, client: Hearing, *path: str) -> None:
        self._client = client
        self._path = path

    def __getattr__(self, name: str) -> Any:
        """A call, or a part with calls of its own."""
        if name.startswith("_"):
            raise AttributeError(name)
        held = reduce(getattr, (*self._path, name), self._client)
        if callable(held):
            return self._called(name)
        return RawCalls(self._client, *self._path, name)

    def _called(self, name: str) -> Callable[..., RawResponse]:
        def call(*args: Any, **kwargs: Any) -> RawResponse:
            record = _Record()
            client = self._client._hearing(record.heard)  # noqa: SLF001 - its own client
            parsed = reduce(getattr, (*self._path, name), client)(*args, **kwargs)
            if isinstance(parsed, Iterator):
                first = next(parsed, _END)
                parsed = iter(()) if first is _END else chain((first,), parsed)
            answers = record.ended()
            if not answers:
                raise TypeError(f"{name} asks the service nothing: call it on the client itself")
            return RawResponse(answers, parsed)

        return call


@dataclass(slots=True)
class _Record:
    """Answers until the call has ended: what it returned may go on asking."""

    answers: list[httpx2.Response] = field(default_factory=list)
    open: bool = True

    def heard(self, answer: httpx2.Response) -> None:
        if self.open:
            self.answers.append(answer)

    def ended(self) -> tuple[httpx2.Response, ...]:
        self.open = False
        return tuple(self.answers)

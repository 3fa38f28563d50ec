"""An analysis's steps as they happen: Server-Sent Events, resumed where they break off."""

import time
from collections.abc import Iterable, Iterator
from dataclasses import dataclass, field

from pydantic import ValidationError

from gradgauge_client._errors import AnalysisTimeout, APIConnectionError, APIResponseError
from gradgauge_client._http import Http, Request, backoff
from gradgauge_client._models import AnalysisEvent

FINAL = frozenset({"succeeded", "failed", "cancelled"})
_SILENCE_S = 20.0  # the service says something every 15 s
_BREAKS = 3  # in a row, without an event in between


@dataclass(slots=True)
class Deadline:
    """The moment a caller's patience ends, on the monotonic clock; None is never."""

    analysis_id: str
    timeout_s: float | None
    _at: float = field(init=False)

    def __post_init__(self) -> None:
        self._at = time.monotonic() + (float("inf") if self.timeout_s is None else self.timeout_s)

    def left(self) -> float:
        """Seconds left; raises AnalysisTimeout where there are none."""
        seconds = self._at - time.monotonic()
        if seconds <= 0:
            fault = {
                "code": "wait_timeout",
                "message": f"analysis {self.analysis_id} did not end within {self.timeout_s:g} s",
                "hint": "it goes on at the service: wait longer, or cancel it",
            }
            raise AnalysisTimeout(fault, self.analysis_id)
        return seconds


def events(http: Http, deadline: Deadline, *, after: int = 0) -> Iterator[AnalysisEvent]:
    """The analysis's events above the id `after`, the last one with its end.

    Raises:
        AnalysisTimeout: the deadline has passed.
        APIConnectionError: the stream broke off `_BREAKS` times in a row without a word.
        APIResponseError: what came is not a stream of events.
        APIStatusError: the service refused.
    """
    breaks = 0
    while breaks < _BREAKS:
        try:
            for event in _stream(http, deadline, after):
                breaks, after = 0, event.id
                yield event
                if event.state in FINAL:
                    return
        except APIConnectionError:
            deadline.left()
        http.pause(min(backoff(breaks), deadline.left()))
        breaks += 1
    raise APIConnectionError(f"{http.url} keeps breaking off its events")


def _stream(http: Http, deadline: Deadline, after: int) -> Iterator[AnalysisEvent]:
    headers = {"Accept": "text/event-stream", "Cache-Control": "no-store"}
    if after:
        headers["Last-Event-ID"] = str(after)
    request = Request("GET", f"/v1/analyses/{deadline.analysis_id}/events", headers=headers)
    with http.stream(request, read_s=min(_SILENCE_S, deadline.left())) as answer:
        kind = answer.headers.get("content-type", "").partition(";")[0].strip().lower()
        if kind != "text/event-stream":
            raise APIResponseError(f"{answer.url} sent {kind or 'nothing'} instead of events")
        for data in _data(_lines(answer.iter_lines(), deadline)):
            try:
                yield AnalysisEvent.model_validate_json(data)
            except ValidationError as bad:
                raise APIResponseError(f"{answer.url} sent an event that is none") from bad


def _lines(lines: Iterable[str], deadline: Deadline) -> Iterator[str]:
    """Each line in turn, as long as there is time: a comment keeps a quiet stream alive."""
    for line in lines:
        deadline.left()
        yield line


def _data(lines: Iterable[str]) -> Iterator[str]:
    """The data of each event (HTML standard 9.2.6); what is cut off before a blank line is none."""
    held: list[str] = []
    for line in lines:
        name, _, value = line.partition(":")
        if not line and held:
            yield "\n".join(held)
            held = []
        elif name == "data":
            held.append(value.removeprefix(" "))

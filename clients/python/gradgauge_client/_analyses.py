"""Analyses: asked for, watched, waited for, read."""

import time
from collections.abc import Callable, Iterator, Mapping
from pathlib import Path
from typing import Any, Self

from pydantic import PrivateAttr

from gradgauge_client import _models, _watch
from gradgauge_client._errors import (
    AnalysisCancelled,
    AnalysisFailed,
    APIConnectionError,
    APIResponseError,
    APIStatusError,
    NoSpecError,
    ServerError,
    UnprocessableModel,
)
from gradgauge_client._exit import INVALID, of_fault
from gradgauge_client._http import Http, Request, posted
from gradgauge_client._kept import Reports
from gradgauge_client._models import (
    AnalysisEvent,
    Comparison,
    Evaluation,
    LayerBlock,
    LayerGraph,
    LayerPage,
    Spectra,
)
from gradgauge_client._report import Report, reported
from gradgauge_client._sources import Models
from gradgauge_client._wire import validated

Json = dict[str, Any]
OnProgress = Callable[[str, float], None]

_PATH = "/v1/analyses"
_YAML = frozenset({".yaml", ".yml"})
_FIRST_POLL_S = 0.1
_LONGEST_POLL_S = 2.0
_LONGEST_OUTAGE_S = 30.0  # a service that is started again is back by then


class Analysis(_models.Analysis):
    """An analysis as the service last told it, and what can be done with it."""

    _http: Http = PrivateAttr()

    def _of(self, http: Http) -> Self:
        self._http = http
        return self

    def refresh(self) -> "Analysis":
        """The analysis as it is now."""
        return _read(self._http, self._http.json(Request("GET", f"{_PATH}/{self.id}")))

    def cancel(self) -> "Analysis":
        """Stop it, queued or running; one that has ended stays as it is."""
        return _read(self._http, self._http.json(Request("POST", f"{_PATH}/{self.id}:cancel")))

    def events(self, *, timeout: float | None = None, after: int = 0) -> Iterator[AnalysisEvent]:
        """Its steps above the id `after` as they happen, the last one with its end.

        Raises:
            AnalysisTimeout: it has not ended within `timeout` seconds.
            APIConnectionError: the stream keeps breaking off.
            APIStatusError: the service refused.
        """
        yield from _watch.events(self._http, _watch.Deadline(self.id, timeout), after=after)

    def wait(
        self, timeout: float | None = None, on_progress: OnProgress | None = None
    ) -> "Analysis":
        """The analysis once it has succeeded.

        `on_progress` is told the stage and the share done, 0 to 1. Where the service's events do
        not come through (some proxies hold them back), it is asked from time to time instead; a
        service that is away for half a minute is waited for.

        Raises:
            AnalysisTimeout: it has not ended within `timeout` seconds; it goes on.
            UnprocessableModel: its model or spec is not valid.
            AnalysisFailed: it ended without a report.
            AnalysisCancelled: somebody stopped it.
        """
        tell = on_progress or (lambda _stage, _share: None)
        if self.state in _watch.FINAL:
            return succeeded(self)
        deadline = _watch.Deadline(self.id, timeout)
        try:
            for event in _watch.events(self._http, deadline):
                tell(event.stage or event.state, event.progress)
        except (APIConnectionError, APIResponseError, APIStatusError):
            return succeeded(self._poll(deadline, tell))
        return succeeded(self.refresh())

    def report(self) -> Report:
        """Its report; raises ConflictError or NotFoundError where there is none."""
        return reported(self.report_json(), self)

    def apply(self, recommendation_id: str) -> "Analysis":
        """Have a recommendation of its report applied to a copy of what was analysed.

        Once what is returned has succeeded, its `application.model_id` names the new model.
        Raises NotFoundError, or ConflictError where the recommendation changes no model.
        """
        path = f"{_PATH}/{self.id}/recommendations/{recommendation_id}:apply"
        return _read(self._http, self._http.json(Request("POST", path)))

    def save_applied(self, path: Path | str) -> Path:
        """Write what this analysis applied to `path`: the model as ONNX, to a .yaml the spec.

        Raises NoSpecError where a spec is asked for and has no words for the change, OSError
        where the file cannot be written.
        """
        path = Path(path)
        if self.application is None or self.application.model_id is None:
            raise APIResponseError(f"{self.id} applied no recommendation and made no model")
        if path.suffix.lower() not in _YAML:
            return Models(self._http).download(self.application.model_id, path)
        spec = self.application.spec
        if spec is None or spec.text is None:
            why = "; ".join(spec.unsaid) if spec is not None else ""
            raise NoSpecError(
                f"cannot write {path}: a spec has no words for it: "
                f"{why or 'the model is of no spec'}; ask for .onnx"
            )
        path.write_text(spec.text, encoding="utf-8")
        return path

    def _applied(self, recommendation_id: str, path: Path, timeout: float | None) -> Path:
        return self.apply(recommendation_id).wait(timeout).save_applied(path)

    def report_json(self) -> Json:
        """Its report as the service sent it."""
        told = self._http.json(self._report("json"))
        if not isinstance(told, dict):
            raise APIResponseError(f"the report of {self.id} is not an object")
        return told

    def render(self, form: str, *, path: str | None = None) -> str:
        """Its report in a format of the service's: `html`, `markdown`, `sarif` and the others.

        Formats of pipelines tell the model's `path` in its repository, else its name.
        """
        return self._http.send(self._report(form, path)).text

    def layers(self, **filters: str | int) -> Iterator[LayerBlock]:
        """Its report's layers, page after page; `filters` such as `role="origin"`, `op="Gemm"`."""
        params: dict[str, str | int] = dict(filters)
        while True:
            answer = self._http.json(Request("GET", f"{_PATH}/{self.id}/layers", params=params))
            page = validated(LayerPage, answer)
            if not isinstance(page.items, list):
                raise APIResponseError("`layers` reads rows: leave `layout` out")
            yield from page.items
            if page.next_cursor is None:
                return
            params["cursor"] = page.next_cursor

    def graph(self) -> LayerGraph:
        """Its report's layers as nodes, and edges from each layer to those that read it."""
        return validated(LayerGraph, self._http.json(Request("GET", f"{_PATH}/{self.id}/graph")))

    def spectra(self) -> Spectra:
        """Its report's singular values, curves and model-level measurements."""
        return validated(Spectra, self._http.json(Request("GET", f"{_PATH}/{self.id}/spectra")))

    def _written(self, report: Json, form: str, path: str | None) -> str:
        """`report`, which need not be as the service has it, in a format of the service's."""
        return Reports(self._http).render([report], form, paths=None if path is None else [path])

    def compare(
        self, head: str, *, policy: str | None = None, only_new: bool = False
    ) -> Comparison:
        """What the analysis `head` changed against this one; as `Client.compare`."""
        return compared(self._http, self.id, head, policy=policy, only_new=only_new)

    def gate(self, policy: str | None = None) -> Evaluation:
        """Its report judged by a stored policy, as of today; else by `default`."""
        params = {} if policy is None else {"policy": policy}
        request = Request("GET", f"{_PATH}/{self.id}/gate", params=params)
        return validated(Evaluation, self._http.json(request))

    def _report(self, form: str, path: str | None = None) -> Request:
        params = {"format": form} if path is None else {"format": form, "path": path}
        return Request("GET", f"{_PATH}/{self.id}/report", params=params)

    def _poll(self, deadline: _watch.Deadline, tell: OnProgress) -> "Analysis":
        pause, heard = _FIRST_POLL_S, time.monotonic()
        while True:
            try:
                now = self.refresh()
                heard = time.monotonic()
                tell(now.stage or now.state, now.progress)
                if now.state in _watch.FINAL:
                    return now
            except (APIConnectionError, ServerError):
                if time.monotonic() - heard > _LONGEST_OUTAGE_S:
                    raise
            self._http.pause(min(pause, deadline.left()))
            pause = min(2 * pause, _LONGEST_POLL_S)


class Analyses:
    """The project's analyses."""

    def __init__(self, http: Http) -> None:
        self._http = http

    def create(
        self,
        *,
        model_id: str | None = None,
        architecture_id: str | None = None,
        architecture: Mapping[str, Any] | None = None,
        options: Mapping[str, Any] | None = None,
        fresh: bool = False,
    ) -> Analysis:
        """Ask for an analysis of a model, a stored architecture, or one given here.

        Unless it has to be `fresh`, an earlier one with the same content and options may answer.

        Raises:
            UnprocessableModel: the model was rejected, or the architecture is not valid.
            UnprocessableEntityError: an option is wrong.
        """
        source = {
            "model_id": model_id,
            "architecture_id": architecture_id,
            "architecture": None if architecture is None else dict(architecture),
        }
        body: Json = {name: value for name, value in source.items() if value is not None}
        body["options"] = dict(options or {})
        if fresh:
            body["fresh"] = True
        return _read(self._http, self._http.json(posted(_PATH, body)))

    def retrieve(self, analysis_id: str) -> Analysis:
        """The analysis; raises NotFoundError where the project holds none of this id."""
        return _read(self._http, self._http.json(Request("GET", f"{_PATH}/{analysis_id}")))

    def cancel(self, analysis_id: str) -> Analysis:
        """Stop it, queued or running; one that has ended stays as it is."""
        path = f"{_PATH}/{analysis_id}:cancel"
        return _read(self._http, self._http.json(Request("POST", path)))

    def list(self, **filters: str) -> Iterator[Analysis]:
        """All analyses, newest first, page after page; `filters` such as `state="failed"`."""
        params: dict[str, str | int] = dict(filters)
        while True:
            answer = self._http.json(Request("GET", _PATH, params=params))
            page = validated(_models.AnalysisPage, answer)
            for item in page.items:
                yield _read(self._http, item.model_dump())
            if page.next_cursor is None:
                return
            params["cursor"] = page.next_cursor


def compared(http: Http, base: str, head: str, *, policy: str | None, only_new: bool) -> Comparison:
    """What the analysis `head` changed against the analysis `base`."""
    body = {"base": base, "head": head, "policy": policy, "only_new": only_new}
    return validated(Comparison, http.json(posted("/v1/comparisons", body)))


def _read(http: Http, value: Any) -> Analysis:
    return validated(Analysis, value)._of(http)  # noqa: SLF001 - its maker


def succeeded(analysis: Analysis) -> Analysis:
    """The analysis, which has ended, if it has a report; else raises what it ended with."""
    if analysis.state == "succeeded":
        return analysis
    if analysis.state == "cancelled":
        fault = {"code": "cancelled", "message": f"analysis {analysis.id} was cancelled"}
        raise AnalysisCancelled(fault, analysis.id)
    told = analysis.error.model_dump() if analysis.error else {"message": "no reason recorded"}
    refused = of_fault(told.get("code")) == INVALID
    raise (UnprocessableModel if refused else AnalysisFailed)(told, analysis.id)

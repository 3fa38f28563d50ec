"""The service, from Python: upload, analyse, wait, judge."""

import os
from collections.abc import Iterator, Mapping
from contextlib import contextmanager
from copy import copy
from pathlib import Path
from typing import Any, Literal, Self

from gradgauge_client._analyses import Analyses, Analysis, OnProgress, compared
from gradgauge_client._errors import (
    AnalysisError,
    AnalysisFailed,
    APIStatusError,
    ConflictError,
    ContentTooLargeError,
    GateFailed,
    UnprocessableEntityError,
    UnprocessableModel,
)
from gradgauge_client._exit import INVALID, of_fault
from gradgauge_client._gate import regate
from gradgauge_client._http import RETRIES, TIMEOUT_S, Heard, Http, Request
from gradgauge_client._kept import Reports
from gradgauge_client._keys import Keys
from gradgauge_client._models import Capabilities, Comparison
from gradgauge_client._module import file_of
from gradgauge_client._policies import Policies
from gradgauge_client._raw import RawCalls
from gradgauge_client._report import Report, reported
from gradgauge_client._rules import Rules
from gradgauge_client._sources import Architectures, DataFiles, Models, is_spec
from gradgauge_client._webhooks import Webhooks
from gradgauge_client._wire import validated

FailOn = Literal["low", "medium", "high", "critical", "never"]
DEFAULT_URL = "http://127.0.0.1:8000"
_REJECTED = "model_rejected"


class Client:
    """One service and one project in it; closes its connections as a context manager.

    Without `url` and `api_key` it reads GRADGAUGE_URL and GRADGAUGE_API_KEY, and asks a service on
    this machine. `timeout` bounds each wait for the network in seconds, not an analysis. Raises
    ValueError for a `url` that is none.
    """

    def __init__(
        self,
        url: str | None = None,
        *,
        api_key: str | None = None,
        timeout: float = TIMEOUT_S,
        retries: int = RETRIES,
    ) -> None:
        http = Http(
            url or environment("GRADGAUGE_URL") or DEFAULT_URL,
            api_key or environment("GRADGAUGE_API_KEY"),
            timeout_s=timeout,
            retries=retries,
        )
        self._bind(http)

    def _bind(self, http: Http) -> None:
        self._http = http
        self.models = Models(self._http)
        self.architectures = Architectures(self._http)
        self.data = DataFiles(self._http)
        self.analyses = Analyses(self._http)
        self.policies = Policies(self._http)
        self.reports = Reports(self._http)
        self.rules = Rules(self._http)
        self.keys = Keys(self._http)
        self.webhooks = Webhooks(self._http)

    def __enter__(self) -> Self:
        return self

    def __exit__(self, *_: object) -> None:
        self.close()

    def close(self) -> None:
        """Close the connections."""
        self._http.close()

    def with_options(self, *, timeout: float | None = None, retries: int | None = None) -> Self:
        """The same service over the same connections, with another patience for each request.

        What is left out stays; closing either closes both.
        """
        return self._over(self._http.varied(timeout_s=timeout, retries=retries))

    @property
    def with_raw_response(self) -> RawCalls:
        """The same calls, each returning a `RawResponse`: `.headers`, `.text`, `.parse()`."""
        return RawCalls(self)

    def _hearing(self, heard: Heard) -> Self:
        return self._over(self._http.varied(heard=heard))

    def _over(self, http: Http) -> Self:
        made = copy(self)
        made._bind(http)  # noqa: SLF001 - its own kind
        return made

    def check(
        self,
        path: Path | str | Any,
        example_inputs: Any = None,
        *,
        fail_on: FailOn | None = None,
        timeout: float | None = None,
        on_progress: OnProgress | None = None,
        **options: Any,
    ) -> Report:
        """The report of the model or spec at `path`, which the service need not know yet.

        `path` may be a `torch.nn.Module`, which is exported to ONNX as it trains: by one forward
        pass of `example_inputs` (a tensor, a sequence of arguments, or a mapping of them by name),
        with nothing folded. The module is left as it was.

        `fail_on` is the severity from which on a finding fails the gate; without it the service's
        own gate decides. `options` are the analysis's, such as `profile="quick"`; `data` may be
        the path of an .npz file, which is uploaded unless the service holds it.

        Raises:
            GateFailed: the report fails the gate or is inconclusive; carries `.report`.
            UnprocessableModel: it is not a valid model or spec.
            UnprocessableEntityError: an option is wrong.
            AnalysisFailed: the analysis ended without a report.
            AnalysisTimeout: it has not ended within `timeout` seconds; it goes on.
            APIConnectionError: the service cannot be reached.
            APIStatusError: the service refused.
            TypeError: a module without inputs that its forward takes, or neither path nor module.
            GradgaugeError: torch cannot export the module.
        """
        analysis = self.submit(path, options, example_inputs).wait(timeout, on_progress)
        return judged(analysis.report_json(), fail_on, analysis)

    def compare(
        self, base: str, head: str, *, policy: str | None = None, only_new: bool = False
    ) -> Comparison:
        """What the analysis `head` changed against the analysis `base`, both by id, and the gate.

        The gate is that of a stored `policy`, else of `default`; with `only_new` findings that
        base had too do not count. Raises NotFoundError, or ConflictError where one has no report.
        """
        return compared(self._http, base, head, policy=policy, only_new=only_new)

    def capabilities(self) -> Capabilities:
        """What the service can do: ops, formats, limits, versions."""
        return validated(Capabilities, self._http.json(Request("GET", "/v1/capabilities")))

    def submit(
        self,
        path: Path | str | Any,
        options: Mapping[str, Any] | None = None,
        example_inputs: Any = None,
    ) -> Analysis:
        """The analysis of the model, spec or module at `path`, asked for and not waited for.

        Raises what `check` raises for what cannot be analysed.
        """
        with file_of(path, example_inputs) as file:
            return self._submitted(file, dict(options or {}))

    def _submitted(self, path: Path, options: dict[str, Any]) -> Analysis:
        if isinstance(options.get("data"), Path) or Path(options.get("data") or "").is_file():
            options["data"] = self.data.upload(options["data"]).id
        if is_spec(path):
            with _refusals():
                held = self.architectures.create(path)
            return self.analyses.create(architecture_id=held.id, options=options)
        with _refusals():
            model = self.models.upload(path)
        try:
            return self.analyses.create(model_id=model.id, options=options)
        except ConflictError as refused:
            if refused.code != _REJECTED:
                raise
            problem = self.models.retrieve(model.id).problem
            raise unusable(problem.model_dump() if problem else fault_of(refused)) from refused


def judged(told: dict[str, Any], fail_on: FailOn | None, analysis: Analysis | None) -> Report:
    """The report that was told, of `analysis` or of none; raises GateFailed where it fails."""
    told = regate(told, fail_on) if fail_on else told
    report = reported(told, analysis, gate_is_ours=fail_on is not None)
    if report.gate and not report.gate.passed:
        raise GateFailed(report)
    return report


@contextmanager
def _refusals() -> Iterator[None]:
    """What the service says of a model or a spec that it does not take, as an analysis's fault."""
    try:
        yield
    except (UnprocessableEntityError, ContentTooLargeError) as refused:
        raise unusable(fault_of(refused)) from refused


def unusable(fault: dict[str, Any]) -> AnalysisError:
    """The error that a fault stands for: of the input, or of the analysis."""
    invalid = of_fault(fault.get("code")) == INVALID
    return (UnprocessableModel if invalid else AnalysisFailed)(fault)


def fault_of(refused: APIStatusError) -> dict[str, Any]:
    """The problem document of a refusal in the words of a fault."""
    told = refused.problem
    return {
        "code": refused.code,
        "message": told.get("detail") or told.get("title") or str(refused),
        "where": told.get("node"),
        "op": told.get("op"),
        "limit": told.get("limit"),
        "hint": told.get("hint"),
    }


def environment(name: str) -> str | None:
    """A variable of the environment, None where it is empty or not set."""
    return os.environ.get(name) or None  # noqa: TID251 - the client has no settings to read it for

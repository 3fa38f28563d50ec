"""One check of one file by a service, in the words and with the exit codes of a local one."""

from collections.abc import Mapping, Sequence
from dataclasses import dataclass, field
from pathlib import Path
from typing import Any

from rich.console import Console

from gradgauge_client import _engine, _exit, _local
from gradgauge_client._analyses import Analysis
from gradgauge_client._client import Client, fault_of
from gradgauge_client._errors import (
    AnalysisError,
    AnalysisTimeout,
    APIConnectionError,
    APIStatusError,
    ContentTooLargeError,
    GradgaugeError,
    UnprocessableEntityError,
)
from gradgauge_client._gate import Judge
from gradgauge_client._output import Output

Json = dict[str, Any]


@dataclass(slots=True)
class Remote:
    """A service that checks files, and writes the reports of those it has checked.

    By `rules` it judges them too, where `judge` does not.
    """

    client: Client
    timeout_s: float
    judge: Judge | None
    console: Console
    rules: Json | None = None
    _analyses: dict[str, Analysis] = field(default_factory=dict)

    def prepare(self, outputs: Sequence[Output]) -> None:
        """Nothing: what cannot be written here the service writes."""

    def check(self, path: Path, options: Mapping[str, Any]) -> _local.Outcome:
        """Analyse `path`; progress and problems go to the console."""
        return _local.check(path, options, self._analyze, judge=self.judge, console=self.console)

    def render(self, report: Json, form: str) -> str:
        """The report as `html` or `markdown`: by the package installed here, or the service."""
        try:
            write = _engine.load("render")
        except _engine.EngineMissing:
            if self.judge is None and self.rules is None:
                return self._analyses[report["id"]].render(form)
            return self.client.reports.render([report], form)
        return str(write(report, form))

    def render_all(self, reports: Sequence[Json], paths: Sequence[str], form: str) -> str:
        """The reports of the models at `paths` as one text: written as by `render`."""
        try:
            write = _engine.load("render_all")
        except _engine.EngineMissing:
            return self.client.reports.render(reports, form, paths=paths)
        return str(write(reports, paths, form))

    def _analyze(
        self, path: str, options: Json, *, on_progress: _local.OnProgress | None = None
    ) -> Json:
        """What the engine's own `analyze` answers: {"report": ...} or {"problem": ...}."""
        try:
            return {"report": self._report(Path(path), options, on_progress)}
        except OSError as failed:
            return {"problem": _unreadable(path, failed.strerror or str(failed))}
        except GradgaugeError as error:
            return {"problem": problem_of(error)}

    def _report(self, path: Path, options: Json, on_progress: _local.OnProgress | None) -> Json:
        if not path.is_file():
            raise OSError(0, "it is not a regular file")
        analysis = self.client.submit(path, options)
        try:
            ended = analysis.wait(self.timeout_s, on_progress)
        except KeyboardInterrupt:
            analysis.cancel()
            raise
        report = ended.report_json()
        if self.rules is not None:
            report = self.client.reports.judge_json(report, **self.rules)
        self._analyses[report["id"]] = ended
        return report


def fetch(
    client: Client, reference: str, *, name: str | None, sha256: str | None, console: Console
) -> int:
    """Have the service fetch a model and print its id; the exit code."""
    try:
        model = client.models.fetch(reference, name=name, sha256=sha256)
    except GradgaugeError as error:
        problem = problem_of(error)
        _local.say(console, reference, problem)
        return int(problem["exit"])
    print(model.id)  # noqa: T201 - what the command is for
    return _exit.PASSED


def _unreadable(path: str, reason: str) -> Json:
    return {
        "code": "unreadable_file",
        "message": f"cannot read the model or spec: {reason}",
        "where": path,
        "hint": "check the path and its permissions",
        "exit": _exit.INVALID,
    }


def problem_of(error: GradgaugeError) -> Json:
    """The error as the engine would put it, and the exit code it asks for."""
    if isinstance(error, AnalysisTimeout):
        return error.fault | {"exit": _exit.UNREACHABLE}
    if isinstance(error, AnalysisError):
        return error.fault | {"exit": _exit.of_fault(error.code)}
    if isinstance(error, APIStatusError):
        return _refused(error)
    code = "service_unreachable" if isinstance(error, APIConnectionError) else "not_a_service"
    hint = "is it running, and is --url right?"
    return {"code": code, "message": str(error), "hint": hint, "exit": _exit.UNREACHABLE}


def _refused(error: APIStatusError) -> Json:
    fault = fault_of(error)
    if isinstance(error, (UnprocessableEntityError, ContentTooLargeError)):
        return fault | {"exit": _exit.of_fault(error.code)}
    told = {"hint": fault["hint"] or _HINTS.get(error.status), "message": str(error)}
    return fault | told | {"exit": _exit.UNREACHABLE}


_HINTS = {
    401: "set GRADGAUGE_API_KEY to a key of this service",
    403: "the key may not do this: ask for one that may",
    404: "is --url right?",
}

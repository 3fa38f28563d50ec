"""A check by the engine installed here, as `Client.check` has a service do it."""

from collections.abc import Mapping
from pathlib import Path
from typing import Any

from gradgauge_client import _engine
from gradgauge_client._client import FailOn, judged, unusable
from gradgauge_client._errors import GradgaugeError
from gradgauge_client._module import file_of
from gradgauge_client._report import Report


def check(
    path: Path | str | Any,
    options: Mapping[str, Any],
    fail_on: FailOn | None = None,
    example_inputs: Any = None,
) -> Report:
    """The report of the model, spec or module at `path`, from a confined child of this process.

    Raises:
        GateFailed, UnprocessableModel, AnalysisFailed, TypeError: as `Client.check`.
        GradgaugeError: the service package is not installed here.
    """
    try:
        analyze = _engine.load("analyze")
    except _engine.EngineMissing as missing:
        raise GradgaugeError(str(missing)) from missing
    with file_of(path, example_inputs) as file:
        answer = analyze(str(file), dict(options))
    if "problem" in answer:
        raise unusable(answer["problem"])
    return judged(answer["report"], fail_on, None)

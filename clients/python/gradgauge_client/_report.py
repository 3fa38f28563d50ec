"""A report as a service gave it: its recommendations can be applied."""

from collections.abc import Callable
from pathlib import Path
from typing import Any

from pydantic import PrivateAttr

from gradgauge_client import _models
from gradgauge_client._errors import GradgaugeError
from gradgauge_client._wire import validated

Apply = Callable[[str, Path, float | None], Path]


class Recommendation(_models.Recommendation):
    """A remedy, its price, what it did when it was tried, and the way to its model."""

    _apply: Apply | None = PrivateAttr(default=None)

    def apply(self, path: Path | str, *, timeout: float | None = None) -> Path:
        """Write the model with this recommendation applied to `path` as ONNX; return the path.

        The service makes it in a confined job and keeps it as a model of the project.

        Raises:
            GradgaugeError: the report came from no service (`gradgauge patch` does it locally).
            ConflictError: it is a setting of training and changes no model, or what was analysed
                has been deleted since.
            AnalysisFailed: it could not be applied; the fault says why.
            AnalysisTimeout: it is not applied within `timeout` seconds; it goes on.
            OSError: the file cannot be written.
        """
        if self._apply is None:
            raise GradgaugeError(
                f"{self.id} is of a report that came from no service: use gradgauge patch"
            )
        return self._apply(self.id, Path(path), timeout)


class Report(_models.Report):
    """A report; of a service's the recommendations can be applied."""

    recommendations: list[Recommendation]  # type: ignore[assignment]  # each can do more


def reported(told: Any, apply: Apply | None = None) -> Report:
    """The report in what was told, its recommendations applied by `apply`."""
    report = validated(Report, told)
    for each in report.recommendations:
        each._apply = apply  # noqa: SLF001 - their maker
    return report

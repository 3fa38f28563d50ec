"""A report: read, shown, written out, compared with another, its recommendations applied."""

import json
from collections.abc import Callable
from pathlib import Path
from typing import TYPE_CHECKING, Any, Protocol, Self

from pydantic import PrivateAttr

from gradgauge_client import _engine, _frame, _models, _notebook, _plot
from gradgauge_client._errors import GradgaugeError
from gradgauge_client._wire import validated

if TYPE_CHECKING:
    from matplotlib.axes import Axes
    from pandas import DataFrame

Json = dict[str, Any]
Apply = Callable[[str, Path, float | None], Path]


class Origin(Protocol):
    """The analysis at a service that a report was read from."""

    @property
    def id(self) -> str:
        """Of the analysis."""

    def render(self, form: str, *, path: str | None = None) -> str:
        """The report in a format of the service's."""

    def _written(self, report: Json, form: str, path: str | None) -> str:
        """The report in a format of the service's, as it is told here."""

    def compare(self, head: str, *, only_new: bool = False) -> _models.Comparison:
        """What the analysis `head` changed against this one."""

    def _applied(self, recommendation_id: str, path: Path, timeout: float | None) -> Path:
        """Write the model with a recommendation applied."""


class Recommendation(_models.Recommendation):
    """A remedy, its price, what it did when it was tried, and the way to its model."""

    _apply: Apply | None = PrivateAttr(default=None)

    def apply(self, path: Path | str, *, timeout: float | None = None) -> Path:
        """Write what this recommendation makes to `path`: ONNX, to a .yaml the spec; return it.

        The service makes it in a confined job and keeps it as a model of the project.

        Raises:
            GradgaugeError: the report came from no service (`gradgauge patch` does it locally).
            NoSpecError: a spec is asked for and has no words for the change.
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
    _origin: Origin | None = PrivateAttr(default=None)
    _gate_is_ours: bool = PrivateAttr(default=False)

    @classmethod
    def read(cls, path: Path | str) -> Self:
        """A report that was kept as JSON.

        Raises:
            OSError: the file cannot be read.
            GradgaugeError: it holds no report of this version.
        """
        text = Path(path).read_bytes()
        try:
            return cls.model_validate(_completed(json.loads(text)))
        except ValueError as bad:  # of JSON, of its encoding, of the fields
            raise GradgaugeError(f"{path} holds no report that this client can read") from bad

    def to_json(self) -> str:
        """The report as JSON, two spaces deep, as `gradgauge check --format json` writes it."""
        return json.dumps(self.model_dump(mode="json"), indent=2, allow_nan=False) + "\n"

    def to_html(self) -> str:
        """One page that asks for nothing besides itself; raises what `to_sarif` raises."""
        return self._rendered("html")

    def to_markdown(self) -> str:
        """For a comment on a pull request; raises what `to_sarif` raises."""
        return self._rendered("markdown")

    def to_junit(self, path: str | None = None) -> str:
        """As JUnit XML of the model at `path` in its repository; raises what `to_sarif` raises."""
        return self._rendered("junit", path)

    def to_sarif(self, path: str | None = None) -> str:
        """As SARIF 2.1.0 of the model at `path` in its repository, else of its name.

        Written by the service package where it is installed here, else by the service.

        Raises:
            GradgaugeError: neither is there.
            APIStatusError: the service refused; APIConnectionError where it cannot be reached.
        """
        return self._rendered("sarif", path)

    def to_dataframe(self) -> "DataFrame":
        """A row for each layer, a column for each quantity, such as `sampled.log10_grad_act.q50`.

        Units as in the report: gradients in decades. Raises ImportError without pandas.
        """
        return _frame.frame(self.layers)

    def plot(self, ax: "Axes | None" = None) -> "Axes":
        """Gradient RMS over depth in decades, of both engines, onto `ax` or axes of its own.

        Raises ImportError without matplotlib.
        """
        return _plot.gradients(self, ax)

    def diff(self, other: "Report", *, only_new: bool = False) -> _models.Comparison:
        """What `other`, the later report, changed against this one, and whether it passes.

        Compared by the service package where it is installed here, by the gate that is built in
        (`base` and `head` are then the reports' ids); else by the service and its gate (then the
        analyses'). With `only_new` findings that this one had too do not count.

        Raises:
            GradgaugeError: there is no package here, and not both reports are of a service.
            NotFoundError: they are of two services.
        """
        try:
            compare = _engine.load("compare")
        except _engine.EngineMissing as missing:
            base, head = self._origin, other._origin  # noqa: SLF001 - another report's
            if base is None or head is None:
                told = f"reports of no service are compared here: {missing}"
                raise GradgaugeError(told) from missing
            return base.compare(head.id, only_new=only_new)
        held = (each.model_dump(mode="json") for each in (self, other))
        return validated(_models.Comparison, compare(*held, only_new=only_new))

    def _repr_html_(self) -> str:
        """What a notebook shows."""
        return _notebook.shown(self)

    def _rendered(self, form: str, path: str | None = None) -> str:
        told = self.model_dump(mode="json")
        try:
            if path is None:
                return str(_engine.load("render")(told, form))
            return str(_engine.load("render_all")([told], [path], form))
        except _engine.EngineMissing as missing:
            if self._origin is None:
                raise GradgaugeError(
                    f"{form} of no service is written here: {missing}"
                ) from missing
            if self._gate_is_ours:
                return self._origin._written(told, form, path)  # noqa: SLF001 - its maker
            return self._origin.render(form, path=path)


def reported(told: Any, origin: Origin | None = None, *, gate_is_ours: bool = False) -> Report:
    """The report in what was told of the analysis `origin`; `fail_on` may have decided its gate."""
    report = validated(Report, _completed(told))
    report._origin, report._gate_is_ours = origin, gate_is_ours  # noqa: SLF001 - its maker
    for each in report.recommendations:
        each._apply = None if origin is None else origin._applied  # noqa: SLF001 - their maker
    return report


def _completed(told: Any) -> Any:
    """A report from before layers had `reads`, with them."""
    try:
        layers = [{"reads": []} | layer for layer in told["layers"]]
    except (KeyError, TypeError):
        return told  # what it lacks is said where it is validated
    return told | {"layers": layers}

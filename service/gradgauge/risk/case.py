"""What every rule works on and with: the case, the draft of a finding, its evidence."""

from collections.abc import Callable, Iterable, Mapping, Sequence
from dataclasses import dataclass, field

from gradgauge.risk.outlook import Outlook
from gradgauge.risk.signals import Signals
from gradgauge.schema.profile import AnalyticProfile, ForwardCheck, SampledLayer, SampledProfile
from gradgauge.schema.report import Evidence
from gradgauge.schema.wire import Category, Severity


@dataclass(frozen=True, slots=True)
class Case:
    """Everything a rule looks at."""

    signals: Signals
    analytic: AnalyticProfile | None
    sampled: SampledProfile | None
    forward: ForwardCheck | None = None
    outliers: Mapping[str, float] = field(default_factory=dict)
    outlook: Outlook | None = None

    def measured(self) -> Mapping[str, SampledLayer]:
        """The sampled layers by id; empty where nothing was measured."""
        held = self.sampled.layers if self.sampled is not None else {}
        return {key: layer for key, layer in held.items() if layer.supported}


@dataclass(frozen=True, slots=True)
class Draft:
    """A finding before it is numbered; `category` is its rule's where it has none of its own."""

    severity: Severity
    message: str
    origins: tuple[str, ...]
    affected: tuple[str, ...]
    evidence: tuple[Evidence, ...]
    confidence: float
    category: Category | None = None


@dataclass(frozen=True, slots=True)
class Rule:
    """One row: what it is called, when it applies, and what it finds."""

    id: str
    title: str
    category: Category
    needs: Callable[[Case], str | None]
    find: Callable[[Case], list[Draft]]


def evidence(
    metric: str, value: float | None, threshold: float, comparator: str, unit: str, source: str
) -> Evidence:
    """A number on the wire, with the threshold it passed."""
    return Evidence.model_validate(
        {
            "metric": metric,
            "value": value,
            "threshold": threshold,
            "comparator": comparator,
            "source": source,
            "unit": unit,
        }
    )


def needs_sizes(case: Case) -> str | None:
    """Why gradients through depth cannot be judged, or None."""
    return None if case.signals.trunk else "not_run: no layer's gradient is known"


def needs_sample(case: Case) -> str | None:
    """Why nothing that is measured can be judged, or None."""
    return None if case.measured() else "not_run: the sampled engine measured no layer"


def source(case: Case) -> str:
    """The engine the case's sizes come from."""
    return "sampled" if case.measured() else "analytic"


def confidence(case: Case) -> float:
    """Higher where the other engine, which shares no propagation, was asked too."""
    return 0.95 if case.measured() and case.analytic is not None else 0.8


def describe(origins: Sequence[str], signals: Signals) -> str:
    """`18 Sigmoid layers (/layers.1/Sigmoid to /layers.35/Sigmoid)`; at least one origin."""
    ops = sorted({signals.layers[o].op for o in origins})
    first, last = signals.layers[origins[0]].name, signals.layers[origins[-1]].name
    place = first if len(origins) == 1 else f"{first} to {last}"
    return f"{len(origins)} {'/'.join(ops)} layer{'s' * (len(origins) > 1)} ({place})"


def needs_activation(ops: Iterable[str]) -> Callable[[Case], str | None]:
    """A check that the model has one of `ops` and that it was measured."""
    names = frozenset(ops)

    def needs(case: Case) -> str | None:
        if not case.measured():
            return "not_run: the sampled engine measured no layer"
        if not any(layer.op in names for layer in case.signals.layers.values()):
            return f"not_applicable: no {', '.join(sorted(names))} in this model"
        return None

    return needs

"""One graph to one assessment: both profiles, their agreement, findings. Remedies use it too."""

import math
from collections.abc import Callable, Mapping, Sequence
from dataclasses import dataclass
from typing import Literal

from gradgauge.analytic import propagate
from gradgauge.graph.layers import Layer, find_layers, links
from gradgauge.graph.model import Graph
from gradgauge.graph.reading import Reading
from gradgauge.risk.case import Case
from gradgauge.risk.findings import find
from gradgauge.risk.outliers import outliers
from gradgauge.risk.signals import Signals, read_signals
from gradgauge.sampled import measure
from gradgauge.sampled.budget import NO_BUDGET, Budget
from gradgauge.sampled.probes import Loss
from gradgauge.sampled.stages import Wish
from gradgauge.schema.profile import (
    AnalyticLayer,
    AnalyticProfile,
    ForwardCheck,
    SampledLayer,
    SampledProfile,
)
from gradgauge.schema.report import Check, Finding

Progress = Callable[[str, float], None]
Forward = Callable[[], ForwardCheck | None]
CLOSE = 0.3  # decades within which two engines agree whatever their bands
NOISE = 0.05  # decades by which autograd differs from itself between draws (THEORY.md section 2)


@dataclass(frozen=True, slots=True)
class Plan:
    """What is measured, and how much of it; the same for a model and its patched copies.

    Without a `wish` the sampled engine's stages beyond one pass are left out, as on copies.
    """

    engines: frozenset[Literal["analytic", "sampled"]]
    depth: Literal["quick", "standard", "deep"]
    samples: int | None
    seed: int
    loss: Loss
    budget: Budget = NO_BUDGET
    wish: Wish | None = None


@dataclass(frozen=True, slots=True)
class Agreement:
    """How far the engines agree on one layer (decades; analytic less sampled)."""

    delta: float | None
    z: float | None
    status: Literal["agree", "disagree", "not_comparable"]
    explanation: str | None


@dataclass(frozen=True, slots=True)
class Assessment:
    """Everything known of one graph before remedies."""

    graph: Graph
    reading: Reading
    plan: Plan
    layers: tuple[Layer, ...]
    before: Mapping[str, tuple[str, ...]]
    analytic: AnalyticProfile | None
    sampled: SampledProfile | None
    agreement: Mapping[str, Agreement]
    signals: Signals
    forward: ForwardCheck | None
    findings: tuple[Finding, ...]
    checks: tuple[Check, ...]

    @property
    def seed(self) -> int:
        """The seed everything random in the assessment starts from."""
        return self.plan.seed


def assess(
    graph: Graph,
    reading: Reading,
    plan: Plan,
    *,
    forward: Forward | None = None,
    on_progress: Progress | None = None,
) -> Assessment:
    """Run the engines the plan asks for and read findings from what they say.

    `forward` is asked once both have run: what another runtime made of the forward pass meanwhile.
    """
    layers = find_layers(graph.model)
    before = links(graph.model, layers)
    tell = on_progress or (lambda _stage, _share: None)
    analytic: AnalyticProfile | None = None
    if "analytic" in plan.engines:
        tell("analytic", 0.0)
        analytic = propagate.profile(graph, layers, reading)
    sampled: SampledProfile | None = None
    if "sampled" in plan.engines:
        tell("sampled", 0.0)
        sampled = measure.profile(
            graph.model,
            layers,
            reading,
            depth=plan.depth,
            samples=plan.samples,
            seed=plan.seed,
            loss=plan.loss,
            budget=plan.budget,
            wish=plan.wish,
            on_progress=lambda share: tell("sampled", share),
        )
    signals = read_signals(layers, before, analytic, sampled)
    checked = forward() if forward is not None else None
    standing = outliers(graph.model, layers, zeros=False)
    found, checks = find(Case(signals, analytic, sampled, checked, standing))
    return Assessment(
        graph=graph,
        reading=reading,
        plan=plan,
        layers=layers,
        before=before,
        analytic=analytic,
        sampled=sampled,
        agreement=_agreements(layers, analytic, sampled),
        signals=signals,
        forward=checked,
        findings=tuple(found),
        checks=tuple(checks),
    )


def _agreements(
    layers: Sequence[Layer], analytic: AnalyticProfile | None, sampled: SampledProfile | None
) -> dict[str, Agreement]:
    offset = _offset(layers, analytic, sampled)
    return {
        layer.id: _agree(
            analytic.layers.get(layer.id) if analytic is not None else None,
            sampled.layers.get(layer.id) if sampled is not None else None,
            offset,
        )
        for layer in layers
    }


def _offset(
    layers: Sequence[Layer], analytic: AnalyticProfile | None, sampled: SampledProfile | None
) -> float:
    """Decades between the sampled loss's gradient and the unit cotangent, at the last layer."""
    if analytic is None or sampled is None or sampled.loss == "random_cotangent":
        return 0.0
    for layer in reversed(layers):
        row, held = analytic.layers.get(layer.id), sampled.layers.get(layer.id)
        middle = held.log10_grad_act.q50 if held is not None and held.log10_grad_act else None
        if row is not None and row.log10_grad_act is not None and middle is not None:
            return row.log10_grad_act - middle
    return 0.0


def _agree(
    analytic: AnalyticLayer | None, sampled: SampledLayer | None, offset: float
) -> Agreement:
    said = analytic.log10_grad_act if analytic is not None else None
    middle = sampled.log10_grad_act.q50 if sampled is not None and sampled.log10_grad_act else None
    if analytic is None or sampled is None:
        return Agreement(None, None, "not_comparable", "only one engine was asked for")
    if said is None or analytic.method == "not_supported":
        why = "the analytic engine has no rule here or nearer the output"
        return Agreement(None, None, "not_comparable", why)
    if middle is None:
        why = "the gradient is exactly zero" if sampled.zero_gradient else "nothing was sampled"
        return Agreement(None, None, "not_comparable", why)
    delta = said - middle - offset
    z = delta / _scatter(analytic, sampled)
    if abs(delta) <= CLOSE or abs(z) <= 3.0:
        return Agreement(delta, z, "agree", None)
    return Agreement(delta, z, "disagree", _why(analytic))


def _scatter(analytic: AnalyticLayer, sampled: SampledLayer) -> float:
    """Standard error of the difference: finite width, sampling, repeatability."""
    interval = sampled.log10_grad_act_ci
    sampling = (interval.high - interval.low) / 3.92 if interval is not None else 0.0
    return math.sqrt((analytic.band_decades or 0.0) ** 2 + sampling**2 + NOISE**2)


def _why(analytic: AnalyticLayer) -> str:
    if analytic.method == "probed":
        return "an op was probed numerically under independence of its inputs"
    named = ", ".join(analytic.assumptions) or "independence of weights and activations"
    return f"the analytic value assumes {named}; the sampled one decides"

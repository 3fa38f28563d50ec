"""One graph to one assessment: both profiles, their agreement, findings. Remedies use it too."""

from collections.abc import Callable, Mapping
from dataclasses import dataclass, field, replace
from typing import Literal

from gradgauge.agreement import Agreement, agreements
from gradgauge.analytic import propagate
from gradgauge.analytic.ensemble.describe import beside
from gradgauge.graph.layers import Layer, find_layers, links
from gradgauge.graph.model import Graph
from gradgauge.graph.reading import Reading
from gradgauge.risk.case import Case
from gradgauge.risk.features import Evidence
from gradgauge.risk.findings import find
from gradgauge.risk.outliers import outliers
from gradgauge.risk.outlook import Asked, Outlook, outlook
from gradgauge.risk.signals import Signals, read_signals
from gradgauge.risk.weights import State, judge
from gradgauge.sampled import measure
from gradgauge.sampled.budget import NO_BUDGET, Budget
from gradgauge.sampled.probes import Loss
from gradgauge.sampled.stages import Wish
from gradgauge.schema.profile import (
    AnalyticProfile,
    ForwardCheck,
    SampledProfile,
)
from gradgauge.schema.report import Check, Finding

Progress = Callable[[str, float], None]
Forward = Callable[[], ForwardCheck | None]


@dataclass(frozen=True, slots=True)
class Plan:
    """What is measured, and how much of it; the same for a model and its patched copies.

    Without a `wish` the sampled engine's stages beyond one pass are left out, as on copies. `asked`
    is what the probability is told for; without it there is none, and no finding goes by it.
    """

    engines: frozenset[Literal["analytic", "sampled"]]
    depth: Literal["quick", "standard", "deep"]
    samples: int | None
    seed: int
    loss: Loss
    budget: Budget = NO_BUDGET
    wish: Wish | None = None
    asked: Asked | None = field(default_factory=Asked)


@dataclass(frozen=True, slots=True)
class Assessment:
    """Everything known of one graph before remedies.

    `weights` is their state and what it is judged by. `as_copy` are the findings as a copy of this
    very graph would have them, which is measured no further than profile quick.
    """

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
    weights: tuple[State, str]
    outlook: Outlook | None
    as_copy: tuple[Finding, ...]

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
    weights: tuple[State, str] | None = None,
    on_progress: Progress | None = None,
) -> Assessment:
    """Run the engines the plan asks for and read findings from what they say.

    `forward` is asked once both have run: what another runtime made of the forward pass meanwhile.
    `weights` is their state where it is known, as that of the model a copy is made of.
    """
    layers = find_layers(graph.model)
    before = links(graph.model, layers)
    tell = on_progress or (lambda _stage, _share: None)
    analytic: AnalyticProfile | None = None
    if "analytic" in plan.engines:
        tell("analytic", 0.0)
        spectra = plan.depth == "deep" and plan.wish is not None
        analytic = propagate.profile(graph, layers, reading, spectra=spectra)
        if graph.spec is not None and plan.wish is not None:
            analytic = beside(analytic, graph.spec, layers)
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
    state = weights or judge(graph, layers)
    future = past = None
    if plan.asked is not None:
        held = Evidence(layers, before, analytic, sampled)
        future, past = outlook(held, plan.asked, state[0])
    case = Case(signals, analytic, sampled, checked, standing, future)
    found, checks = find(case)
    as_copy = found if past is future else find(replace(case, outlook=past))[0]
    return Assessment(
        graph=graph,
        reading=reading,
        plan=plan,
        layers=layers,
        before=before,
        analytic=analytic,
        sampled=sampled,
        agreement=agreements(layers, analytic, sampled, lambda: state[0]),
        signals=signals,
        forward=checked,
        findings=tuple(found),
        checks=tuple(checks),
        weights=state,
        outlook=future,
        as_copy=tuple(as_copy),
    )

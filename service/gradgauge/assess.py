"""One graph to one assessment: both profiles, their agreement, findings. Remedies use it too."""

import time
from collections import Counter
from collections.abc import Callable, Mapping
from dataclasses import dataclass, field, replace
from functools import cached_property
from typing import Literal

import onnx_ir

from gradgauge.agreement import Agreement, agreements
from gradgauge.analytic import propagate
from gradgauge.analytic.ensemble.describe import beside
from gradgauge.graph.layers import Layer, find_layers, links
from gradgauge.graph.model import Graph
from gradgauge.graph.reading import Reading
from gradgauge.graph.rewrite import values_of
from gradgauge.ops.chance import drawn_from
from gradgauge.risk.case import Case
from gradgauge.risk.features import Evidence
from gradgauge.risk.findings import find
from gradgauge.risk.outliers import outliers, scales
from gradgauge.risk.outlook import Asked, Outlook, outlook
from gradgauge.risk.signals import Signals, read_signals
from gradgauge.risk.stored import stored
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


@dataclass(frozen=True)
class Assessment:
    """Everything known of one graph before remedies.

    `weights` is their state and what it is judged by, `evidence` what the probability is read from.
    `as_copy` are the findings as a copy of this very graph would have them, which is measured no
    further than profile quick. `standing` is by how many decades each parameter layer's weights
    stand out, `seconds` the processor time it took, `until` that of this process at which remedies
    end, where they do; `steps` how long recurrences are where none was measured.
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
    evidence: Evidence
    outlook: Outlook | None
    as_copy: tuple[Finding, ...]
    standing: Mapping[str, float]
    seconds: float = 0.0
    until: float | None = None
    steps: int = 2

    @property
    def seed(self) -> int:
        """The seed everything random in the assessment starts from."""
        return self.plan.seed

    @cached_property
    def after(self) -> Mapping[str, tuple[Layer, ...]]:
        """By layer id the layers that read it, through any plumbing, in their order."""
        found: dict[str, list[Layer]] = {}
        for layer in self.layers:
            for key in dict.fromkeys(self.before.get(layer.id, ())):
                found.setdefault(key, []).append(layer)
        return {key: tuple(layers) for key, layers in found.items()}

    @cached_property
    def by_id(self) -> Mapping[str, Layer]:
        """The layers by id, in their order."""
        return {layer.id: layer for layer in self.layers}

    @cached_property
    def places(self) -> Mapping[str, int]:
        """Where in the layers' order each stands, by id: behind all that it is computed from."""
        return {layer.id: place for place, layer in enumerate(self.layers)}

    @cached_property
    def made_at(self) -> Mapping[str, int]:
        """By value name the place of the node that makes it: behind the makers of all it reads."""
        nodes = enumerate(self.graph.model.graph)
        return {value.name or "": place for place, node in nodes for value in node.outputs}

    @cached_property
    def holders(self) -> Counter[str]:
        """How many layers have each parameter."""
        return Counter(name for layer in self.layers for name in dict.fromkeys(layer.params))

    @cached_property
    def nodes(self) -> Mapping[str, onnx_ir.Node]:
        """The graph's nodes by name, the first of each."""
        return {n.name or "": n for n in reversed(tuple(self.graph.model.graph))}

    @cached_property
    def values(self) -> Mapping[str, onnx_ir.Value]:
        """The graph's values by name."""
        return values_of(self.graph.model.graph)


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
    since = time.process_time()
    layers = find_layers(graph.model)
    before = links(graph.model, layers)
    tell = on_progress or (lambda _stage, _share: None)
    analytic: AnalyticProfile | None = None
    if "analytic" in plan.engines:
        tell("analytic", 0.0)
        analytic = _analytic(graph, layers, reading, plan)
    sampled: SampledProfile | None = None
    if "sampled" in plan.engines:
        tell("sampled", 0.0)
        sampled = _sampled(graph, layers, reading, plan, lambda share: tell("sampled", share))
    signals = read_signals(layers, before, analytic, sampled)
    checked = forward() if forward is not None else None
    sizes = scales(graph.model, layers)
    standing = outliers(graph.model, layers, before, sizes)
    state = weights or judge(graph, layers)
    told = stored(graph.model, layers, sizes, standing)
    evidence = Evidence(layers, before, analytic, sampled, told)
    future = past = None
    if plan.asked is not None:
        future, past = outlook(evidence, plan.asked, state[0])
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
        evidence=evidence,
        outlook=future,
        as_copy=tuple(as_copy),
        standing=standing,
        seconds=time.process_time() - since,
    )


def _analytic(
    graph: Graph, layers: tuple[Layer, ...], reading: Reading, plan: Plan
) -> AnalyticProfile:
    spectra = plan.depth == "deep" and plan.wish is not None
    with drawn_from(plan.seed):
        found = propagate.profile(graph, layers, reading, spectra=spectra)
    if graph.spec is not None and plan.wish is not None:
        return beside(found, graph.spec, layers)
    return found


def _sampled(
    graph: Graph,
    layers: tuple[Layer, ...],
    reading: Reading,
    plan: Plan,
    tell: Callable[[float], None],
) -> SampledProfile:
    with drawn_from(plan.seed):
        return measure.profile(
            graph.model,
            layers,
            reading,
            depth=plan.depth,
            samples=plan.samples,
            seed=plan.seed,
            loss=plan.loss,
            budget=plan.budget,
            wish=plan.wish,
            on_progress=tell,
        )

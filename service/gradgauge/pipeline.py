"""The whole job in process: bytes or a spec in, a report out. No web, database or environment."""

import time
from collections.abc import Callable
from dataclasses import dataclass, field
from datetime import UTC, datetime
from pathlib import Path

from gradgauge import compose
from gradgauge.assess import Plan, assess
from gradgauge.coverage import count_parameters
from gradgauge.errors import InvalidModel
from gradgauge.graph.extent import refuse_larger
from gradgauge.graph.layers import find_layers, parameters
from gradgauge.graph.model import Graph
from gradgauge.graph.read_onnx import read_onnx
from gradgauge.graph.read_spec import read_spec
from gradgauge.graph.reading import Reading, read
from gradgauge.graph.redraw import redrawn
from gradgauge.ops.chance import drawn_from
from gradgauge.remedy.patched import Patched, Wanted
from gradgauge.remedy.patched import patched as made_of
from gradgauge.remedy.verify import recommend
from gradgauge.risk.outlook import Asked
from gradgauge.sampled import reference
from gradgauge.sampled.budget import NO_BUDGET, Budget, of_analysis
from gradgauge.sampled.probes import plan_draws
from gradgauge.sampled.reference import Runtime
from gradgauge.sampled.stages import Wish
from gradgauge.schema.options import AnalysisOptions
from gradgauge.schema.profile import ForwardCheck
from gradgauge.schema.report import Recommendation, Report
from gradgauge.schema.spec import ArchSpec

Progress = Callable[[str, float], None]
SPEC_SUFFIXES = {".yaml", ".yml", ".json"}


@dataclass(frozen=True, slots=True)
class ModelFacts:
    """What inspection tells of a model without analysing it."""

    name: str
    format: str
    size_bytes: int
    sha256: str
    opset: dict[str, int]
    inputs: dict[str, list[int | str | None]]
    outputs: dict[str, list[int | str | None]]
    ops: dict[str, int]
    node_count: int
    param_count: int
    layer_count: int
    warnings: list[tuple[str, str]]


@dataclass(slots=True)
class Clock:
    """Milliseconds by stage, and when the whole started."""

    started: datetime = field(default_factory=lambda: datetime.now(UTC))
    stages: dict[str, float] = field(default_factory=dict)
    _since: float = field(default_factory=time.perf_counter)

    def lap(self, stage: str) -> None:
        """Book the time since the last lap under `stage`."""
        now = time.perf_counter()
        self.stages[stage] = self.stages.get(stage, 0.0) + 1000.0 * (now - self._since)
        self._since = now


def analyze(
    source: bytes | Path | ArchSpec,
    options: AnalysisOptions | None = None,
    *,
    on_progress: Progress | None = None,
    budget: Budget | None = None,
    runtime: Runtime | None = None,
) -> Report:
    """Read, measure, judge, mend, report.

    `on_progress` is told the stage (read, analytic, sampled, remedy) and its share done, 0 to 1.
    Every run of the graph, remedies' included, is held to `budget`; without one, to what no
    machine has and the options' own time limit. `runtime` is another runtime for the source as it
    was given, which the sampled engine's forward pass is checked against.

    Raises:
        InvalidInput: the source or the options are not valid.
        LimitExceeded: the source is larger than a limit, or a run asks for more than its budget.
        AnalysisFailed: the graph cannot be run to its end.
    """
    options = options or AnalysisOptions()
    tell = on_progress or (lambda _stage, _share: None)
    clock = Clock()
    budget = budget or of_analysis(None, options.time_limit_s, time.monotonic())
    tell("read", 0.0)
    recommendations: list[Recommendation] = []
    with drawn_from(options.seed):
        graph, reading = load(source, options, budget)
        clock.lap("read")
        planned = plan(options, reading, budget)
        forward = _forward(graph, reading, planned, runtime, clock)
        graph = _start(graph, options)
        assessment = assess(graph, reading, planned, forward=forward, on_progress=tell)
        clock.lap("measure")
        if options.remediate:
            recommendations = recommend(assessment, on_progress=lambda share: tell("remedy", share))
            clock.lap("remedy")
    return compose.report(assessment, recommendations, options, clock.started, clock.stages)


def patched(
    source: bytes | Path | ArchSpec,
    wanted: Wanted,
    options: AnalysisOptions | None = None,
    *,
    on_progress: Progress | None = None,
    budget: Budget | None = None,
) -> Patched:
    """The model that a report's recommendation is of; `options` are those of the report.

    The analysis is run again without trying remedies, so that the patch is the report's own.

    Raises:
        InvalidInput: as `analyze`; or the recommendation is none of this model under these options.
    """
    options = options or AnalysisOptions()
    budget = budget or of_analysis(None, options.time_limit_s, time.monotonic())
    with drawn_from(options.seed):
        graph, reading = load(source, options, budget)
        planned = plan(options, reading, budget)
        assessment = assess(_start(graph, options), reading, planned, on_progress=on_progress)
        return made_of(assessment, wanted)


def _start(graph: Graph, options: AnalysisOptions) -> Graph:
    """The graph that is judged: as stored, or its weights drawn anew where that was asked."""
    return redrawn(graph, options.seed) if options.reinitialize else graph


def _forward(
    graph: Graph, reading: Reading, plan: Plan, runtime: Runtime | None, clock: Clock
) -> Callable[[], ForwardCheck] | None:
    """Have `runtime` start on the sampled inputs; what is waited for later is booked as its own."""
    if runtime is None or "sampled" not in plan.engines:
        return None
    draws = plan_draws(reading, plan.depth, plan.samples)
    settle = reference.start(
        graph.model, reading, draws.batch, seed=plan.seed, budget=plan.budget, runtime=runtime
    )
    clock.lap("onnxruntime")

    def settled() -> ForwardCheck:
        clock.lap("measure")
        found = settle()
        clock.lap("onnxruntime")
        return found

    return settled


def load(
    source: bytes | Path | ArchSpec, options: AnalysisOptions, budget: Budget | None = None
) -> tuple[Graph, Reading]:
    """The checked graph and how it is to be read."""
    graph = _graph(source, options.seed)
    refuse_larger(graph.model, budget.output_bytes if budget is not None else None)
    _refuse_empty(graph)
    reading = read(
        graph.model, asked=options.inputs, norm_mode=options.norm_mode, data=options.data
    )
    return graph, reading


def inspect(source: bytes | Path | ArchSpec) -> ModelFacts:
    """Facts of a valid model; raises what `analyze` raises for one that is not."""
    graph = _graph(source, 0)
    model = graph.model
    ops: dict[str, int] = {}
    for node in model.graph:
        key = f"{node.domain}::{node.op_type}" if node.domain else node.op_type
        ops[key] = ops.get(key, 0) + 1
    return ModelFacts(
        name=graph.name,
        format=graph.format,
        size_bytes=graph.size_bytes,
        sha256=graph.sha256,
        opset={k or "ai.onnx": v for k, v in model.opset_imports.items()},
        inputs=compose.shapes(model.graph.inputs),
        outputs=compose.shapes(model.graph.outputs),
        ops=ops,
        node_count=sum(ops.values()),
        param_count=count_parameters(parameters(model.graph).values()),
        layer_count=len(find_layers(model)),
        warnings=[(w.code, w.message) for w in graph.warnings],
    )


def _graph(source: bytes | Path | ArchSpec, seed: int) -> Graph:
    if isinstance(source, ArchSpec):
        return read_spec(source, seed=seed)
    if isinstance(source, Path):
        if source.suffix.lower() in SPEC_SUFFIXES:
            return read_spec(source, seed=seed)
        return read_onnx(source)
    if source.lstrip()[:1] == b"{" or source.lstrip().startswith((b"gradgauge:", b"---", b"#")):
        return read_spec(source, seed=seed)
    return read_onnx(source)


def _refuse_empty(graph: Graph) -> None:
    inputs = [v for v in graph.model.graph.inputs if v.name not in graph.model.graph.initializers]
    if not any(True for _ in graph.model.graph):
        raise InvalidModel(
            "no_nodes",
            "the graph has no nodes: its output is its input",
            hint="export a model with at least one layer",
        )
    if not inputs:
        raise InvalidModel(
            "no_inputs",
            "the graph has no inputs, so there is nothing to sample",
            hint="export the model with its inputs free",
        )


def plan(options: AnalysisOptions, reading: Reading, budget: Budget | None = None) -> Plan:
    """What the options and the user's data ask both engines to do; a target sets the loss."""
    loss = options.loss
    if "loss" not in options.model_fields_set and reading.target is not None:
        loss = "cross_entropy" if reading.target.dtype.kind in "iu" else "mse"
    return Plan(
        engines=frozenset(options.engines),
        depth=options.profile,
        samples=options.samples,
        seed=options.seed,
        loss=loss,
        budget=budget or NO_BUDGET,
        wish=Wish(options.target_dtypes, options.lr),
        asked=Asked(options.optimizer, options.lr, options.base_rate),
    )

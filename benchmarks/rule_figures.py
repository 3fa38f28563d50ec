"""Draws the pictures of docs/rules: python -m benchmarks.rule_figures [GF101 ...].

Each shows one number, measured by the sampled engine on two small networks: one that the rule
finds at fault, and the same without the fault. Half a minute of one core for all of them.
"""

import json
import math
import sys
from collections.abc import Callable, Sequence
from dataclasses import dataclass
from pathlib import Path

import matplotlib as mpl
from matplotlib.axes import Axes
from matplotlib.figure import Figure

from gradgauge.pipeline import analyze
from gradgauge.schema.layer import LayerBlock
from gradgauge.schema.options import AnalysisOptions
from gradgauge.schema.report import Report
from gradgauge.worker.local import analyze as analyze_file

FOLDER = Path("docs/rules")
BAD, GOOD, LIMIT = "#b3261e", "#1a5fb4", "#6b6b6b"
Curve = tuple[list[float], list[float | None]]


@dataclass(frozen=True)
class Picture:
    """Two networks and the number that tells them apart."""

    bad: list
    good: list
    bad_name: str
    good_name: str
    y: str
    take: Callable[[Report], Curve]
    x: str = "layer, from input to output"
    limit: float | None = None
    limit_name: str = ""
    shape: tuple[int, ...] = (64,)


def chain(count: int, function: str, *, weight="he_normal", odd=None, units=64) -> list:
    """Dense layers with an activation each; `odd` maps places to what their dense has else."""
    layers: list = []
    for i in range(count):
        dense = {"type": "dense", "units": units, "init": {"weight": weight, "bias": "zeros"}}
        layers += [dense | (odd or {}).get(i, {}), {"type": "activation", "function": function}]
    return [*layers, {"type": "dense", "units": 10}]


def started(weight, bias="zeros") -> dict:
    return {"init": {"weight": weight, "bias": bias}}


def measured(report: Report, value: Callable[[LayerBlock], float | None], *ops: str) -> Curve:
    """A number of each layer with one of `ops`, by its place among them."""
    held = [layer for layer in report.layers if layer.op in ops]
    return [float(i) for i in range(1, len(held) + 1)], [value(layer) for layer in held]


def gradient(report: Report) -> Curve:
    def middle(layer):
        return layer.sampled.log10_grad_act.q50 if layer.sampled.log10_grad_act else None

    return measured(report, middle, "Gemm", "MatMul")


def over_time(report: Report) -> Curve:
    (series,) = [s for s in report.series if "time" in s.name]
    return list(series.x), list(series.y)


def share(name: str, *ops: str) -> Callable[[Report], Curve]:
    return lambda report: measured(report, lambda layer: getattr(layer.sampled, name), *ops)


def beside(name: str) -> Callable[[Report], Curve]:
    def value(layer):
        return next((m.value for m in layer.measurements if m.name == name), None)

    return lambda report: measured(report, value, "Gemm", "MatMul")


def size(report: Report) -> Curve:
    def decades(layer):
        rms = layer.sampled.forward_rms
        return math.log10(rms) if rms else None

    return measured(report, decades, "Gemm", "MatMul")


def rnn(gain: float) -> list:
    layer = {"type": "rnn", "units": 64, "activation": "relu", "return_sequences": False}
    law = {"recurrent": {"kind": "identity", "gain": gain}}
    return [layer | {"init": law}, {"type": "dense", "units": 10}]


GRADIENT = "log10 of the gradient's RMS at the layer's output"
PICTURES = {
    "GF101": Picture(
        chain(20, "sigmoid", weight="glorot_uniform"),
        chain(20, "relu"),
        "sigmoid, Glorot's law",
        "ReLU, He's law",
        GRADIENT,
        gradient,
    ),
    "GF102": Picture(
        chain(20, "relu", weight={"kind": "he_normal", "gain": 2.8}),
        chain(20, "relu"),
        "ReLU, weights twice too large",
        "ReLU, He's law",
        GRADIENT,
        gradient,
    ),
    "GF103": Picture(
        rnn(0.8),
        rnn(1.0),
        "recurrent matrix 0.8 times the identity",
        "the identity",
        "log10 of the gradient at the time step",
        over_time,
        x="time step",
        shape=(60, 16),
    ),
    "GF104": Picture(
        rnn(1.3),
        rnn(1.0),
        "recurrent matrix 1.3 times the identity",
        "the identity",
        "log10 of the gradient at the time step",
        over_time,
        x="time step",
        shape=(60, 16),
    ),
    "GF105": Picture(
        chain(10, "tanh", odd={5: started("zeros")}, weight="glorot_normal"),
        chain(10, "tanh", weight="glorot_normal"),
        "weights of layer 6 at zero",
        "Glorot's law",
        GRADIENT,
        gradient,
    ),
    "GF201": Picture(
        chain(10, "relu", odd={4: started("he_normal", {"kind": "constant", "value": -4.0})}),
        chain(10, "relu"),
        "biases of layer 5 at -4",
        "biases at 0",
        "share of units that are zero for every input",
        share("dead_fraction", "Relu"),
        limit=0.7,
        limit_name="from here on a finding",
    ),
    "GF202": Picture(
        chain(10, "tanh", odd={4: started({"kind": "normal", "std": 3.0})}, weight="glorot_normal"),
        chain(10, "tanh", weight="glorot_normal"),
        "weights of layer 5 drawn 24 times too large",
        "Glorot's law",
        "share of saturated activations",
        share("saturated_fraction", "Tanh"),
        limit=0.5,
        limit_name="from here on a finding",
    ),
    "GF203": Picture(
        chain(10, "relu", odd={4: started({"kind": "constant", "value": 0.1})}),
        chain(10, "relu"),
        "layer 5 at one constant",
        "He's law",
        "share of units with the weights of another",
        beside("duplicate_fraction"),
        limit=0.5,
        limit_name="from here on a finding",
    ),
    "GF301": Picture(
        chain(40, "relu", weight={"kind": "normal", "std": 1e8}),
        chain(40, "relu"),
        "weights of deviation 1e8",
        "ReLU, He's law",
        "log10 of the layer's output, RMS",
        size,
        limit=math.log10(1.7976e308),
        limit_name="float64's largest number",
    ),
    "GF302": Picture(
        chain(12, "relu", odd={6: started({"kind": "normal", "std": 8.0})}),
        chain(12, "relu"),
        "weights of layer 7 drawn 45 times too large",
        "He's law",
        "log10 of the layer's output, RMS",
        size,
    ),
}


def report_of(layers: Sequence, shape: Sequence[int]) -> Report:
    spec = {"gradgauge": 1, "input": {"shape": list(shape)}, "layers": list(layers)}
    options = AnalysisOptions(profile="quick", remediate=False)
    return analyze(json.dumps(spec).encode(), options)


def draw(rule: str, picture: Picture) -> None:
    """Write the rule's SVG."""
    figure, axes = blank(rule)
    for layers, name, colour, mark in (
        (picture.bad, picture.bad_name, BAD, "o"),
        (picture.good, picture.good_name, GOOD, "s"),
    ):
        report = report_of(layers, picture.shape)
        found = {finding.rule_id for finding in report.findings}
        if (rule in found) is not (colour == BAD):
            raise SystemExit(f"{rule}: {name} is found {sorted(found)}")
        x, y = picture.take(report)
        told = [math.nan if value is None else value for value in y]
        axes.plot(x, told, marker=mark, markersize=3, color=colour, label=name)
    if picture.limit is not None:
        axes.axhline(picture.limit, color=LIMIT, linestyle="--", label=picture.limit_name)
    axes.set_xlabel(picture.x)
    axes.set_ylabel("\n".join(_folded(picture.y)))
    save(figure, axes, rule)


def draw_differences() -> None:
    """GF401: how far the executor and onnxruntime differ on the examples."""
    files = sorted(p for p in Path("examples").iterdir() if p.suffix in {".yaml", ".onnx"})
    options = {"profile": "quick", "remediate": False}
    reports = [analyze_file(str(path), options)["report"] for path in files]
    sizes = [
        next(m["value"] for m in report["measurements"] if m["name"] == "onnxruntime_difference")
        for report in reports
    ]
    figure, axes = blank("GF401")
    axes.scatter(sizes, [path.name for path in files], color=GOOD)
    axes.axvline(1e-3, color=LIMIT, linestyle="--", label="beyond it a finding")
    axes.set_xscale("log")
    axes.set_xlabel("largest difference from onnxruntime's output, relative")
    save(figure, axes, "GF401")


def blank(rule: str) -> tuple[Figure, Axes]:
    """An empty picture: the same bytes from the same numbers."""
    mpl.rcParams["svg.hashsalt"] = rule
    mpl.rcParams["svg.fonttype"] = "none"
    figure = Figure(figsize=(7.2, 3.2), layout="constrained")
    return figure, figure.add_subplot()


def save(figure: Figure, axes: Axes, rule: str) -> None:
    axes.grid(visible=True, alpha=0.3)
    axes.legend(fontsize="small")
    file = FOLDER / f"{rule}.svg"
    figure.savefig(file, metadata={"Date": None})
    lines = (line.rstrip() for line in file.read_text().splitlines())
    file.write_text("\n".join(lines) + "\n")


def _folded(text: str) -> list[str]:
    words, lines = text.split(), [""]
    for word in words:
        if len(lines[-1]) + len(word) > 28:
            lines.append("")
        lines[-1] = f"{lines[-1]} {word}".strip()
    return lines


def main(wanted: Sequence[str]) -> None:
    for rule in wanted or (*PICTURES, "GF401"):
        if rule == "GF401":
            draw_differences()
        else:
            draw(rule, PICTURES[rule])


if __name__ == "__main__":
    main(sys.argv[1:])

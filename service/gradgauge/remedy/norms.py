"""Remedies that put a norm behind linear layers."""

import math
from collections.abc import Callable, Iterator, Mapping, Sequence

from gradgauge.assess import Assessment
from gradgauge.graph.init import Law
from gradgauge.graph.layers import Layer
from gradgauge.remedy.patch import Change, Insert, Patch, Rewire, Store
from gradgauge.remedy.places import is_normalised, is_output, reached, shape_of, value_of
from gradgauge.remedy.row import Remedy, counted
from gradgauge.remedy.snippets import at
from gradgauge.schema.report import Finding

FOUND = frozenset({"GF101", "GF102", "GF202"})
EPSILON = 1e-5
LAYER_NORM_SINCE = 17
RMS_NORM_SINCE = 23
DENSE = frozenset({"Gemm", "MatMul"})


def _hidden(assessment: Assessment, finding: Finding, *, convolutions: bool = False) -> list[Layer]:
    """Hidden layers behind the finding with units on the last axis (of convolutions axis 1)."""
    return [
        head
        for head in reached(assessment, finding)
        if (head.op == "Conv" if convolutions else head.op in DENSE)
        and head.unit_axis is not None
        and not is_normalised(head, assessment)
        and not is_output(head, assessment)
    ]


def _width(head: Layer, assessment: Assessment) -> int:
    return shape_of(head.params[0], assessment)[head.unit_axis or 0]


def behind(value: str, made: str, assessment: Assessment) -> Iterator[Change]:
    """Whoever reads `value` reads `made` instead."""
    for use in value_of(value, assessment).uses():
        yield Rewire(use.node.name or "", use.idx, made)


def layer_norm(x: str, width: int, like: str, assessment: Assessment) -> tuple[str, list[Change]]:
    """The name of a layer norm of the value `x` over its last axis, and what makes it.

    One LayerNormalization, or below its opset the nodes that exporters write it out in.
    """
    made = f"{x}.gradgauge.norm"
    names = (f"{made}.scale", f"{made}.bias")
    stored: list[Change] = [
        Store(names[0], Law("ones", (width,)), 0, like),
        Store(names[1], Law("zeros", (width,)), 0, like),
    ]
    if opset(assessment) < LAYER_NORM_SINCE:
        return made, [*stored, *_written_out(x, made, names, like, assessment)]
    inputs, told = (x, *names), (("axis", -1), ("epsilon", EPSILON))
    return made, [*stored, Insert("LayerNormalization", inputs, made, told)]


def _written_out(
    x: str, made: str, names: tuple[str, str], like: str, assessment: Assessment
) -> Iterator[Change]:
    """(x - mean) / sqrt(variance + epsilon) * scale + bias, node by node."""
    shape = value_of(x, assessment).shape
    axis = len(shape) - 1 if shape is not None else -1  # below opset 11 counted from the front
    over = (("axes", (axis,)), ("keepdims", 1))
    parts = ("mean", "centred", "square", "variance", "epsilon", "safe", "root", "unit", "scaled")
    mean, centred, square, variance, epsilon, safe, root, unit, scaled = (
        f"{made}.{part}" for part in parts
    )
    yield Store(epsilon, Law("constant", (), value=EPSILON), 0, like)
    yield Insert("ReduceMean", (x,), mean, over)
    yield Insert("Sub", (x, mean), centred)
    yield Insert("Mul", (centred, centred), square)
    yield Insert("ReduceMean", (square,), variance, over)
    yield Insert("Add", (variance, epsilon), safe)
    yield Insert("Sqrt", (safe,), root)
    yield Insert("Div", (centred, root), unit)
    yield Insert("Mul", (unit, names[0]), scaled)
    yield Insert("Add", (scaled, names[1]), made)


def opset(assessment: Assessment) -> int:
    """The version of ONNX's own ops that the model asks for."""
    return assessment.graph.model.opset_imports.get("", 1)


def _layer_norms(assessment: Assessment, finding: Finding) -> Patch:
    changes: list[Change] = []
    for head in _hidden(assessment, finding):
        made, norm = layer_norm(head.output, _width(head, assessment), head.params[0], assessment)
        changes += [*norm, *behind(head.output, made, assessment)]
    return tuple(changes)


def _rms_norms(assessment: Assessment, finding: Finding) -> Patch:
    """RMSNormalization, or x / |x| times sqrt(n) where the opset has none."""
    changes: list[Change] = []
    for head in _hidden(assessment, finding):
        width, made = _width(head, assessment), f"{head.output}.gradgauge.norm"
        scale, unit = f"{made}.scale", f"{made}.unit"
        if opset(assessment) >= RMS_NORM_SINCE:
            law = Law("ones", (width,))
            norm = [
                Insert(
                    "RMSNormalization",
                    (head.output, scale),
                    made,
                    (("axis", -1), ("epsilon", EPSILON)),
                )
            ]
        else:
            law = Law("constant", (width,), value=math.sqrt(width))
            norm = [
                Insert("LpNormalization", (head.output,), unit, (("axis", -1), ("p", 2))),
                Insert("Mul", (unit, scale), made),
            ]
        changes += [Store(scale, law, 0, head.params[0]), *norm]
        changes += behind(head.output, made, assessment)
    return tuple(changes)


def _batch_norms(assessment: Assessment, finding: Finding) -> Patch:
    changes: list[Change] = []
    for head in _hidden(assessment, finding, convolutions=True):
        width, made = _width(head, assessment), f"{head.output}.gradgauge.norm"
        names = [f"{made}.{part}" for part in ("scale", "bias", "mean", "variance")]
        for name, kind in zip(names, ("ones", "zeros", "zeros", "ones"), strict=True):
            law = Law("ones" if kind == "ones" else "zeros", (width,))
            changes.append(Store(name, law, 0, head.params[0]))
        inputs = (head.output, *names)
        changes.append(Insert("BatchNormalization", inputs, made, (("epsilon", EPSILON),)))
        changes += behind(head.output, made, assessment)
    return tuple(changes)


def _check(assessment: Assessment, finding: Finding) -> str | None:
    if not _hidden(assessment, finding):
        return "no hidden dense layer without a norm stands at the origin"
    return None


def _check_batch_norm(assessment: Assessment, finding: Finding) -> str | None:
    if not _hidden(assessment, finding, convolutions=True):
        return "no hidden convolution without a norm stands at the origin"
    has = any(layer.op == "BatchNormalization" for layer in assessment.layers)
    if has and not assessment.reading.batch_statistics:
        return "the norms there are use running statistics, which those of a new one are not yet"
    if any(plan.batch_axis is None for plan in assessment.reading.inputs.values()):
        return "the graph fixes its batch, so that batch statistics cannot be measured"
    return None


def _snippets(torch: str, keras: str, jax: str) -> Callable[..., Mapping[str, str]]:
    def snippets(a: Assessment, _f: Finding, layers: Sequence[Layer]) -> Mapping[str, str]:
        width = _width(layers[0], a) if layers else 0
        return at(
            layers,
            f"self.norm = nn.{torch}({width})\nx = self.norm(layer(x))  # before the activation",
            f"x = keras.layers.{keras}()(layer(x))  # before the activation",
            f"x = flax.linen.{jax}(layer(x))  # before the activation",
        )

    return snippets


def _row(
    action: str,
    name: str,
    check: Callable[[Assessment, Finding], str | None],
    rewrite: Callable[[Assessment, Finding], Patch],
    frameworks: tuple[str, str, str],
    told: tuple[str, tuple[str, ...], tuple[str, ...]],
) -> Remedy:
    convolutions = name == "BatchNormalization"
    why, effects, references = told
    return Remedy(
        action=action,
        answers=FOUND,
        cost="architecture",
        does=f"puts {name} between hidden {'convolutions' if convolutions else 'dense layers'} "
        "and their activations",
        rationale=why,
        side_effects=effects,
        references=references,
        check=check,
        rewrite=rewrite,
        title=lambda a, f: f"Put {name} behind {counted(_hidden(a, f, convolutions=convolutions))}",
        targets=lambda a, f: tuple(h.id for h in _hidden(a, f, convolutions=convolutions)),
        snippets=_snippets(*frameworks),
    )


LAYER_NORM = _row(
    "insert_layer_norm",
    "LayerNormalization",
    _check,
    _layer_norms,
    ("LayerNorm", "LayerNormalization", "LayerNorm()"),
    (
        (
            "each input's units are brought to mean 0 and variance 1, whatever the weights' scale, "
            "and the gradient is divided by what the signal was"
        ),
        ("two parameters a unit more", "the network's function changes"),
        ("Ba, Kiros & Hinton 2016", "Xu et al. 2019, Understanding and improving layer norm"),
    ),
)
RMS_NORM = _row(
    "insert_rms_norm",
    "RMSNormalization",
    _check,
    _rms_norms,
    ("RMSNorm", "RMSNormalization", "RMSNorm()"),
    (
        (
            "each input's units are brought to a mean square of 1, whatever the weights' scale, "
            "and the gradient is divided by what the signal was"
        ),
        ("one parameter a unit more", "the network's function changes"),
        ("Zhang & Sennrich 2019",),
    ),
)
BATCH_NORM = _row(
    "insert_batch_norm",
    "BatchNormalization",
    _check_batch_norm,
    _batch_norms,
    ("BatchNorm2d", "BatchNormalization", "BatchNorm(use_running_average=False)"),
    (
        (
            "each channel is brought to mean 0 and variance 1 over the batch, whatever the "
            "weights' scale"
        ),
        (
            "training and inference differ, small batches are noisy",
            "deep plain networks of it gain 1.21 a layer in gradient (Yang et al. 2019)",
        ),
        ("Ioffe & Szegedy 2015", "Yang et al. 2019"),
    ),
)

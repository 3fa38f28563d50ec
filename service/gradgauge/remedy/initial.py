"""Remedies that draw weights anew, by the law that fits the activation behind them."""

import math
from collections.abc import Callable, Mapping, Sequence

from gradgauge.assess import Assessment
from gradgauge.graph.init import Law, LawKind, std
from gradgauge.graph.layers import Layer, fans_of
from gradgauge.remedy.patch import Change, Patch, Redraw
from gradgauge.remedy.places import (
    activation_of,
    bias_of,
    heads_of,
    is_normalised,
    is_zero,
    own_bias,
    readers,
    shape_of,
    size_of,
    zeros,
)
from gradgauge.remedy.row import Remedy, counted
from gradgauge.remedy.snippets import per_layer
from gradgauge.schema.gains import gain_for
from gradgauge.schema.report import Finding

FOUND = frozenset({"GF101", "GF102", "GF105", "GF201", "GF202", "GF301"})
SQUASHING = frozenset({"Sigmoid", "HardSigmoid", "Tanh", "Softsign", "Erf", "Sin", "Cos"})
CLOSE = 0.1  # share by which a weight's deviation may miss a law's and still be called its
# a self-gated unit is written x * Sigmoid(x), or x * (1 + Erf(x / sqrt(2))) / 2
_GATES = {"Sigmoid": "silu", "Erf": "gelu"}
_CALLED = {"Swish": "silu", "FastGelu": "gelu_tanh", "QuickGelu": "silu", "BiasGelu": "gelu"}


def activation_name(head: Layer, assessment: Assessment) -> str:
    """What follows a head, `linear` where nothing does: a name gains are known by."""
    below = readers(head, assessment)
    if any(layer.kind == "gate" for layer in below):
        gate = next((layer.op for layer in below if layer.op in _GATES), "")
        return _GATES.get(gate, "linear")
    found = activation_of(head, assessment)
    if found is None:
        return "linear"
    if found.op == "Clip":
        return "relu"
    name = _CALLED.get(found.op, found.op)
    return name if name not in {"Exp", "Log", "Sqrt"} else "linear"


def gain_of(head: Layer, assessment: Assessment) -> float:
    """The gain that keeps a signal's size through what follows the head."""
    return gain_for(activation_name(head, assessment))


def family_of(head: Layer, assessment: Assessment) -> str:
    """Which law suits a head by what follows it: he, glorot or lecun."""
    name = activation_name(head, assessment)
    if name == "Selu":
        return "lecun"
    return "glorot" if name in SQUASHING or name == "linear" else "he"


def law_of(kind: str, head: Layer, assessment: Assessment) -> Law:
    """The law of a family with the gain of what follows; orthogonal ones at He's variance."""
    shape = shape_of(head.params[0], assessment)
    fan_in, fan_out = fans_of(head, shape)
    gain = gain_of(head, assessment)
    if kind == "orthogonal":
        # elements of an orthogonal matrix have variance 1 / its longer side
        longer = max(shape[0], math.prod(shape[1:]))
        return Law("orthogonal", shape, fan_in, fan_out, gain=gain * math.sqrt(longer / fan_in))
    law: LawKind = "he_normal"
    if kind == "glorot":
        return Law("glorot_normal", shape, fan_in, fan_out, gain=gain)
    if kind == "lecun":
        law, gain = "lecun_normal", 1.0  # SELU's fixed point asks for variance 1 / fan_in
    return Law(law, shape, fan_in, fan_out, gain=gain / math.sqrt(2) if kind == "he" else gain)


def he(head: Layer, assessment: Assessment, *, seed: int) -> list[Change]:
    """He's variance on the layer's weights, zeros on its bias (He et al. 2015, section 2.2).

    Dense weights are drawn orthogonal at that variance (Saxe et al. 2014): what is left to chance
    is then the rectifier's mask alone, and a deep narrow network scatters less than with He's law.
    """
    name = head.params[0]
    shape = shape_of(name, assessment)
    fan_in, fan_out = fans_of(head, shape)
    law = Law("he_normal", shape, fan_in, fan_out)
    if len(shape) == 2:
        law = Law("orthogonal", shape, fan_in, fan_out, gain=math.sqrt(2 * max(shape) / fan_in))
    bias = bias_of(head, assessment)
    return [Redraw(name, law, seed), *(zeros(bias, assessment) if bias is not None else ())]


def _wanted(assessment: Assessment, finding: Finding) -> list[Layer]:
    """Heads at the origins; where exact zeros are the fault, every head that starts at zero."""
    heads = heads_of(assessment, finding.origins)
    if finding.rule_id != "GF105":
        return heads
    every = heads_of(assessment, [layer.id for layer in assessment.layers])
    return [head for head in every if is_zero(head.params[0], assessment)]


def _targets(kind: str) -> Callable[[Assessment, Finding], list[Layer]]:
    """The heads that the law is right for and that do not follow it yet."""

    def targets(assessment: Assessment, finding: Finding) -> list[Layer]:
        return [
            head
            for head in _wanted(assessment, finding)
            if _suits(kind, head, assessment) and not _follows(kind, head, assessment)
        ]

    return targets


def _suits(kind: str, head: Layer, assessment: Assessment) -> bool:
    if kind == "orthogonal":
        return len(shape_of(head.params[0], assessment)) == 2
    return family_of(head, assessment) == kind


def _follows(kind: str, head: Layer, assessment: Assessment) -> bool:
    """Whether the weights have the law's deviation; how they are aligned only `orthogonal` asks."""
    wanted, own = std(law_of(kind, head, assessment)), size_of(head.params[0], assessment)
    return kind != "orthogonal" and abs(own - wanted) <= CLOSE * wanted


def _check(kind: str) -> Callable[[Assessment, Finding], str | None]:
    targets = _targets(kind)

    def check(assessment: Assessment, finding: Finding) -> str | None:
        heads = _wanted(assessment, finding)
        if not heads:
            return "no dense or convolution layer of its own parameters stands at the origin"
        suited = [head for head in heads if _suits(kind, head, assessment)]
        if not suited:
            if kind == "orthogonal":
                return "no dense layer stands at the origin"
            follow = sorted({activation_name(head, assessment) for head in heads})
            return f"{', '.join(follow)} behind the origins asks for another law"
        if all(is_normalised(head, assessment) and not _blank(head, assessment) for head in suited):
            return "a norm follows every origin: the scale of its weights has no effect"
        if not targets(assessment, finding):
            return "the weights at the origin already have the law's variance"
        return None

    return check


def _blank(head: Layer, assessment: Assessment) -> bool:
    return is_zero(head.params[0], assessment)


def _redrawn(heads: Sequence[Layer], kind: str, assessment: Assessment) -> Patch:
    changes: list[Change] = []
    for i, head in enumerate(heads):
        changes.append(Redraw(head.params[0], law_of(kind, head, assessment), assessment.seed + i))
        bias = own_bias(head, assessment)
        changes += zeros(bias, assessment) if bias is not None else []
    return tuple(changes)


_TORCH = {
    "he": 'nn.init.kaiming_normal_(layer.weight, nonlinearity="relu")',
    "glorot": "nn.init.xavier_normal_(layer.weight, gain={gain})",
    "lecun": 'nn.init.kaiming_normal_(layer.weight, nonlinearity="linear")',
    "orthogonal": "nn.init.orthogonal_(layer.weight, gain={gain})",
}
_KERAS = {
    "he": "keras.initializers.HeNormal()",
    "glorot": "keras.initializers.VarianceScaling({square}, 'fan_avg', 'untruncated_normal')",
    "lecun": "keras.initializers.LecunNormal()",
    "orthogonal": "keras.initializers.Orthogonal({gain})",
}
_JAX = {
    "he": "jax.nn.initializers.he_normal()",
    "glorot": 'jax.nn.initializers.variance_scaling({square}, "fan_avg", "normal")',
    "lecun": "jax.nn.initializers.lecun_normal()",
    "orthogonal": "jax.nn.initializers.orthogonal({gain})",
}


def law_snippets(kind: str, layers: Sequence[Layer], gain: float) -> Mapping[str, str]:
    """Code that draws the layers' weights from a family's law, their biases zero."""
    told = {"gain": f"{gain:.4g}", "square": f"{gain * gain:.4g}"}
    return per_layer(
        layers,
        f"{_TORCH[kind].format(**told)}\nif layer.bias is not None:\n"
        "    nn.init.zeros_(layer.bias)",
        f"law = {_KERAS[kind].format(**told)}\nlayer.kernel.assign(law(layer.kernel.shape))\n"
        "if layer.use_bias:\n    layer.bias.assign(0 * layer.bias)",
        f"law, key = {_JAX[kind].format(**told)}, jax.random.fold_in(key, hash(name))\n"
        'drawn = layer | {"kernel": law(key, layer["kernel"].shape)}\n'
        'if "bias" in layer:\n    drawn["bias"] = 0 * layer["bias"]\n'
        "params = params | {name: drawn}",
    )


def _row(kind: str, law: str, why: str, references: tuple[str, ...]) -> Remedy:
    targets = _targets(kind)
    return Remedy(
        action=f"reinitialise_{kind}",
        answers=FOUND,
        cost="init",
        does=f"draws the weights at the origin from {law}, with the gain of the activation behind",
        rationale=why,
        side_effects=("what the layers have learnt is lost: do this before training",),
        references=references,
        check=_check(kind),
        rewrite=lambda a, f: _redrawn(targets(a, f), kind, a),
        title=lambda a, f: f"Re-initialise {counted(targets(a, f))} by {law}",
        targets=lambda a, f: tuple(head.id for head in targets(a, f)),
        snippets=lambda a, _f, layers: law_snippets(
            kind, layers, gain_of(layers[0], a) if layers else 1.0
        ),
    )


HE = _row(
    "he",
    "He's law",
    "a rectifier passes half of a signal's mean square, which twice the variance makes up for",
    ("He et al. 2015, section 2.2",),
)
GLOROT = _row(
    "glorot",
    "Glorot's law",
    "a variance between 1/fan_in and 1/fan_out keeps what goes forward and what comes back alike",
    ("Glorot & Bengio 2010, eq. 12",),
)
LECUN = _row(
    "lecun",
    "LeCun's law",
    "SELU keeps mean 0 and variance 1 where weights have variance 1/fan_in",
    ("Klambauer et al. 2017, section 2", "LeCun et al. 1998"),
)
ORTHOGONAL = _row(
    "orthogonal",
    "orthogonal matrices",
    "an orthogonal matrix multiplies every direction by the same factor, at any depth",
    ("Saxe et al. 2014", "Pennington et al. 2017"),
)


def _alike(assessment: Assessment, finding: Finding) -> list[Layer]:
    return heads_of(assessment, finding.origins)


def _check_alike(assessment: Assessment, finding: Finding) -> str | None:
    if _alike(assessment, finding):
        return None
    return "the layers with identical units share their weights, or are recurrent"


def _apart(assessment: Assessment, finding: Finding) -> Patch:
    changes: list[Change] = []
    for i, head in enumerate(_alike(assessment, finding)):
        law = law_of(family_of(head, assessment), head, assessment)
        changes.append(Redraw(head.params[0], law, assessment.seed + i))
    return tuple(changes)


BREAK_SYMMETRY = Remedy(
    action="break_symmetry",
    answers=frozenset({"GF203"}),
    cost="init",
    does="draws the weights of identical units at random, biases kept",
    rationale=(
        "units of equal weights receive equal gradients and stay equal; drawn at random they "
        "differ from the first step on"
    ),
    side_effects=("what the layers have learnt is lost: do this before training",),
    references=("Rumelhart, Hinton & Williams 1986", "Glorot & Bengio 2010"),
    check=_check_alike,
    rewrite=_apart,
    title=lambda a, f: f"Draw the units of {counted(_alike(a, f))} apart",
    targets=lambda a, f: tuple(head.id for head in _alike(a, f)),
    snippets=lambda a, _f, layers: law_snippets(
        family_of(layers[0], a) if layers else "glorot",
        layers,
        gain_of(layers[0], a) if layers else 1.0,
    ),
)


def _biased(assessment: Assessment, finding: Finding) -> list[Layer]:
    held = [(h, own_bias(h, assessment)) for h in heads_of(assessment, finding.origins)]
    return [h for h, bias in held if bias is not None and not is_zero(bias, assessment)]


def _unbiased(assessment: Assessment, finding: Finding) -> Patch:
    held = (own_bias(head, assessment) for head in _biased(assessment, finding))
    return tuple(c for name in held if name is not None for c in zeros(name, assessment))


ZERO_BIAS = Remedy(
    action="zero_bias",
    answers=frozenset({"GF101", "GF105", "GF201", "GF202"}),
    cost="init",
    does="sets the biases at the origin to zero",
    rationale=(
        "a bias far from zero holds a rectifier shut or a sigmoid at its end for every input; at "
        "zero the input decides"
    ),
    side_effects=("learnt offsets are lost",),
    references=("He et al. 2015", "Lu et al. 2020, Dying ReLU and initialization"),
    check=lambda a, f: (
        None if _biased(a, f) else "no bias of its own other than zero stands at the origin"
    ),
    rewrite=_unbiased,
    title=lambda a, f: f"Set the bias of {counted(_biased(a, f))} to zero",
    targets=lambda a, f: tuple(head.id for head in _biased(a, f)),
    snippets=lambda _a, _f, layers: per_layer(
        layers,
        "nn.init.zeros_(layer.bias)",
        "layer.bias.assign(0 * layer.bias)",
        'params = params | {name: layer | {"bias": 0 * layer["bias"]}}',
    ),
)

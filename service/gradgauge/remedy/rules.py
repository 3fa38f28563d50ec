"""The remedies: one row each, with a check that says why not and a patch that says what."""

import math
from collections.abc import Callable, Sequence
from dataclasses import dataclass
from typing import Literal

import numpy as np
import onnx_ir

from gradgauge.assess import Assessment
from gradgauge.graph.init import Law, fans
from gradgauge.graph.kinds import CHANNELS_SECOND
from gradgauge.graph.layers import Layer
from gradgauge.remedy.patch import Change, Patch, Redraw, Scale, Shift, SwapOp, SwapRecurrent
from gradgauge.risk.signals import FOLLOWERS
from gradgauge.sampled.rescale import Moments, unit_variance
from gradgauge.schema.report import Finding

SWAPPED = {"Sigmoid", "HardSigmoid", "Tanh", "Softsign"}
NORMALISED = "normalisation"


@dataclass(frozen=True, slots=True)
class Remedy:
    """One fix: `check` returns why it does not apply or None, `rewrite` the patch to try.

    Both take the assessment of the network as it is and the finding to answer.
    """

    action: str
    categories: frozenset[str]
    cost: Literal["config", "init", "architecture", "retrain"]
    rationale: str
    side_effects: tuple[str, ...]
    references: tuple[str, ...]
    check: Callable[[Assessment, Finding], str | None]
    rewrite: Callable[[Assessment, Finding], Patch]
    title: Callable[[Assessment, Finding], str]
    targets: Callable[[Assessment, Finding], tuple[str, ...]]
    snippet: Callable[[Sequence[Layer]], str]


def heads_of(assessment: Assessment, ids: Sequence[str]) -> list[Layer]:
    """The dense and convolution layers among `ids`, or feeding them, that share no parameter."""
    layers = {layer.id: layer for layer in assessment.layers}
    found: list[Layer] = []
    for key in ids:
        head = _head(key, layers, assessment)
        if head is not None and head not in found and not _tied(head, assessment):
            found.append(head)
    return found


def _head(key: str, layers: dict[str, Layer], assessment: Assessment) -> Layer | None:
    while True:
        layer = layers[key]
        if layer.kind == "linear":
            return layer
        before = assessment.before.get(key, ())
        if layer.kind not in FOLLOWERS or len(before) != 1:
            return None
        key = before[0]


def _tied(head: Layer, assessment: Assessment) -> bool:
    """Whether another layer shares its weights, or a bias that is not all zeros.

    Exporters store equal tensors once, so that fresh zero biases are shared by accident.
    """
    return any(
        _shared(name, assessment) and (name == head.params[0] or not _zeros(name, assessment))
        for name in head.params
    )


def _shared(name: str, assessment: Assessment) -> bool:
    return sum(name in layer.params for layer in assessment.layers) > 1


def _zeros(name: str, assessment: Assessment) -> bool:
    held = assessment.graph.model.graph.initializers[name].const_value
    return held is not None and not held.numpy().any()


def _normalised(head: Layer, assessment: Assessment) -> bool:
    """Whether a norm reads this layer, so that its scale has no effect."""
    layers = {layer.id: layer for layer in assessment.layers}
    return any(
        layers[key].kind == NORMALISED and head.id in ids for key, ids in assessment.before.items()
    )


def _check_rescale(assessment: Assessment, finding: Finding) -> str | None:
    if assessment.sampled is None or not any(
        s.supported for s in assessment.sampled.layers.values()
    ):
        return "the executor cannot run this graph"
    heads = heads_of(assessment, finding.origins)
    if not heads:
        return "no dense or convolution layer of its own parameters stands at the origin"
    if all(_normalised(head, assessment) for head in heads):
        return "a norm follows every origin: the scale of its weights has no effect"
    return None


def _rescale(assessment: Assessment, finding: Finding) -> Patch:
    heads = heads_of(assessment, finding.origins)
    measured = unit_variance(
        assessment.graph.model,
        heads,
        assessment.reading,
        movable={head.id for head in heads if _own_bias(head, assessment) is not None},
        seed=assessment.seed,
        budget=assessment.plan.budget,
    )
    changes: list[Change] = []
    for head in heads:
        if head.id in measured:
            changes += _rescaled(head, measured[head.id], assessment)
    return tuple(changes)


def _rescaled(head: Layer, moments: Moments, assessment: Assessment) -> list[Change]:
    """Weights and bias over the standard deviation; a bias outlier moved to a zero mean first."""
    changes: list[Change] = []
    factor = 1.0 / moments.deviation
    bias = _own_bias(head, assessment)
    if bias is not None and moments.shift is not None:
        changes.append(Shift(bias, tuple(-float(s) for s in moments.shift)))
    own = [name for name in head.params if not _shared(name, assessment)]
    return changes + [Scale(name, factor) for name in own]


def bias_of(head: Layer, assessment: Assessment) -> str | None:
    """The layer's stored rank-1 parameter, its bias."""
    for name in head.params[1:]:
        value = assessment.graph.model.graph.initializers[name]
        if value.shape is not None and len(value.shape) == 1:
            return name
    return None


def _own_bias(head: Layer, assessment: Assessment) -> str | None:
    """A bias that no other layer shares, with one element per unit."""
    name = bias_of(head, assessment)
    if name is None or _shared(name, assessment):
        return None
    units = _shape(head.params[0], assessment)[head.unit_axis] if head.unit_axis is not None else 0
    return name if _shape(name, assessment) == (units,) else None


def _check_swap(assessment: Assessment, finding: Finding) -> str | None:
    if _swappable(assessment, finding):
        return None
    return "no saturating activation stands at the origin"


def _swappable(assessment: Assessment, finding: Finding) -> list[Layer]:
    """Saturating activations at the origins, or right behind an origin; RNN nodes with tanh."""
    layers = {layer.id: layer for layer in assessment.layers}
    wanted = set(finding.origins)
    wanted |= {k for k, ids in assessment.before.items() if set(ids) & set(finding.origins)}
    return [
        layer
        for key, layer in layers.items()
        if key in wanted
        and (_is_hidden(layer, assessment) if layer.op in SWAPPED else _is_tanh(layer, assessment))
    ]


def _is_hidden(layer: Layer, assessment: Assessment) -> bool:
    """Whether an activation is neither the network's output nor only the factor of a gate."""
    layers = {held.id: held for held in assessment.layers}
    readers = [layers[key] for key, ids in assessment.before.items() if layer.id in ids]
    ends = {value.name for value in assessment.graph.model.graph.outputs}
    return layer.output not in ends and any(r.kind != "gate" for r in readers)


def _is_tanh(layer: Layer, assessment: Assessment) -> bool:
    """Whether the layer is an RNN node that squashes, its recurrent weight a stored tensor."""
    if layer.op != "RNN":
        return False
    node = next(n for n in assessment.graph.model.graph if n.name == layer.nodes[0])
    named = node.attributes.get_strings("activations", ["Tanh"])
    return set(named) != {"Relu"} and _stored(node, 2, assessment) is not None


def _swap(assessment: Assessment, finding: Finding) -> Patch:
    changes: list[Change] = []
    for i, layer in enumerate(_swappable(assessment, finding)):
        if layer.op == "RNN":
            changes += _to_irnn(layer, assessment)
            continue
        changes.append(SwapOp(layer.nodes[0], "Relu"))
        for head in heads_of(assessment, [layer.id]):
            changes += _he(head, assessment, seed=assessment.seed + i)
    return tuple(changes)


def _he(head: Layer, assessment: Assessment, *, seed: int) -> list[Change]:
    """He's variance on the layer's weights, zeros on its bias (He et al. 2015, section 2.2).

    Dense weights are drawn orthogonal at that variance (Saxe et al. 2014): what is left to chance
    is then the rectifier's mask alone, and a deep narrow network scatters less than with He's law.
    """
    name = head.params[0]
    shape = _shape(name, assessment)
    fan_in, fan_out = _fans(head, shape)
    law = Law("he_normal", shape, fan_in, fan_out)
    if len(shape) == 2:
        # elements of an orthogonal matrix have variance 1 / its longer side
        law = Law("orthogonal", shape, fan_in, fan_out, gain=math.sqrt(2 * max(shape) / fan_in))
    changes: list[Change] = [Redraw(name, law, seed)]
    bias = bias_of(head, assessment)
    if bias is not None and not _zeros(bias, assessment):
        changes.append(Redraw(bias, Law("zeros", _shape(bias, assessment)), seed))
    return changes


def _to_irnn(layer: Layer, assessment: Assessment) -> list[Change]:
    """ReLU with the identity as recurrent weight and zero bias (Le, Jaitly & Hinton 2015)."""
    node = next(n for n in assessment.graph.model.graph if n.name == layer.nodes[0])
    changes: list[Change] = [SwapRecurrent(layer.nodes[0], "Relu")]
    R, B = (_stored(node, index, assessment) for index in (2, 3))
    if R is not None:
        shape = _shape(R, assessment)
        law = Law("identity", shape, shape[-1], shape[-1], unit=shape[1:])
        changes.append(Redraw(R, law, 0))
    if B is not None:
        changes.append(Redraw(B, Law("zeros", _shape(B, assessment)), 0))
    return changes


def _stored(node: onnx_ir.Node, index: int, assessment: Assessment) -> str | None:
    """The name of the initializer at an input of a node, None where there is none."""
    value = node.inputs[index] if len(node.inputs) > index else None
    name = value.name if value is not None else None
    return name if name in assessment.graph.model.graph.initializers else None


def _shape(name: str, assessment: Assessment) -> tuple[int, ...]:
    held = assessment.graph.model.graph.initializers[name].const_value
    if held is None:
        raise AssertionError("unreachable")
    return tuple(int(d) for d in np.shape(held.numpy()))


def _fans(head: Layer, shape: tuple[int, ...]) -> tuple[int, int]:
    if head.op in CHANNELS_SECOND:
        return fans(shape, layout="conv")
    if len(shape) < 2:
        return math.prod(shape), 1
    return fans(shape[-2:], layout="in_out" if head.unit_axis in {1, -1} else "out_in")


def _rescale_title(assessment: Assessment, finding: Finding) -> str:
    heads = heads_of(assessment, finding.origins)
    return f"Rescale {_count(heads)} to unit output variance (LSUV)"


def _swap_title(assessment: Assessment, finding: Finding) -> str:
    found = _swappable(assessment, finding)
    if all(layer.op == "RNN" for layer in found):
        return f"Make {_count(found)} a ReLU RNN with identity recurrent weights (IRNN)"
    ops = "/".join(sorted({layer.op for layer in found}))
    return f"Replace {ops} by Relu in {_count(found)} and re-initialise with He's variance"


def _count(layers: Sequence[Layer]) -> str:
    return layers[0].name if len(layers) == 1 else f"{len(layers)} layers"


def _rescale_snippet(layers: Sequence[Layer]) -> str:
    names = ", ".join(repr(_module(layer)) for layer in layers[:8])
    more = "  # and so on" if len(layers) > 8 else ""
    return (
        "# layer-sequential unit variance: in forward order, on one batch\n"
        f"for name in [{names}]:{more}\n"
        "    y = output_of(model, name, batch)  # before the activation\n"
        "    with torch.no_grad():\n"
        "        layer = model.get_submodule(name)\n"
        "        layer.weight /= y.std()\n"
        "        if layer.bias is not None:\n"
        "            layer.bias /= y.std()"
    )


def _module(layer: Layer) -> str:
    """The path torch knows the module by, on one line."""
    path = layer.scope.strip("/").replace("/", ".")
    return "".join(c if c.isprintable() else "?" for c in path)


def _swap_snippet(layers: Sequence[Layer]) -> str:
    if layers and layers[0].op == "RNN":
        return (
            "rnn = nn.RNN(input_size, hidden_size, nonlinearity='relu')\n"
            "nn.init.eye_(rnn.weight_hh_l0)\n"
            "nn.init.zeros_(rnn.bias_hh_l0)\n"
            "nn.init.zeros_(rnn.bias_ih_l0)"
        )
    names = ", ".join(_module(layer) for layer in layers[:8])
    return (
        f"# at {names}\n"
        "self.act = nn.ReLU()\n"
        "# and for the layers feeding them\n"
        "nn.init.orthogonal_(layer.weight, gain=2**0.5)  # of convolutions: kaiming_normal_\n"
        "nn.init.zeros_(layer.bias)"
    )


RESCALE = Remedy(
    action="rescale_lsuv",
    categories=frozenset({"vanishing", "exploding", "dead_units", "saturation"}),
    cost="init",
    rationale=(
        "a layer whose output variance is 1 neither shrinks nor inflates what passes through it, "
        "and a re-centred pre-activation leaves its units alive"
    ),
    side_effects=("the network's function changes: do this before training, not after",),
    references=("Mishkin & Matas 2016, All you need is a good init", "He et al. 2015"),
    check=_check_rescale,
    rewrite=_rescale,
    title=_rescale_title,
    targets=lambda a, f: tuple(head.id for head in heads_of(a, f.origins)),
    snippet=_rescale_snippet,
)
SWAP = Remedy(
    action="replace_activation",
    categories=frozenset({"vanishing", "saturation"}),
    cost="retrain",
    rationale=(
        "a saturating activation's slope is at most 1 (sigmoid: 1/4) and less away from zero, so "
        "a deep product of slopes decays; a rectifier with He's variance keeps its mean square at 1"
    ),
    side_effects=("the layers' weights are drawn anew: the network must be trained again",),
    references=(
        "Glorot & Bengio 2010",
        "He et al. 2015",
        "Saxe et al. 2014",
        "Le, Jaitly & Hinton 2015",
    ),
    check=_check_swap,
    rewrite=_swap,
    title=_swap_title,
    targets=lambda a, f: tuple(layer.id for layer in _swappable(a, f)),
    snippet=_swap_snippet,
)
REMEDIES = (RESCALE, SWAP)

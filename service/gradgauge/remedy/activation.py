"""Remedies that change an activation: rectifiers for saturating ones, a slope for dead ones."""

from collections.abc import Mapping, Sequence

from gradgauge.assess import Assessment
from gradgauge.graph.layers import Layer
from gradgauge.remedy.initial import he
from gradgauge.remedy.patch import Change, Patch, SwapOp
from gradgauge.remedy.places import activation_of, heads_of, readers
from gradgauge.remedy.row import Remedy, counted
from gradgauge.remedy.snippets import at
from gradgauge.schema.report import Finding

SWAPPED = {"Sigmoid", "HardSigmoid", "Tanh", "Softsign"}
SLOPE = 0.2  # near the 1/5.5 that Xu et al. 2015 found best


def _check_swap(assessment: Assessment, finding: Finding) -> str | None:
    if _swappable(assessment, finding):
        return None
    return "no saturating activation stands at the origin"


def _swappable(assessment: Assessment, finding: Finding) -> list[Layer]:
    """Saturating activations at the origins, or right behind an origin.

    Where the gradient vanishes through depth all of their ops: each takes its part of it.
    """
    wanted = set(finding.origins)
    wanted |= {k for k, ids in assessment.before.items() if set(ids) & set(finding.origins)}
    if finding.rule_id == "GF101":
        ops = {layer.op for layer in assessment.layers if layer.id in wanted} & SWAPPED
        wanted |= {layer.id for layer in assessment.layers if layer.op in ops}
    return [
        layer
        for layer in assessment.layers
        if layer.id in wanted and layer.op in SWAPPED and _is_hidden(layer, assessment)
    ]


def _is_hidden(layer: Layer, assessment: Assessment) -> bool:
    """Whether an activation is neither the network's output nor only the factor of a gate."""
    ends = {value.name for value in assessment.graph.model.graph.outputs}
    return layer.output not in ends and any(r.kind != "gate" for r in readers(layer, assessment))


def _swap(assessment: Assessment, finding: Finding) -> Patch:
    changes: list[Change] = []
    for i, layer in enumerate(_swappable(assessment, finding)):
        changes.append(SwapOp(layer.nodes[0], "Relu"))
        for head in heads_of(assessment, [layer.id]):
            changes += he(head, assessment, seed=assessment.seed + i)
    return tuple(changes)


def _swap_title(assessment: Assessment, finding: Finding) -> str:
    found = _swappable(assessment, finding)
    ops = "/".join(sorted({layer.op for layer in found}))
    return f"Replace {ops} by Relu in {counted(found)} and re-initialise with He's variance"


def _swap_snippets(_a: Assessment, _f: Finding, layers: Sequence[Layer]) -> Mapping[str, str]:
    return at(
        layers,
        "self.act = nn.ReLU()\n# and for the layers feeding them\n"
        "nn.init.orthogonal_(layer.weight, gain=2**0.5)  # of convolutions: kaiming_normal_\n"
        "nn.init.zeros_(layer.bias)",
        "layer.activation = keras.activations.relu\n# and for the layers feeding them\n"
        "law = keras.initializers.Orthogonal(2**0.5)  # of convolutions: HeNormal\n"
        "layer.kernel.assign(law(layer.kernel.shape))\nlayer.bias.assign(0 * layer.bias)",
        "x = jax.nn.relu(x)\n# and for the layers feeding them\n"
        "law = jax.nn.initializers.orthogonal(2**0.5)  # of convolutions: he_normal\n"
        'layer = {"kernel": law(key, layer["kernel"].shape), "bias": 0 * layer["bias"]}',
    )


def _dead(assessment: Assessment, finding: Finding) -> list[Layer]:
    """Relu nodes behind the origins; a ReLU6 (Clip) has bounds a slope would break."""
    found = [activation_of(head, assessment) for head in heads_of(assessment, finding.origins)]
    return [layer for layer in found if layer is not None and layer.op == "Relu"]


SWAP = Remedy(
    action="replace_activation",
    answers=frozenset({"GF101", "GF105", "GF202"}),
    cost="retrain",
    does="makes saturating activations Relu and draws the weights before them at He's variance",
    rationale=(
        "a saturating activation's slope is at most 1 (sigmoid: 1/4) and less away from zero, so "
        "a deep product of slopes decays; a rectifier with He's variance keeps its mean square at 1"
    ),
    side_effects=("the layers' weights are drawn anew: the network must be trained again",),
    references=("Glorot & Bengio 2010", "He et al. 2015", "Saxe et al. 2014"),
    check=_check_swap,
    rewrite=_swap,
    title=_swap_title,
    targets=lambda a, f: tuple(layer.id for layer in _swappable(a, f)),
    snippets=_swap_snippets,
)
LEAKY = Remedy(
    action="leaky_slope",
    answers=frozenset({"GF201"}),
    cost="architecture",
    does=f"makes the rectifiers behind the origin LeakyRelu with slope {SLOPE:g}",
    rationale=(
        "a unit that is negative for every input passes no gradient through a rectifier and can "
        "never come back; through a slope it can"
    ),
    side_effects=("the network's function changes where units are negative",),
    references=(
        "Maas et al. 2013",
        "Xu et al. 2015, Empirical evaluation of rectified activations",
    ),
    check=lambda a, f: None if _dead(a, f) else "no Relu stands behind the origin alone",
    rewrite=lambda a, f: tuple(
        SwapOp(layer.nodes[0], "LeakyRelu", (("alpha", SLOPE),)) for layer in _dead(a, f)
    ),
    title=lambda a, f: f"Give {counted(_dead(a, f))} a slope of {SLOPE:g} below zero (LeakyRelu)",
    targets=lambda a, f: tuple(layer.id for layer in _dead(a, f)),
    snippets=lambda _a, _f, layers: at(
        layers,
        f"self.act = nn.LeakyReLU({SLOPE:g})",
        f"layer.activation = keras.layers.LeakyReLU(negative_slope={SLOPE:g})",
        f"x = jax.nn.leaky_relu(x, {SLOPE:g})",
    ),
)

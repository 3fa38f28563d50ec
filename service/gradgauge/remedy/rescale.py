"""Remedies that keep the weights' directions and change their size, alone or in pairs."""

import math
import statistics
from collections.abc import Iterator, Mapping, Sequence
from dataclasses import dataclass

import onnx_ir

from gradgauge.assess import Assessment
from gradgauge.graph.layers import Layer, fans_of
from gradgauge.remedy.patch import Change, Patch, Scale, Shift
from gradgauge.remedy.places import (
    alike,
    bias_of,
    heads_of,
    is_normalised,
    is_shared,
    is_zero,
    own_bias,
    peers,
    shape_of,
    size_of,
    zeros,
)
from gradgauge.remedy.row import Remedy, counted
from gradgauge.remedy.snippets import per_layer
from gradgauge.sampled.rescale import Moments, unit_variance
from gradgauge.schema.report import Finding

OUTLIER = 2.0  # how far from its peers' median a layer's size must be to be mended
FEWEST = 2  # peers that make a median
# ops f with f(c x) = c f(x) for c > 0
HOMOGENEOUS = frozenset(
    [
        "AveragePool",
        "Dropout",
        "Flatten",
        "GlobalAveragePool",
        "Identity",
        "LeakyRelu",
        "MaxPool",
        "ReduceMean",
        "Relu",
        "Reshape",
        "Squeeze",
        "Transpose",
        "Unsqueeze",
    ]
)


def _check_rescale(assessment: Assessment, finding: Finding) -> str | None:
    rows = assessment.sampled.layers.values() if assessment.sampled is not None else ()
    # a copy between two parts of a chain is measured by neither engine
    if assessment.plan.engines and not any(row.supported for row in rows):
        return "the executor cannot run this graph"
    return _without_effect(heads_of(assessment, finding.origins), assessment)


def _without_effect(heads: Sequence[Layer], assessment: Assessment) -> str | None:
    if not heads:
        return "no dense or convolution layer of its own parameters stands at the origin"
    if all(is_normalised(head, assessment) for head in heads):
        return "a norm follows every origin: the scale of its weights has no effect"
    return None


def _rescale(assessment: Assessment, finding: Finding) -> Patch:
    heads = heads_of(assessment, finding.origins)
    measured = unit_variance(
        assessment.graph.model,
        heads,
        assessment.reading,
        movable={head.id for head in heads if own_bias(head, assessment) is not None},
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
    bias = own_bias(head, assessment)
    if bias is not None and moments.shift is not None:
        changes.append(Shift(bias, tuple(-float(s) for s in moments.shift)))
    return changes + [Scale(name, factor) for name in _own(head, assessment)]


def _own(head: Layer, assessment: Assessment) -> list[str]:
    return [name for name in head.params if not is_shared(name, assessment)]


def _check_mend(assessment: Assessment, finding: Finding) -> str | None:
    heads = heads_of(assessment, finding.origins)
    reason = _without_effect(heads, assessment)
    if reason is not None:
        return reason
    if not _outliers(assessment, finding):
        return "no origin's weights or bias are far from those of its peers"
    return None


def _outliers(assessment: Assessment, finding: Finding) -> list[tuple[Layer, tuple[Change, ...]]]:
    """Origins whose weights or bias stand apart from their peers', with what mends them."""
    heads = heads_of(assessment, finding.origins)
    usual = {
        kind: _usual(others, assessment)
        for kind, others in peers(assessment, heads).items()
        if len(others) >= FEWEST
    }
    found = []
    for head in heads:
        held = usual.get(alike(head, assessment))
        if held is not None:
            changes = (*_mended(head, held, assessment), *_quiet(head, held, assessment))
            if changes:
                found.append((head, changes))
    return found


@dataclass(frozen=True, slots=True)
class _Usual:
    """Of peers: the middle of their gains, and the size of their largest bias."""

    gain: float
    bias: float


def _usual(others: Sequence[Layer], assessment: Assessment) -> _Usual:
    held = [name for other in others if (name := bias_of(other, assessment)) is not None]
    return _Usual(
        statistics.median(_gain(other, assessment) for other in others),
        max((size_of(name, assessment) for name in held), default=0.0),
    )


def _mended(head: Layer, usual: _Usual, assessment: Assessment) -> list[Change]:
    own = _gain(head, assessment)
    ratio = usual.gain / own if own else 0.0
    if not ratio or 1 / OUTLIER <= ratio <= OUTLIER:
        return []
    return [Scale(head.params[0], ratio)]


def _gain(head: Layer, assessment: Assessment) -> float:
    """What the weights multiply an input's size by, were they drawn at random."""
    name = head.params[0]
    return size_of(name, assessment) * math.sqrt(fans_of(head, shape_of(name, assessment))[0])


def _quiet(head: Layer, usual: _Usual, assessment: Assessment) -> list[Change]:
    """Zeros for a bias that is much larger than any peer's and than a unit signal."""
    bias = own_bias(head, assessment)
    if bias is None:
        return []
    loud = size_of(bias, assessment) > OUTLIER * max(usual.bias, 1.0)
    return zeros(bias, assessment) if loud else []


def _check_balance(assessment: Assessment, finding: Finding) -> str | None:
    if assessment.sampled is None:
        return "sizes were not sampled"
    reason = _without_effect(heads_of(assessment, finding.origins), assessment)
    if reason is not None:
        return reason
    if not _chains(assessment, finding):
        return "no origin is joined to another layer by rectifiers and pooling alone"
    return None


def _chains(assessment: Assessment, finding: Finding) -> list[list[Layer]]:
    """Runs of two or more heads with an origin among them and nothing inhomogeneous between."""
    heads = heads_of(assessment, [layer.id for layer in assessment.layers])
    by_node = {head.nodes[0]: head for head in heads}
    after = {head.id: _next_head(head, by_node, assessment) for head in heads}
    reached = {below.id for below in after.values() if below is not None}
    chains = []
    for head in heads:
        if head.id not in reached:
            chain = [head]
            while (below := after[chain[-1].id]) is not None:
                chain.append(below)
            chains.append(chain)
    wanted = {head.id for head in heads_of(assessment, finding.origins)}
    return [
        c for c in chains if len(c) > 1 and wanted & {h.id for h in c} and _sized(c, assessment)
    ]


def _sized(chain: Sequence[Layer], assessment: Assessment) -> bool:
    return all(_rms(head, assessment) > 0.0 for head in chain) and not any(
        is_shared(name, assessment) and not is_zero(name, assessment)
        for head in chain
        for name in head.params
    )


def _rms(head: Layer, assessment: Assessment) -> float:
    layer = assessment.sampled.layers.get(head.id) if assessment.sampled is not None else None
    size = layer.forward_rms if layer is not None else None
    return size if size is not None and size < float("inf") else 0.0


def _next_head(head: Layer, by_node: Mapping[str, Layer], assessment: Assessment) -> Layer | None:
    """The head that alone reads this one, through homogeneous ops only."""
    value = assessment.nodes[head.nodes[-1]].outputs[0]
    for read, node in _alone(value):
        below = by_node.get(node.name or "")
        if below is not None:
            return below if list(below.inputs) == [read.name] else None
    return None


def _alone(value: onnx_ir.Value) -> Iterator[tuple[onnx_ir.Value, onnx_ir.Node]]:
    """The only reader of a value, and on through homogeneous ops for as long as there is one."""
    while True:
        uses = list(value.uses())
        if len(uses) != 1 or value.is_graph_output():
            return
        node = uses[0].node
        yield value, node
        if node.op_type not in HOMOGENEOUS or uses[0].idx != 0:
            return
        value = node.outputs[0]


def _balance(assessment: Assessment, finding: Finding) -> Patch:
    """Every output of unit size but the last one's, which is left as it was.

    With C the factor on a layer's output and C' that on its input, its weights are multiplied by
    C / C' and its bias by C (Neyshabur et al. 2015, section 2).
    """
    changes: list[Change] = []
    for chain in _chains(assessment, finding):
        before = 1.0
        for head in chain:
            now = 1.0 if head is chain[-1] else 1.0 / _rms(head, assessment)
            changes.append(Scale(head.params[0], now / before))
            held = [name for name in head.params[1:] if not is_zero(name, assessment)]
            changes += [Scale(name, now) for name in held]
            before = now
    return tuple(changes)


def _chained(assessment: Assessment, finding: Finding) -> list[Layer]:
    return [head for chain in _chains(assessment, finding) for head in chain]


def _unit_snippets(_a: Assessment, _f: Finding, layers: Sequence[Layer]) -> Mapping[str, str]:
    return per_layer(
        layers,
        "y = output_of(model, name, batch)  # before the activation\n"
        "with torch.no_grad():\n"
        "    layer.weight /= y.std()\n"
        "    if layer.bias is not None:\n"
        "        layer.bias /= y.std()",
        "y = output_of(model, name, batch)  # before the activation\n"
        "layer.set_weights([w / y.std() for w in layer.get_weights()])",
        "y = output_of(params, name, batch)  # before the activation\n"
        "params = params | {name: jax.tree.map(lambda w: w / y.std(), layer)}",
        first="layer-sequential unit variance: in forward order, on one batch",
    )


def _mend_snippets(
    assessment: Assessment, finding: Finding, layers: Sequence[Layer]
) -> Mapping[str, str]:
    ratios = [
        c.factor for _, held in _outliers(assessment, finding) for c in held if isinstance(c, Scale)
    ]
    ratio = f"{statistics.median(ratios):.3g}" if ratios else "1"
    return per_layer(
        layers,
        f"with torch.no_grad():\n    layer.weight *= {ratio}  # the median of its peers\n"
        "    if layer.bias is not None:\n        layer.bias.zero_()",
        f"layer.kernel.assign(layer.kernel * {ratio})  # the median of its peers\n"
        "if layer.use_bias:\n    layer.bias.assign(0 * layer.bias)",
        f'mended = layer | {{"kernel": layer["kernel"] * {ratio}}}  # the median of its peers\n'
        'if "bias" in layer:\n    mended["bias"] = 0 * layer["bias"]\n'
        "params = params | {name: mended}",
    )


def _balance_snippets(
    assessment: Assessment, _f: Finding, layers: Sequence[Layer]
) -> Mapping[str, str]:
    sizes = ", ".join(f"{_rms(layer, assessment):.3g}" for layer in layers[:-1][:8])
    opening = f"sizes = iter([{sizes}])  # measured outputs' root mean squares; the last stays\n"
    opening += "before = 1.0\n"
    loop = per_layer(
        layers,
        "now = 1 / next(sizes, 1.0)\nwith torch.no_grad():\n    layer.weight *= now / before\n"
        "    if layer.bias is not None:\n        layer.bias *= now\nbefore = now",
        "now = 1 / next(sizes, 1.0)\nlayer.kernel.assign(layer.kernel * now / before)\n"
        "if layer.use_bias:\n    layer.bias.assign(layer.bias * now)\nbefore = now",
        'now = 1 / next(sizes, 1.0)\nscaled = {"kernel": layer["kernel"] * now / before}\n'
        'if "bias" in layer:\n    scaled["bias"] = layer["bias"] * now\n'
        "params, before = params | {name: scaled}, now",
    )
    return {key: opening + code for key, code in loop.items()}


RESCALE = Remedy(
    action="rescale_lsuv",
    answers=frozenset({"GF101", "GF102", "GF105", "GF201", "GF202", "GF301"}),
    cost="init",
    does="divides weights and bias of the layers at the origin by their output's deviation",
    rationale=(
        "a layer whose output variance is 1 neither shrinks nor inflates what passes through it, "
        "and a re-centred pre-activation leaves its units alive"
    ),
    side_effects=("the network's function changes: do this before training, not after",),
    references=("Mishkin & Matas 2016, All you need is a good init", "He et al. 2015"),
    check=_check_rescale,
    rewrite=_rescale,
    title=lambda a, f: f"Rescale {counted(heads_of(a, f.origins))} to unit output variance (LSUV)",
    targets=lambda a, f: tuple(head.id for head in heads_of(a, f.origins)),
    snippets=_unit_snippets,
)
MEND = Remedy(
    action="mend_outlier",
    answers=frozenset({"GF101", "GF102", "GF201", "GF202", "GF301"}),
    cost="init",
    does="scales a layer whose weights stand apart to the median of its peers, zeroes such a bias",
    rationale=(
        "one layer of another scale than its peers multiplies every gradient that passes it; at "
        "their median it passes on as much as they do, and no other layer is touched"
    ),
    side_effects=("the network's function changes: do this before training, not after",),
    references=("Glorot & Bengio 2010", "Saxe et al. 2014"),
    check=_check_mend,
    rewrite=lambda a, f: tuple(c for _, held in _outliers(a, f) for c in held),
    title=lambda a, f: (
        f"Bring {counted([head for head, _ in _outliers(a, f)])} to the scale of its peers"
    ),
    targets=lambda a, f: tuple(head.id for head, _ in _outliers(a, f)),
    snippets=_mend_snippets,
)
BALANCE = Remedy(
    action="rescale_balanced",
    answers=frozenset({"GF101", "GF102"}),
    cost="init",
    does="moves scale between layers joined by rectifiers, so that every output but the last is 1",
    rationale=(
        "a rectifier commutes with a positive factor: what one layer is divided by, the next can "
        "be multiplied by, so that sizes even out and the network computes what it did"
    ),
    side_effects=("the optimizer's path changes, the network's function does not",),
    references=("Neyshabur, Salakhutdinov & Srebro 2015, Path-SGD",),
    check=_check_balance,
    rewrite=_balance,
    title=lambda a, f: f"Balance {counted(_chained(a, f))}, the network's function kept",
    targets=lambda a, f: tuple(head.id for head in _chained(a, f)),
    snippets=_balance_snippets,
    function_preserving=True,
)

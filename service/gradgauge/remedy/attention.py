"""Remedies for attention whose logits are so large that its softmax looks at one key alone."""

from collections.abc import Callable, Iterator, Mapping, Sequence
from dataclasses import dataclass

import onnx_ir

from gradgauge.assess import Assessment
from gradgauge.graph.init import Law
from gradgauge.graph.layers import Layer
from gradgauge.remedy.norms import behind
from gradgauge.remedy.patch import Change, Insert, Patch, Rewire, Store
from gradgauge.remedy.row import Remedy, counted
from gradgauge.remedy.snippets import MOST, at
from gradgauge.schema.report import Finding

FOUND = frozenset({"GF101", "GF102"})
LARGE = 3.0  # root mean square of logits from which on a softmax over few keys is all but one-hot
CLOSE = 1e-3  # share by which a factor may miss that of a width
_WIDEST = 1 << 16
# what stands between the product of queries and keys and its softmax: factors, masks, biases
_BETWEEN = frozenset({"Add", "Cast", "Div", "Identity", "Mul", "Where"})


@dataclass(frozen=True, slots=True)
class Attention:
    """Queries times keys on their way to a softmax.

    `product` is [.., queries, width] times [.., width, keys]; `factor` is what it is multiplied by
    before the softmax. `like` is a stored tensor of the logits' type.
    """

    product: Layer
    width: int
    factor: float


def attentions(assessment: Assessment) -> list[Attention]:
    """Every softmax whose logits are a product of two activations, in order."""
    by_node = {node: layer for layer in assessment.layers for node in layer.nodes}
    found: dict[str, Attention] = {}
    for layer in assessment.layers:
        if layer.op != "Softmax":
            continue
        met = _product(assessment.nodes[layer.nodes[0]].inputs[0])
        if met is None:
            continue
        node, factor = met
        product, width = by_node.get(node.name or ""), _width(node, factor)
        if product is not None and product.kind == "contraction" and width is not None:
            found.setdefault(product.id, Attention(product, width, factor))
    return list(found.values())


def _product(value: onnx_ir.Value | None) -> tuple[onnx_ir.Node, float] | None:
    """The MatMul that logits stem from, and the stored numbers they are multiplied by since."""
    factor, seen = 1.0, set[int]()
    todo = [(value, factor)]
    while todo:
        value, factor = todo.pop()
        node = value.producer() if value is not None else None
        if node is None or id(node) in seen:
            continue
        seen.add(id(node))
        if node.op_type == "MatMul":
            return node, factor
        if node.op_type in _BETWEEN:
            factor *= _number(node)
            todo += [(v, factor) for v in reversed(node.inputs)]
    return None


def _number(node: onnx_ir.Node) -> float:
    """What a Mul or a Div with a stored number multiplies by."""
    if node.op_type not in {"Mul", "Div"}:
        return 1.0
    for value in node.inputs[1 if node.op_type == "Div" else 0 :]:
        held = onnx_ir.convenience.get_const_tensor(value) if value is not None else None
        if held is not None and held.size == 1:
            number = float(held.numpy().reshape(()))
            return 1.0 / number if node.op_type == "Div" else number
    return 1.0


def _width(node: onnx_ir.Node, factor: float) -> int | None:
    """Numbers of one query: from its shape, else by the usual factor of 1 over their root."""
    shape = node.inputs[0].shape if node.inputs[0] is not None else None
    last = shape[-1] if shape is not None and len(shape) > 1 else None
    if isinstance(last, int):
        return last
    usual = 1.0 / (factor * factor) if factor else 0.0
    whole = round(usual) if usual < _WIDEST else 0
    return whole if whole > 1 and abs(usual - whole) < CLOSE * whole else None


def size_of_logits(attention: Attention, assessment: Assessment) -> float | None:
    """Sampled root mean square of what the softmax reads, masks apart; None where not sampled."""
    held = assessment.sampled.layers if assessment.sampled is not None else {}
    row = held.get(attention.product.id)
    rms = row.forward_rms if row is not None else None
    return None if rms is None else rms * abs(attention.factor)


def _large(assessment: Assessment) -> list[Attention]:
    """Those of large logits; where nothing was sampled, as of a copy, those of any."""
    sizes = [(one, size_of_logits(one, assessment)) for one in attentions(assessment)]
    return [one for one, size in sizes if size is None or size > LARGE]


def _check(assessment: Assessment, _finding: Finding) -> str | None:
    held = attentions(assessment)
    if not held:
        return "no softmax reads a product of queries and keys"
    if not _large(assessment):
        most = max(size_of_logits(one, assessment) or 0.0 for one in held)
        return f"the attention's logits are no larger than {most:.2g}"
    if not any(layer.params for layer in assessment.layers):
        return "the model stores no parameters"
    return None


def _like(assessment: Assessment) -> str:
    return next(name for layer in assessment.layers for name in layer.params)


def _normed(assessment: Assessment, _finding: Finding) -> Patch:
    """Queries and keys over their lengths, times gains that leave logits of deviation about 1.

    Between random directions of d numbers the cosine deviates by 1/sqrt(d): cosines times sqrt(d)
    are what the softmax shall read, so that with a factor of 1/sqrt(d) both gains are sqrt(d), as
    of an RMS norm.
    """
    changes: list[Change] = []
    for one in _large(assessment):
        gain = (one.width**0.5 / abs(one.factor)) ** 0.5
        node = assessment.nodes[one.product.nodes[0]]
        for index, axis, shape in ((0, -1, (one.width,)), (1, -2, (one.width, 1))):
            read = node.inputs[index]
            name = (read.name or "") if read is not None else ""
            made = f"{one.product.output}.gradgauge.{'query' if index == 0 else 'key'}"
            law = Law("constant", shape, value=gain)
            changes += [
                Store(f"{made}.gain", law, 0, _like(assessment)),
                Insert("LpNormalization", (name,), f"{made}.unit", (("axis", axis), ("p", 2))),
                Insert("Mul", (f"{made}.unit", f"{made}.gain"), made),
                Rewire(node.name or "", index, made),
            ]
    return tuple(changes)


def _scaled(assessment: Assessment, _finding: Finding) -> Patch:
    """The logits over their size."""
    changes: list[Change] = []
    for one, factor in _factors(assessment):
        made = f"{one.product.output}.gradgauge.scaled"
        law = Law("constant", (1,), value=factor)
        changes += [
            Store(f"{made}.factor", law, 0, _like(assessment)),
            Insert("Mul", (one.product.output, f"{made}.factor"), made),
            *behind(one.product.output, made, assessment),
        ]
    return tuple(changes)


def _factors(assessment: Assessment) -> Iterator[tuple[Attention, float]]:
    for one in _large(assessment):
        size = size_of_logits(one, assessment)
        if size is not None:
            yield one, float(f"{1.0 / size:.3g}")


def _check_scale(assessment: Assessment, finding: Finding) -> str | None:
    reason = _check(assessment, finding)
    if reason is None and not any(True for _ in _factors(assessment)):
        return "the attention's logits were not sampled"
    return reason


def _products(assessment: Assessment, _finding: Finding) -> tuple[str, ...]:
    return tuple(one.product.id for one in _large(assessment))


def _layers(assessment: Assessment) -> list[Layer]:
    return [one.product for one in _large(assessment)]


def _norm_snippets(a: Assessment, _f: Finding, layers: Sequence[Layer]) -> Mapping[str, str]:
    width = next((one.width for one in _large(a)), 0)
    return at(
        layers,
        f"self.q_norm, self.k_norm = nn.RMSNorm({width}), nn.RMSNorm({width})\n"
        "q, k = self.q_norm(q), self.k_norm(k)  # before q @ k.transpose(-2, -1)\n"
        f"logits = q @ k.transpose(-2, -1) * {width}**-0.5",
        "q, k = keras.layers.RMSNormalization()(q), keras.layers.RMSNormalization()(k)\n"
        f"logits = keras.ops.einsum('bthd,bshd->bhts', q, k) * {width}**-0.5",
        "q, k = flax.linen.RMSNorm()(q), flax.linen.RMSNorm()(k)\n"
        f"logits = jnp.einsum('bthd,bshd->bhts', q, k) * {width}**-0.5",
    )


def _scale_snippets(a: Assessment, _f: Finding, layers: Sequence[Layer]) -> Mapping[str, str]:
    factors = [f"{factor:g}" for _, factor in _factors(a)]
    first = factors[0] if factors else "1"
    code = f"logits = logits * factor  # before the softmax; by layer {', '.join(factors[:MOST])}"
    return at(
        layers,
        f"self.factor = nn.Parameter(torch.tensor({first}))\n{code}",
        f"law = keras.initializers.Constant({first})\n"
        f"factor = self.add_weight(shape=(1,), initializer=law)\n{code}",
        f"law = flax.linen.initializers.constant({first})\n"
        f"factor = self.param('factor', law, (1,))\n{code}",
    )


def _row(
    action: str,
    words: tuple[str, str],
    told: tuple[tuple[str, ...], tuple[str, ...]],
    title: Callable[[Assessment], str],
    does: tuple[
        Callable[[Assessment, Finding], str | None],
        Callable[[Assessment, Finding], Patch],
        Callable[[Assessment, Finding, Sequence[Layer]], Mapping[str, str]],
    ],
) -> Remedy:
    check, rewrite, snippets = does
    return Remedy(
        action=action,
        answers=FOUND,
        cost="architecture",
        does=words[0],
        rationale=words[1],
        side_effects=told[0],
        references=told[1],
        check=check,
        rewrite=rewrite,
        title=lambda a, _f: title(a),
        targets=_products,
        snippets=snippets,
    )


LOGIT_SCALE = _row(
    "logit_scale",
    (
        "multiplies an attention's logits by a learnt factor that starts at 1 over their size",
        (
            "a softmax of large logits puts all weight on one key and passes no gradient to "
            "queries and keys; of logits of size 1 it looks at many"
        ),
    ),
    (
        ("one parameter a layer more", "the network's function changes"),
        ("Vaswani et al. 2017, section 3.2.1", "Zhai et al. 2023, attention entropy collapse"),
    ),
    lambda a: f"Scale the logits of {counted(_layers(a))} down to size 1",
    (_check_scale, _scaled, _scale_snippets),
)
QK_NORM = _row(
    "qk_norm",
    (
        "brings every query and key to a mean square of 1 before their product",
        (
            "whatever the projections' weights, and however they grow in training, a logit is then "
            "at most the root of the head's width, and the softmax keeps a slope"
        ),
    ),
    (
        ("two parameters a unit of a head more", "the network's function changes"),
        (
            "Henry et al. 2020, Query-key normalization",
            "Dehghani et al. 2023, Scaling vision transformers to 22 billion parameters",
        ),
    ),
    lambda a: f"Normalise queries and keys of {counted(_layers(a))}",
    (_check, _normed, _norm_snippets),
)

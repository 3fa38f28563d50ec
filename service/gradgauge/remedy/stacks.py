"""Remedies for deep stacks of post-norm blocks: DeepNorm's stream, T-Fixup without a norm.

A block is norm(x + f(x)); a transformer's layer is two of them (attention, then two dense layers),
a decoder's that reads an encoder three. The papers' formulas are per layer, of one stack; in blocks
DeepNorm's are those of its encoder and of its decoder alike: (2N)^(1/4) with 2N blocks, (3M)^(1/4)
with 3M.
"""

from collections.abc import Iterator, Mapping, Sequence
from dataclasses import dataclass

from gradgauge.assess import Assessment
from gradgauge.graph.init import Law
from gradgauge.graph.layers import Layer, fans_of
from gradgauge.remedy.attention import attentions
from gradgauge.remedy.norms import behind
from gradgauge.remedy.patch import Change, Insert, Patch, Redraw, Rewire, Store
from gradgauge.remedy.places import (
    heads_of,
    is_shared,
    own_bias,
    shape_of,
    value_of,
    weights,
    zeros,
)
from gradgauge.remedy.residual import PostNorm, post_norms
from gradgauge.remedy.row import Remedy, counted
from gradgauge.remedy.snippets import at, per_layer
from gradgauge.schema.report import Finding

FOUND = frozenset({"GF101", "GF102"})


@dataclass(frozen=True, slots=True)
class Block:
    """A post-norm block and the layers of f: those that only look (queries, keys), and the rest."""

    post: PostNorm
    looking: tuple[Layer, ...]
    passing: tuple[Layer, ...]


def blocks(assessment: Assessment) -> list[Block]:
    """Every post-norm block whose branch has a dense or convolution layer of its own."""
    looking = _looking(assessment)
    own = {layer.output: layer.id for layer in assessment.layers}
    found = []
    for post in post_norms(assessment):
        inside = [own[name] for name in _inside(post, assessment) if name in own]
        heads = heads_of(assessment, sorted(inside, key=assessment.places.__getitem__))
        if heads:
            found.append(
                Block(
                    post,
                    tuple(h for h in heads if h.id in looking),
                    tuple(h for h in heads if h.id not in looking),
                )
            )
    return found


def _inside(post: PostNorm, assessment: Assessment) -> Iterator[str]:
    """Names of what f(x) is computed from, back to x."""
    add = assessment.nodes[post.add]
    todo = [v for i, v in enumerate(add.inputs) if v is not None and i != post.skip]
    seen = {post.start}
    start = assessment.made_at.get(post.start, -1)
    while todo:
        value = todo.pop()
        name = value.name or ""
        if name in seen or assessment.made_at.get(name, -1) <= start:
            continue
        seen.add(name)
        yield name
        producer = value.producer()
        todo += [v for v in producer.inputs if v is not None] if producer is not None else []


def _looking(assessment: Assessment) -> frozenset[str]:
    """Ids of the projections that a product of queries and keys is made of, and nothing else is."""
    products = {one.product.id for one in attentions(assessment)}
    found = set()
    for product in products:
        todo = list(assessment.before.get(product, ()))
        while todo:
            key = todo.pop()
            if assessment.by_id[key].kind == "linear":
                found.add(key)
            elif assessment.by_id[key].kind != "add":
                todo += assessment.before.get(key, ())
    return frozenset(key for key in found if _serves(key, products, assessment))


def _serves(key: str, products: set[str], assessment: Assessment) -> bool:
    """Whether whoever reads the layer ends in such a product: one for values too does not."""
    todo, seen = [key], {key}
    while todo:
        for reader in assessment.after.get(todo.pop(), ()):
            if reader.id in products or reader.id in seen:
                continue
            if reader.kind in {"linear", "contraction", "add"}:
                return False
            seen.add(reader.id)
            todo.append(reader.id)
    return True


def _drawn(held: Sequence[Block], gain: float, assessment: Assessment) -> Iterator[Change]:
    """Glorot's law on every layer of the branches, times `gain` where it passes the stream on."""
    seed = assessment.seed
    for block in held:
        for heads, own in ((block.looking, 1.0), (block.passing, gain)):
            for head in heads:
                shape = shape_of(head.params[0], assessment)
                law = Law("glorot_normal", shape, *fans_of(head, shape), gain=own)
                yield Redraw(head.params[0], law, seed)
                bias = own_bias(head, assessment)
                yield from zeros(bias, assessment) if bias is not None else ()
                seed += 1


def alpha_beta(count: int) -> tuple[float, float]:
    """DeepNorm's factor of the stream and gain of the branches, of so many blocks in a stack.

    Wang et al. 2022, table 1: an encoder of N layers (2N)^(1/4), (8N)^(-1/4), a decoder of M that
    reads an encoder (3M)^(1/4), (12M)^(-1/4).
    """
    return float(count**0.25), float((4 * count) ** -0.25)


def _deep(assessment: Assessment, _finding: Finding) -> Patch:
    """norm(alpha x + f(x)), f's layers drawn anew."""
    held = blocks(assessment)
    alpha, beta = alpha_beta(len(held))
    changes: list[Change] = []
    for block in held:
        post = block.post
        made, like = f"{post.summed}.gradgauge.stream", (block.passing or block.looking)[0]
        law = Law("constant", (1,), value=alpha)
        changes += [
            Store(f"{made}.alpha", law, 0, like.params[0]),
            Insert("Mul", (post.start, f"{made}.alpha"), made),
            Rewire(post.add, post.skip, made),
        ]
    return (*changes, *_drawn(held, beta, assessment))


def fixup_gain(layers: int) -> float:
    """Huang et al. 2020, section 3.2: of an encoder's values, outputs and dense layers."""
    return 0.67 * float(layers**-0.25)


def _table_deviation(width: int, layers: int) -> float:
    """Huang et al. 2020, section 3.2: d^(-1/2) (9N)^(-1/4)."""
    return float(width**-0.5 * (9 * layers) ** -0.25)


def _count(held: Sequence[Block], assessment: Assessment) -> int:
    """A transformer's layers: its attentions; without any a layer is two blocks."""
    return len(attentions(assessment)) or max(1, len(held) // 2)


def _normless(assessment: Assessment, _finding: Finding) -> Patch:
    """X + f(x) with no norm behind, branches and embeddings drawn small."""
    held = blocks(assessment)
    layers = _count(held, assessment)
    changes: list[Change] = []
    for block in held:
        changes += behind(block.post.normed, block.post.summed, assessment)
    changes += _drawn(held, fixup_gain(layers), assessment)
    for i, name in enumerate(_tables(assessment)):
        shape = shape_of(name, assessment)
        law = Law("normal", shape, scale=_table_deviation(shape[-1], layers))
        changes.append(Redraw(name, law, assessment.seed + 5000 + i))
    return tuple(changes)


def _tables(assessment: Assessment) -> list[str]:
    held = [x.params[0] for x in assessment.layers if x.kind == "embedding" and x.params]
    return [name for name in held if not is_shared(name, assessment)]


def _check(assessment: Assessment, _finding: Finding) -> str | None:
    held = blocks(assessment)
    if not held:
        return "no LayerNormalization reads a residual addition alone"
    if not weights(assessment):
        return "the model stores no parameters"
    return None


def _check_normless(assessment: Assessment, finding: Finding) -> str | None:
    if any(value_of(b.post.normed, assessment).is_graph_output() for b in blocks(assessment)):
        return "a norm behind a residual addition is the network's own output"
    return _check(assessment, finding)


def _drawn_layers(assessment: Assessment) -> list[Layer]:
    held = {h.id for b in blocks(assessment) for h in (*b.looking, *b.passing)}
    return [layer for layer in assessment.layers if layer.id in held]


def _deep_snippets(a: Assessment, _f: Finding, layers: Sequence[Layer]) -> Mapping[str, str]:
    alpha, beta = alpha_beta(len(blocks(a)))
    return _snippets(layers, beta, f"x = norm({alpha:.4g} * x + branch(x))")


def _normless_snippets(a: Assessment, _f: Finding, layers: Sequence[Layer]) -> Mapping[str, str]:
    gain = fixup_gain(_count(blocks(a), a))
    return _snippets(layers, gain, "x = x + branch(x)  # the norm is gone")


def _snippets(layers: Sequence[Layer], gain: float, block: str) -> Mapping[str, str]:
    square = f"{gain * gain:.4g}"
    drawn = per_layer(
        layers,
        f"nn.init.xavier_normal_(layer.weight, gain={gain:.4g})",
        f"law = keras.initializers.VarianceScaling({square}, 'fan_avg', 'untruncated_normal')\n"
        "layer.kernel.assign(law(layer.kernel.shape))",
        f'law = jax.nn.initializers.variance_scaling({square}, "fan_avg", "normal")\n'
        'drawn = law(jax.random.fold_in(key, hash(name)), layer["kernel"].shape)\n'
        'params = params | {name: layer | {"kernel": drawn}}',
        first="queries and keys with a gain of 1; biases zero",
    )
    placed = at((), block, block, block)
    return {name: f"{placed[name]}\n{code}" for name, code in drawn.items()}


DEEP_NORM = Remedy(
    action="deep_norm",
    answers=FOUND,
    cost="architecture",
    does="multiplies the stream in front of each post-norm addition by the fourth root of their "
    "number and draws the branches small (DeepNorm)",
    rationale=(
        "a norm behind the addition divides the stream's gradient by how much a branch has added; "
        "a stream that is larger than its branches passes almost unchanged, and the bound on what "
        "a first step changes does not grow with depth"
    ),
    side_effects=(
        "what the branches have learnt is lost: do this before training",
        "branches contribute less at first",
    ),
    references=("Wang et al. 2022, DeepNet, table 1",),
    check=_check,
    rewrite=_deep,
    title=lambda a, _f: (
        f"Multiply the stream in front of {len(blocks(a))} post-norm additions by "
        f"{alpha_beta(len(blocks(a)))[0]:.3g} (DeepNorm)"
    ),
    targets=lambda a, _f: tuple(layer.id for layer in _drawn_layers(a)),
    snippets=_deep_snippets,
)
T_FIXUP = Remedy(
    action="t_fixup",
    answers=FOUND,
    cost="architecture",
    does="takes the norms behind residual additions away and draws branches and embeddings small "
    "(T-Fixup)",
    rationale=(
        "without a norm on it the stream passes the gradient unchanged, and with branches that "
        "start small enough a first step moves the whole as little as one layer's would"
    ),
    side_effects=(
        "what the network has learnt is lost: do this before training",
        "no norm is left to hold the stream later on",
    ),
    references=("Huang et al. 2020, T-Fixup", "Zhang, Dauphin & Ma 2019"),
    check=_check_normless,
    rewrite=_normless,
    title=lambda a, _f: (
        f"Take {len(blocks(a))} norms away and start {counted(_drawn_layers(a))} small (T-Fixup)"
    ),
    targets=lambda a, _f: tuple(layer.id for layer in _drawn_layers(a)),
    snippets=_normless_snippets,
)

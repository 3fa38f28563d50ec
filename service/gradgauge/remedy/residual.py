"""Remedies for residual networks: the scale of their branches, and where their norms stand."""

from collections.abc import Iterator, Mapping, Sequence
from dataclasses import dataclass, replace
from heapq import heapify, heappop, heappush

from gradgauge.assess import Assessment
from gradgauge.graph.init import Law
from gradgauge.graph.layers import Layer
from gradgauge.remedy.initial import law_of
from gradgauge.remedy.norms import behind, layer_norm
from gradgauge.remedy.patch import Change, Insert, Patch, Redraw, Rewire, Scale, Store
from gradgauge.remedy.places import (
    heads_of,
    is_normalised,
    is_zero,
    own_bias,
    shape_of,
    value_of,
    zeros,
)
from gradgauge.remedy.row import Remedy, counted
from gradgauge.remedy.snippets import at, per_layer
from gradgauge.schema.report import Finding

FOUND = frozenset({"GF101", "GF102"})
NO_BRANCH = "no residual branch ends in a dense or convolution layer without a norm"


@dataclass(frozen=True, slots=True)
class Branch:
    """f of y = x + f(x): the addition, the input of it that f feeds, and f's heads in order."""

    add: Layer
    index: int
    heads: tuple[Layer, ...]

    @property
    def last(self) -> Layer:
        """The head whose output is added."""
        return self.heads[-1]


def branches(assessment: Assessment) -> list[Branch]:
    """Residual branches whose last layer is a head of its own parameters without a norm."""
    found = []
    for add in assessment.layers:
        branch = _branch(add, assessment) if add.kind == "add" and add.op == "Add" else None
        if branch is not None:
            found.append(branch)
    return found


def _branch(add: Layer, assessment: Assessment) -> Branch | None:
    layers = assessment.by_id
    fed = sorted(assessment.before.get(add.id, ()), key=lambda key: layers[key].depth)
    if not fed or len(fed) > 2 or layers[fed[-1]].kind != "linear":
        return None
    inner = _inner(fed[-1], fed[0] if len(fed) == 2 else None, assessment)
    if inner is None:
        return None
    heads = heads_of(assessment, [key for key in inner if layers[key].kind == "linear"])
    last = layers[fed[-1]]
    if last not in heads or is_normalised(last, assessment):
        return None
    index = next((e.index for e in add.edges if e.value == last.output), None)
    return None if index is None else Branch(add, index, tuple(heads))


_BRANCH, _SKIP = 1, 2


def _inner(last: str, skip: str | None, assessment: Assessment) -> list[str] | None:
    """What `last` is computed from and `skip` is not, in order.

    None where `skip` itself is computed from more than that (a projection's one layer is allowed).
    Both are followed back side by side, latest layers first, only until they have met.
    """
    places = assessment.places
    sides = {last: _BRANCH}
    if skip is not None:
        sides[skip] = sides.get(skip, 0) | _SKIP
    todo = [(-places[key], key) for key in sides]
    heapify(todo)
    apart = sum(side != _BRANCH | _SKIP for side in sides.values())
    inner = []
    while apart:
        key = heappop(todo)[1]
        side = sides[key]
        apart -= side != _BRANCH | _SKIP
        if side == _BRANCH:
            inner.append(key)
        elif side == _SKIP and key != skip:
            return None
        for before in dict.fromkeys(assessment.before.get(key, ())):
            held = sides.get(before, 0)
            sides[before] = side | held
            if not held:
                heappush(todo, (-places[before], before))
            apart += (sides[before] != _BRANCH | _SKIP) - (held in {_BRANCH, _SKIP})
    return inner[::-1]


def _check(assessment: Assessment, _finding: Finding) -> str | None:
    return None if branches(assessment) else NO_BRANCH


def _scaled(assessment: Assessment, _finding: Finding) -> Patch:
    """Every branch's last layer by 1 / sqrt(number of branches)."""
    held = branches(assessment)
    factor = len(held) ** -0.5
    names = [n for b in held for n in b.last.params if not is_zero(n, assessment)]
    return tuple(Scale(name, factor) for name in names)


def _fixup(assessment: Assessment, _finding: Finding) -> Patch:
    """With L branches of m layers: the last one zero, He's law times L^(-1/(2m-2)) before it."""
    held = branches(assessment)
    changes: list[Change] = []
    for i, branch in enumerate(held):
        shape = shape_of(branch.last.params[0], assessment)
        changes.append(Redraw(branch.last.params[0], Law("zeros", shape), 0))
        inner = branch.heads[:-1]
        for j, head in enumerate(inner):
            law = law_of("he", head, assessment)
            law = replace(law, gain=law.gain * len(held) ** (-1 / (2 * len(inner))))
            changes.append(Redraw(head.params[0], law, assessment.seed + 97 * i + j))
        biases = [own_bias(head, assessment) for head in branch.heads]
        changes += [c for name in biases if name is not None for c in zeros(name, assessment)]
    return tuple(changes)


def _rezero(assessment: Assessment, _finding: Finding) -> Patch:
    """A stored factor of 0 on every branch."""
    changes: list[Change] = []
    for branch in branches(assessment):
        made = f"{branch.last.output}.gradgauge.scaled"
        alpha = f"{made}.alpha"
        changes += [
            Store(alpha, Law("zeros", (1,)), 0, branch.last.params[0]),
            Insert("Mul", (branch.last.output, alpha), made),
            Rewire(branch.add.nodes[0], branch.index, made),
        ]
    return tuple(changes)


def _lasts(assessment: Assessment) -> list[Layer]:
    return [branch.last for branch in branches(assessment)]


@dataclass(frozen=True, slots=True)
class PostNorm:
    """Names of values: x, x + f(x), its norm; and of the nodes that add and norm."""

    start: str
    summed: str
    normed: str
    add: str
    norm: str
    skip: int


def post_norms(assessment: Assessment) -> list[PostNorm]:
    """Additions that nothing but a LayerNormalization reads, in order."""
    found = []
    layers = {layer.id: layer for layer in assessment.layers}
    for norm in assessment.layers:
        fed = assessment.before.get(norm.id, ())
        add = layers[fed[0]] if norm.op == "LayerNormalization" and len(fed) == 1 else None
        if add is None or add.kind != "add" or add.op != "Add" or add.output not in norm.inputs:
            continue
        start = _start(add, assessment)
        alone = len(list(value_of(add.output, assessment).uses())) == 1
        if start is not None and alone:
            value, skip = start
            found.append(
                PostNorm(value, add.output, norm.output, add.nodes[0], norm.nodes[0], skip)
            )
    return found


def _start(add: Layer, assessment: Assessment) -> tuple[str, int] | None:
    """The addition's input that its other input is computed from, and which one it is."""
    for edge in add.edges:
        others = [other.value for other in add.edges if other is not edge]
        if len(others) == 1 and _depends(others[0], edge.value, assessment):
            return edge.value, edge.index
    return None


def _depends(value: str, on: str, assessment: Assessment) -> bool:
    """Followed back no further than to where `on` is made."""
    made_at = assessment.made_at
    start = made_at.get(on, -1)
    todo, seen = [value_of(value, assessment)], set[str]()
    while todo:
        producer = todo.pop().producer()
        for v in producer.inputs if producer is not None else ():
            name = v.name if v is not None else None
            if v is None or name is None or name in seen:
                continue
            if name == on:
                return True
            seen.add(name)
            if made_at.get(name, -1) > start:
                todo.append(v)
    return False


def _check_post(assessment: Assessment, _finding: Finding) -> str | None:
    held = post_norms(assessment)
    if not held:
        return "no LayerNormalization reads a residual addition alone"
    if any(value_of(block.normed, assessment).is_graph_output() for block in held):
        return "a norm behind a residual addition is the network's own output"
    return None


def _to_pre(assessment: Assessment, _finding: Finding) -> Patch:
    """X + f(norm(x)) of norm(x + f(x)), and one norm more at the end of the stream."""
    held = post_norms(assessment)
    sums = {block.normed: block.summed for block in held}
    starts = {block.start for block in held}
    changes: list[Change] = []
    for block in held:
        stream = sums.get(block.start, block.start)
        changes += [Rewire(block.norm, 0, stream), Rewire(block.add, block.skip, stream)]
        changes += _inside(block, assessment)
        if block.normed not in starts:
            changes += _closed(block, assessment)
    return tuple(changes)


def _inside(block: PostNorm, assessment: Assessment) -> Iterator[Change]:
    """What the branch has read of the stream it now reads of the norm."""
    for use in value_of(block.start, assessment).uses():
        if (use.node.name, use.idx) != (block.add, block.skip):
            yield Rewire(use.node.name or "", use.idx, block.normed)


def _closed(block: PostNorm, assessment: Assessment) -> list[Change]:
    """A fresh norm, as wide as the one that was moved, for whoever reads the end of the stream."""
    like = next(x.params[0] for x in assessment.layers if x.nodes[0] == block.norm)
    made, changes = layer_norm(block.summed, shape_of(like, assessment)[-1], like, assessment)
    return [*changes, *behind(block.normed, made, assessment)]


def _normed(assessment: Assessment) -> list[Layer]:
    names = {block.norm for block in post_norms(assessment)}
    return [layer for layer in assessment.layers if layer.nodes[0] in names]


def _scale_snippets(a: Assessment, _f: Finding, layers: Sequence[Layer]) -> Mapping[str, str]:
    count = len(branches(a))
    return per_layer(
        layers,
        f"with torch.no_grad():\n    layer.weight *= {count}**-0.5  # as many residual branches",
        f"layer.kernel.assign(layer.kernel * {count}**-0.5)  # as many residual branches",
        f'params = params | {{name: layer | {{"kernel": layer["kernel"] * {count}**-0.5}}}}',
    )


def _fixup_snippets(_a: Assessment, _f: Finding, layers: Sequence[Layer]) -> Mapping[str, str]:
    return per_layer(
        layers,
        "nn.init.zeros_(layer.weight)",
        "layer.kernel.assign(0 * layer.kernel)",
        'params = params | {name: layer | {"kernel": 0 * layer["kernel"]}}',
        first="the last layer of each branch; those before it: He's law times L**(-1/(2*m - 2))",
    )


def _rezero_snippets(_a: Assessment, _f: Finding, layers: Sequence[Layer]) -> Mapping[str, str]:
    return at(
        layers,
        "self.alpha = nn.Parameter(torch.zeros(1))\nx = x + self.alpha * branch(x)",
        "alpha = self.add_weight(shape=(1,), initializer='zeros')\nx = x + alpha * branch(x)",
        "alpha = self.param('alpha', flax.linen.initializers.zeros, (1,))\n"
        "x = x + alpha * branch(x)",
    )


def _pre_snippets(_a: Assessment, _f: Finding, layers: Sequence[Layer]) -> Mapping[str, str]:
    last = "\nx = final_norm(x)  # once, after the last block"
    code = "x = x + branch(norm(x))  # instead of norm(x + branch(x))" + last
    return at(layers, code, code, code)


SCALE_RESIDUAL = Remedy(
    action="scale_residual",
    answers=FOUND,
    cost="init",
    does="multiplies the last layer of each residual branch by 1/sqrt(number of branches)",
    rationale=(
        "each branch without a norm adds its own gradient to what passes by, doubling it in the "
        "worst case; at 1/sqrt(L) the L of them together add no more than one did"
    ),
    side_effects=("branches contribute less at first",),
    references=("Radford et al. 2019, section 2.3", "Hanin & Rolnick 2018"),
    check=_check,
    rewrite=_scaled,
    title=lambda a, _f: (
        f"Scale the last layer of {len(branches(a))} residual branches by "
        f"{len(branches(a)) ** -0.5:.3g}"
    ),
    targets=lambda a, _f: tuple(layer.id for layer in _lasts(a)),
    snippets=_scale_snippets,
)
FIXUP = Remedy(
    action="fixup",
    answers=FOUND,
    cost="init",
    does="starts each residual branch at zero and scales the layers before its last (Fixup)",
    rationale=(
        "a branch whose last layer is zero passes the gradient on unchanged, and a first step "
        "moves L scaled branches by as much as one"
    ),
    side_effects=("what the branches have learnt is lost: do this before training",),
    references=("Zhang, Dauphin & Ma 2019",),
    check=_check,
    rewrite=_fixup,
    title=lambda a, _f: f"Start {len(branches(a))} residual branches at zero (Fixup)",
    targets=lambda a, _f: tuple(layer.id for layer in _lasts(a)),
    snippets=_fixup_snippets,
)
REZERO = Remedy(
    action="rezero",
    answers=FOUND,
    cost="architecture",
    does="puts a learnt factor that starts at zero on each residual branch (ReZero)",
    rationale=(
        "with the factor at zero every block is the identity, and the gradient reaches the input "
        "unchanged at any depth"
    ),
    side_effects=("one parameter a branch more", "branches learn from the second step on"),
    references=("Bachlechner et al. 2021", "De & Smith 2020, SkipInit"),
    check=_check,
    rewrite=_rezero,
    title=lambda a, _f: f"Put a factor that starts at zero on {len(branches(a))} branches (ReZero)",
    targets=lambda a, _f: tuple(layer.id for layer in _lasts(a)),
    snippets=_rezero_snippets,
)
PRE_NORM = Remedy(
    action="pre_norm",
    answers=FOUND,
    cost="architecture",
    does="moves the norm behind each residual addition in front of its branch, with one at the end",
    rationale=(
        "a norm on the stream divides every gradient that passes it; in front of the branch it "
        "leaves the stream alone"
    ),
    side_effects=("the network's function changes", "one norm more"),
    references=("Xiong et al. 2020", "Wang et al. 2019, Learning deep transformer models"),
    check=_check_post,
    rewrite=_to_pre,
    title=lambda a, _f: f"Move {counted(_normed(a))} in front of the residual branches (pre-norm)",
    targets=lambda a, _f: tuple(layer.id for layer in _normed(a)),
    snippets=_pre_snippets,
)

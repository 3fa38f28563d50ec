"""A residual path for a plain deep network: each block of one shape adds to what it reads."""

from collections.abc import Mapping, Sequence

import onnx_ir

from gradgauge.assess import Assessment
from gradgauge.graph.init import Law
from gradgauge.graph.layers import Layer
from gradgauge.remedy.norms import behind
from gradgauge.remedy.patch import Change, Insert, Patch, Store
from gradgauge.remedy.places import activation_of, heads_of, is_output, readers, value_of
from gradgauge.remedy.row import Remedy, counted
from gradgauge.remedy.snippets import at
from gradgauge.risk.signals import FOLLOWERS
from gradgauge.schema.report import Finding

FEWEST = 4  # blocks below which depth is not what is wrong


def _blocks(assessment: Assessment) -> list[tuple[Layer, str, str]]:
    """Hidden heads whose activation's output is shaped as what they read, and both names."""
    found = []
    for head in heads_of(assessment, [layer.id for layer in assessment.layers]):
        ends = _end(head, assessment)
        if ends is None or is_output(head, assessment):
            continue
        read = [e.value for e in head.edges]
        if len(read) == 1 and _same(read[0], ends, assessment):
            found.append((head, read[0], ends))
    return found


def _end(head: Layer, assessment: Assessment) -> str | None:
    """What the head's activation puts out; of SiLU and GELU written out, x f(x) and its factors."""
    ends = activation_of(head, assessment)
    if ends is not None:
        return ends.output
    key, below = head, readers(head, assessment)
    while len(below) == 1 and below[0].kind in FOLLOWERS:
        key, below = below[0], readers(below[0], assessment)
    kinds = {layer.kind: layer for layer in below}
    if len(below) != 2 or kinds.keys() != {"activation", "gate"}:
        return None
    gate = kinds["gate"]
    if set(assessment.before[gate.id]) != {key.id, kinds["activation"].id}:
        return None
    value = value_of(gate.output, assessment)
    while len(uses := tuple(value.uses())) == 1 and _is_factor(uses[0].node):
        value = uses[0].node.outputs[0]
    return value.name


def _is_factor(node: onnx_ir.Node) -> bool:
    """Whether it multiplies by a stored number."""
    return node.op_type == "Mul" and any(v is not None and _is_number(v) for v in node.inputs)


def _is_number(value: onnx_ir.Value) -> bool:
    producer = value.producer()
    stored = value.is_initializer() or (producer is not None and producer.op_type == "Constant")
    return stored and value.shape is not None and all(d == 1 for d in value.shape)


def _same(one: str, other: str, assessment: Assessment) -> bool:
    shapes = [value_of(name, assessment).shape for name in (one, other)]
    known = [None if s is None else tuple(str(d) for d in s)[1:] for s in shapes]
    return known[0] is not None and len(known[0]) > 0 and known[0] == known[1]


def _check(assessment: Assessment, _finding: Finding) -> str | None:
    if any(layer.kind == "add" for layer in assessment.layers):
        return "the network has additions already"
    count = len(_blocks(assessment))
    if count < FEWEST:
        return f"{count} hidden layers hand on the shape that they read, {FEWEST} are needed"
    return None


def _skipped(assessment: Assessment, _finding: Finding) -> Patch:
    """X + a f(x) of f(x), a learnt and 1 / number of blocks at first."""
    held = _blocks(assessment)
    streams: dict[str, str] = {}
    changes: list[Change] = []
    for head, start, end in held:
        made = f"{end}.gradgauge.sum"
        factor, scaled = f"{made}.factor", f"{made}.scaled"
        law = Law("constant", (1,), value=1.0 / len(held))
        changes += [
            Store(factor, law, 0, head.params[0]),
            Insert("Mul", (end, factor), scaled),
            Insert("Add", (streams.get(start, start), scaled), made),
            *behind(end, made, assessment),
        ]
        streams[end] = made
    return tuple(changes)


def _heads(assessment: Assessment) -> list[Layer]:
    return [head for head, _, _ in _blocks(assessment)]


def _snippets(a: Assessment, _f: Finding, layers: Sequence[Layer]) -> Mapping[str, str]:
    count = len(_blocks(a))
    return at(
        layers,
        f"self.factor = nn.Parameter(torch.tensor(1 / {count}))  # one for each block\n"
        "x = x + self.factor * block(x)  # instead of block(x)",
        f"x = keras.layers.add([x, keras.layers.Rescaling(1 / {count})(block(x))])",
        f"x = x + block(x) / {count}  # instead of block(x)",
    )


SKIP = Remedy(
    action="insert_residual",
    answers=frozenset({"GF101", "GF102"}),
    cost="architecture",
    does="adds what each block of one shape reads to what it puts out, times a learnt factor that "
    "starts at 1/number of blocks",
    rationale=(
        "past each block the gradient has a path of slope 1, and blocks whose factors sum to 1 "
        "add no more to it together than one did, also where what they add is never negative"
    ),
    side_effects=("one parameter a block more", "the network's function changes"),
    references=("He et al. 2016, Deep residual learning", "Hanin & Rolnick 2018"),
    check=_check,
    rewrite=_skipped,
    title=lambda a, _f: f"Add a residual path around {counted(_heads(a))}",
    targets=lambda a, _f: tuple(layer.id for layer in _heads(a)),
    snippets=_snippets,
)

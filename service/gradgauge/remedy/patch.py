"""A patch is data: what changes where; applying it gives a changed copy of the model."""

from collections.abc import Callable, Sequence
from dataclasses import dataclass

import numpy as np
import onnx_ir

from gradgauge.graph.init import Law, draw
from gradgauge.graph.rewrite import insert_op, rewire, store, values_of


@dataclass(frozen=True, slots=True)
class Scale:
    """Multiply a stored tensor by `factor`."""

    initializer: str
    factor: float


@dataclass(frozen=True, slots=True)
class Shift:
    """Add `amounts` to a stored bias, one amount per unit (its last axis)."""

    initializer: str
    amounts: tuple[float, ...]


@dataclass(frozen=True, slots=True)
class Redraw:
    """Replace a stored tensor by a draw from `law` with `seed`."""

    initializer: str
    law: Law
    seed: int


@dataclass(frozen=True, slots=True)
class Fill:
    """Set elements of a stored tensor from `start` on along its last axis."""

    initializer: str
    start: int
    amounts: tuple[float, ...]


@dataclass(frozen=True, slots=True)
class Store:
    """Add a stored tensor, drawn from `law` with `seed`, of the type of the tensor `like`."""

    initializer: str
    law: Law
    seed: int
    like: str


@dataclass(frozen=True, slots=True)
class SwapOp:
    """Make another op of a node; its attributes are those given here."""

    node: str
    op_type: str
    attributes: tuple[tuple[str, float], ...] = ()


@dataclass(frozen=True, slots=True)
class SwapRecurrent:
    """Make `activation` the activation of an RNN node, in every direction."""

    node: str
    activation: str


@dataclass(frozen=True, slots=True)
class SwapCell:
    """Make a GRU or an LSTM of an RNN node: direction and width are kept, the rest is the op's."""

    node: str
    op_type: str


@dataclass(frozen=True, slots=True)
class Insert:
    """Add a node `output` that reads `inputs`; nothing reads it before a `Rewire` says so."""

    op_type: str
    inputs: tuple[str, ...]
    output: str
    attributes: tuple[tuple[str, float | tuple[int, ...]], ...] = ()


@dataclass(frozen=True, slots=True)
class Rewire:
    """Let a node read `value` at its input `index`."""

    node: str
    index: int
    value: str


Change = Scale | Shift | Redraw | Fill | Store | SwapOp | SwapRecurrent | SwapCell | Insert | Rewire
Patch = tuple[Change, ...]


@dataclass(frozen=True, slots=True)
class _Copy:
    """The model that is changed, with its nodes and values by name."""

    model: onnx_ir.Model
    nodes: dict[str | None, onnx_ir.Node]
    values: dict[str, onnx_ir.Value]


def apply(model: onnx_ir.Model, patch: Sequence[Change]) -> onnx_ir.Model:
    """A copy of `model` with the patch's changes; names are kept, `model` is untouched.

    The copy's metadata lists the changes under `gradgauge.patch`, after those it had.
    """
    copy = model.clone()
    held = _Copy(copy, {node.name: node for node in copy.graph}, values_of(copy.graph))
    for change in patch:
        _APPLY[type(change)](held, change)
    if any(isinstance(change, Rewire) for change in patch):
        copy.graph.sort()
    said = [copy.metadata_props.get("gradgauge.patch"), *(words_of(change) for change in patch)]
    copy.metadata_props["gradgauge.patch"] = "; ".join(words for words in said if words)
    return copy


def _scale(copy: _Copy, change: Scale) -> None:
    _replace(copy.model, change.initializer, lambda old: old * change.factor)


def _shift(copy: _Copy, change: Shift) -> None:
    _replace(copy.model, change.initializer, lambda old: old + np.asarray(change.amounts))


def _redraw(copy: _Copy, change: Redraw) -> None:
    rng = np.random.default_rng(change.seed)
    _replace(copy.model, change.initializer, lambda _old: draw(change.law, rng, np.float64))


def _fill(copy: _Copy, change: Fill) -> None:
    def filled(old: np.ndarray) -> np.ndarray:
        new = old.copy()
        new[..., change.start : change.start + len(change.amounts)] = change.amounts
        return new

    _replace(copy.model, change.initializer, filled)


def _store(copy: _Copy, change: Store) -> None:
    like = copy.model.graph.initializers[change.like].const_value
    if like is None:
        raise AssertionError("unreachable")
    drawn = draw(change.law, np.random.default_rng(change.seed), np.float64)
    made = store(copy.model.graph, change.initializer, drawn.astype(like.numpy().dtype))
    copy.values[change.initializer] = made


def _swap(copy: _Copy, change: SwapOp) -> None:
    node = copy.nodes[change.node]
    node.op_type = change.op_type
    node.attributes.clear()
    for name, value in change.attributes:
        node.attributes[name] = onnx_ir.AttrFloat32(name, value)


def _swap_recurrent(copy: _Copy, change: SwapRecurrent) -> None:
    node = copy.nodes[change.node]
    direction = node.attributes.get("direction")
    count = 2 if direction is not None and direction.as_string() == "bidirectional" else 1
    node.attributes["activations"] = onnx_ir.AttrStrings("activations", [change.activation] * count)


def _swap_cell(copy: _Copy, change: SwapCell) -> None:
    node = copy.nodes[change.node]
    node.op_type = change.op_type
    kept = {"direction", "hidden_size", "layout"}
    for name in [name for name in node.attributes if name not in kept]:
        del node.attributes[name]
    if change.op_type == "GRU":  # as torch's and cuDNN's, whose kernels then serve it
        node.attributes["linear_before_reset"] = onnx_ir.AttrInt64("linear_before_reset", 1)


def _insert(copy: _Copy, change: Insert) -> None:
    read = [copy.values[name] for name in change.inputs]
    node = insert_op(copy.model.graph, change.op_type, read, change.output, dict(change.attributes))
    copy.nodes[change.output] = node
    copy.values[change.output] = node.outputs[0]


def _rewire(copy: _Copy, change: Rewire) -> None:
    rewire(copy.nodes[change.node], change.index, copy.values[change.value])


def _replace(model: onnx_ir.Model, name: str, change: Callable[[np.ndarray], np.ndarray]) -> None:
    """Compute in float64, store in the initializer's own type (which may overflow) and name."""
    value = model.graph.initializers[name]
    if value.const_value is None:
        raise AssertionError("unreachable")
    old = value.const_value.numpy()
    with np.errstate(over="ignore"):
        new = change(old.astype(np.float64)).astype(old.dtype)
    value.const_value = onnx_ir.Tensor(new, dtype=value.const_value.dtype, name=name)


_APPLY: dict[type, Callable[..., None]] = {
    Scale: _scale,
    Shift: _shift,
    Redraw: _redraw,
    Fill: _fill,
    Store: _store,
    SwapOp: _swap,
    SwapRecurrent: _swap_recurrent,
    SwapCell: _swap_cell,
    Insert: _insert,
    Rewire: _rewire,
}


def words_of(change: Change) -> str:
    """A change in a few words, as the metadata lists it."""
    return _WORDS[type(change)](change)


_WORDS: dict[type, Callable[..., str]] = {
    Scale: lambda c: f"{c.initializer} * {c.factor:.6g}",
    Shift: lambda c: f"{c.initializer} re-centred",
    Redraw: lambda c: f"{c.initializer} ~ {c.law.kind}",
    Fill: lambda c: f"{c.initializer}[{c.start}:{c.start + len(c.amounts)}] filled",
    Store: lambda c: f"+ {c.initializer} ~ {c.law.kind}",
    SwapOp: lambda c: f"{c.node} -> {c.op_type}",
    SwapRecurrent: lambda c: f"{c.node} activations -> {c.activation}",
    SwapCell: lambda c: f"{c.node} -> {c.op_type}",
    Insert: lambda c: f"+ {c.output} = {c.op_type}({', '.join(c.inputs)})",
    Rewire: lambda c: f"{c.node} reads {c.value}",
}

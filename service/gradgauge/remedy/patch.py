"""A patch is data: what changes where; applying it gives a changed copy of the model."""

from collections.abc import Callable, Sequence
from dataclasses import dataclass

import numpy as np
import onnx_ir

from gradgauge.graph.init import Law, draw


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
class SwapOp:
    """Make another op of a node; attributes of the old one are dropped."""

    node: str
    op_type: str


@dataclass(frozen=True, slots=True)
class SwapRecurrent:
    """Make `activation` the activation of an RNN node, in every direction."""

    node: str
    activation: str


Change = Scale | Shift | Redraw | SwapOp | SwapRecurrent
Patch = tuple[Change, ...]


def apply(model: onnx_ir.Model, patch: Sequence[Change]) -> onnx_ir.Model:
    """A copy of `model` with the patch's changes; names are kept, `model` is untouched.

    The copy's metadata lists the changes under `gradgauge.patch`.
    """
    copy = model.clone()
    nodes = {node.name: node for node in copy.graph}
    for change in patch:
        _APPLY[type(change)](copy, nodes, change)
    copy.metadata_props["gradgauge.patch"] = "; ".join(_words(change) for change in patch)
    return copy


def _scale(model: onnx_ir.Model, _: dict[str | None, onnx_ir.Node], change: Scale) -> None:
    _replace(model, change.initializer, lambda old: old * change.factor)


def _shift(model: onnx_ir.Model, _: dict[str | None, onnx_ir.Node], change: Shift) -> None:
    _replace(model, change.initializer, lambda old: old + np.asarray(change.amounts))


def _redraw(model: onnx_ir.Model, _: dict[str | None, onnx_ir.Node], change: Redraw) -> None:
    rng = np.random.default_rng(change.seed)
    _replace(model, change.initializer, lambda _old: draw(change.law, rng, np.float64))


def _swap(_: onnx_ir.Model, nodes: dict[str | None, onnx_ir.Node], change: SwapOp) -> None:
    node = nodes[change.node]
    node.op_type = change.op_type
    node.attributes.clear()


def _swap_recurrent(
    _: onnx_ir.Model, nodes: dict[str | None, onnx_ir.Node], change: SwapRecurrent
) -> None:
    node = nodes[change.node]
    direction = node.attributes.get("direction")
    count = 2 if direction is not None and direction.as_string() == "bidirectional" else 1
    node.attributes["activations"] = onnx_ir.AttrStrings("activations", [change.activation] * count)


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
    SwapOp: _swap,
    SwapRecurrent: _swap_recurrent,
}


def _words(change: Change) -> str:
    match change:
        case Scale():
            return f"{change.initializer} * {change.factor:.6g}"
        case Shift():
            return f"{change.initializer} re-centred"
        case Redraw():
            return f"{change.initializer} ~ {change.law.kind}"
        case SwapOp():
            return f"{change.node} -> {change.op_type}"
        case SwapRecurrent():
            return f"{change.node} activations -> {change.activation}"

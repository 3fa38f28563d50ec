"""One input's share in a parameter's gradient, from what a use takes and what comes back to it.

Of a product with a matrix the share of an input is a sum of outer products, whose inner products
are those of their factors (Goodfellow 2015, arXiv:1510.01799): it need not be made. Other uses are
differentiated by themselves, input by input.
"""

from collections.abc import Mapping
from dataclasses import dataclass
from functools import partial

import torch
from torch import Tensor
from torch.nn import functional

from gradgauge.errors import AnalysisFailed
from gradgauge.ops.window import resolve
from gradgauge.sampled.executable import execute
from gradgauge.sampled.uses import Use

NEAR = {torch.float64: 1e-6}  # how closely a step on one input repeats its part of the whole
LOOSE = 1e-2


@dataclass(frozen=True, slots=True)
class Outer:
    """Per input a sum over places of left times right, a matrix of `shape`.

    Both are [inputs, places, width]; one of them may be [inputs, places] whole numbers instead,
    which stand for the unit vectors of a table's rows.
    """

    left: Tensor
    right: Tensor
    shape: tuple[int, int]

    def turned(self) -> "Outer":
        """Of the transposed matrix."""
        return Outer(self.right, self.left, self.shape[::-1])

    def whole(self) -> Tensor:
        """[inputs, elements]."""
        left, right = (
            x
            if x.is_floating_point()
            else functional.one_hot(x, n).to(self._float)  # only of small tables
            for x, n in zip((self.left, self.right), self.shape, strict=True)
        )
        return torch.bmm(left.mT, right).flatten(1)

    @property
    def _float(self) -> torch.dtype:
        return self.left.dtype if self.left.is_floating_point() else self.right.dtype


Share = Outer | Tensor  # the tensor [inputs, elements]


@dataclass(frozen=True, slots=True)
class Stand:
    """Which axis of each value holds the inputs, how many there are, and which of them count."""

    axes: Mapping[str, int | None]
    rows: int
    kept: Tensor

    def moved(self, x: Tensor, axis: int) -> Tensor:
        """Inputs first, what a leading axis folds with them second: [inputs, ...]."""
        if x.shape[axis] != self.rows:
            x = x.reshape(self.rows, -1, *x.shape[1:])
            axis = 0
        return x.movedim(axis, 0)

    def places(self, x: Tensor, axis: int) -> Tensor:
        """[inputs, places, width of the last axis], of the inputs that count."""
        return self.moved(x, axis).reshape(self.rows, -1, x.shape[-1]).index_select(0, self.kept)

    def one(self, x: Tensor, axis: int | None, row: int) -> Tensor:
        """An input's part of a value, as a batch of one; all of it where it holds no inputs."""
        if axis is None:
            return x
        each = x.shape[axis] // self.rows
        return x.narrow(axis, row * each, each)

    def summed(self, x: Tensor, axis: int, shape: torch.Size) -> Tensor | None:
        """[inputs, elements] of the gradient of what was broadcast from `shape` to x's."""
        if x.shape[axis] != self.rows:
            x = x.reshape(self.rows, -1, *x.shape[1:])
            axis = 0
        wide = (1,) * (x.ndim - len(shape)) + tuple(shape)
        if wide[axis] != 1:
            return None
        over = [k for k, size in enumerate(wide) if size == 1 and k != axis]
        held = x.sum(dim=over, keepdim=True) if over else x
        return held.movedim(axis, 0).flatten(1).index_select(0, self.kept)


Taken = Mapping[str, Tensor]  # values by name
Coming = Mapping[str, Tensor]  # gradients by the name of what they are of


def shares(use: Use, taken: Taken, coming: Coming, stand: Stand) -> dict[int, Share] | None:
    """By the operand's place; None where the use cannot be told input by input."""
    if not all(taken[use.step.inputs[place] or ""].numel() for place in use.operands):
        return None
    found: dict[int, Share] = {}
    left = []
    for place in use.operands:
        form = _FORMS.get(use.step.op) if use.step.outputs[0] in coming else None
        share = None if form is None else form(use, place, taken, coming, stand)
        if share is None:
            left.append(place)
        else:
            found[place] = share
    if left:
        rest = _by_itself(use, left, taken, coming, stand)
        if rest is None:
            return None
        found.update(rest)
    return found


def _matmul(use: Use, place: int, taken: Taken, coming: Coming, stand: Stand) -> Share | None:
    names, out = use.step.inputs, use.step.outputs[0]
    weight, other, dy = taken[names[place] or ""], taken[names[1 - place] or ""], coming[out]
    axis, axis_out = stand.axes.get(names[1 - place] or ""), stand.axes[out]
    if weight.ndim != 2 or other.ndim < 2 or axis is None or axis_out is None:
        return None
    shape = (weight.shape[0], weight.shape[1])
    if place == 1:
        if axis == other.ndim - 1:
            return None
        return Outer(stand.places(other, axis), stand.places(dy, axis_out), shape)
    if axis == other.ndim - 2:
        return None
    turn = partial(_turned_axis, other.ndim)
    right = stand.places(other.mT, turn(axis))
    return Outer(stand.places(dy.mT, turn(axis_out)), right, shape)


def _turned_axis(ndim: int, axis: int) -> int:
    return {ndim - 1: ndim - 2, ndim - 2: ndim - 1}.get(axis, axis)


def _gemm(use: Use, place: int, taken: Taken, coming: Coming, stand: Stand) -> Share | None:
    step, out = use.step, use.step.outputs[0]
    names, options = step.inputs, step.attributes
    dy, axis_out = coming[out], stand.axes[out]
    axis = stand.axes.get(names[0] or "")
    if axis_out != 0 or (place < 2 and axis != 0) or options.get("transA"):
        return None
    if place == 2:
        return stand.summed(dy * options.get("beta", 1.0), 0, taken[names[2] or ""].shape)
    if place == 0:
        return None
    weight = taken[names[1] or ""]
    back = bool(options.get("transB"))
    shape = (weight.shape[1], weight.shape[0]) if back else (weight.shape[0], weight.shape[1])
    alpha = options.get("alpha", 1.0)
    dy = stand.places(dy, 0)
    made = Outer(stand.places(taken[names[0] or ""], 0), dy if alpha == 1 else dy * alpha, shape)
    return made.turned() if back else made


def _gather(use: Use, place: int, taken: Taken, coming: Coming, stand: Stand) -> Share | None:
    """Rows of a table by number."""
    step, out = use.step, use.step.outputs[0]
    table, ids = taken[step.inputs[0] or ""], taken[step.inputs[1] or ""]
    axis, axis_out = stand.axes.get(step.inputs[1] or ""), stand.axes[out]
    if place or step.attributes.get("axis", 0) or table.ndim != 2 or axis is None:
        return None
    if axis_out is None or ids.ndim == 0:
        return None
    at = stand.places(ids.unsqueeze(-1), axis).squeeze(-1).long()
    at = torch.where(at < 0, at + len(table), at)
    return Outer(at, stand.places(coming[out], axis_out), (table.shape[0], table.shape[1]))


def _pointwise(use: Use, place: int, taken: Taken, coming: Coming, stand: Stand) -> Share | None:
    """Sums, differences and products with what is broadcast."""
    step, out = use.step, use.step.outputs[0]
    dy, axis = coming[out], stand.axes[out]
    if len(use.operands) > 1 or axis is None:
        return None
    if step.op == "Mul":
        dy = dy * taken[step.inputs[1 - place] or ""]
    if step.op == "Sub" and place == 1:
        dy = -dy
    return stand.summed(dy, axis, taken[step.inputs[place] or ""].shape) if place < 2 else None


def _layer_norm(use: Use, place: int, taken: Taken, coming: Coming, stand: Stand) -> Share | None:
    step, out = use.step, use.step.outputs[0]
    axis = stand.axes[out]
    if place == 0 or axis is None or any(step.outputs[1:]):
        return None
    x, dy = taken[step.inputs[0] or ""], coming[out]
    first = step.attributes.get("axis", -1) % x.ndim
    if axis >= first:
        return None
    if place == 1:
        epsilon = step.attributes.get("epsilon", 1e-5)
        dy = dy * functional.layer_norm(x, x.shape[first:], eps=epsilon)
    return stand.summed(dy, axis, taken[step.inputs[place] or ""].shape)


def _conv(use: Use, place: int, taken: Taken, coming: Coming, stand: Stand) -> Share | None:
    """A kernel by torch's own gradient of it, one input at a time; a bias by sums."""
    step, out = use.step, use.step.outputs[0]
    names, options, dy = step.inputs, step.attributes, coming[out]
    if stand.axes[out] != 0 or stand.axes.get(names[0] or "") != 0 or len(dy) != stand.rows:
        return None
    if place == 2:
        return dy.flatten(2).sum(dim=2).index_select(0, stand.kept)
    if place != 1:
        return None
    x, weight = taken[names[0] or ""], taken[names[1] or ""]
    kernel = tuple(options.get("kernel_shape") or weight.shape[2:])
    strides, dilations, pads = (options.get(k) for k in ("strides", "dilations", "pads"))
    auto_pad = options.get("auto_pad", "NOTSET")
    win = resolve(x.shape[2:], kernel, strides, dilations, pads, auto_pad)
    padding = win.before
    if win.before != win.after:
        pairs = list(zip(win.before, win.after, strict=True))
        x, padding = functional.pad(x, [p for pair in pairs[::-1] for p in pair]), (0,) * len(pairs)
    held = dy.new_empty((len(stand.kept), weight.numel()))
    group, none = options.get("group", 1), [0] * len(kernel)
    how = (win.strides, padding, win.dilations, False, none, group, [False, True, False])
    for at, row in enumerate(stand.kept.tolist()):
        one = slice(row, row + 1)
        made = torch.ops.aten.convolution_backward(dy[one], x[one], weight, None, *how)
        held[at] = made[1].reshape(-1)
    return held


_FORMS = {
    "MatMul": _matmul,
    "Gemm": _gemm,
    "Gather": _gather,
    "Add": _pointwise,
    "Sub": _pointwise,
    "Mul": _pointwise,
    "Expand": _pointwise,
    "LayerNormalization": _layer_norm,
    "Conv": _conv,
}


def _by_itself(
    use: Use, places: list[int], taken: Taken, coming: Coming, stand: Stand
) -> dict[int, Share] | None:
    """The step alone run and differentiated on every input; None where it is another step then."""
    step = use.step
    held: dict[int, list[Tensor]] = {place: [] for place in places}
    weights = {k: taken[step.inputs[k] or ""].detach().requires_grad_() for k in places}
    for row in stand.kept.tolist():
        arguments = [
            weights[k]
            if k in weights
            else stand.one(taken[name], stand.axes.get(name), row)
            if name
            else None
            for k, name in enumerate(step.inputs)
        ]
        try:
            with torch.enable_grad():
                made = execute(step, arguments)
        except AnalysisFailed:
            return None
        pairs = [
            (y, stand.one(coming[name], stand.axes.get(name), row), name)
            for y, name in zip(made, step.outputs, strict=False)
            if name in coming
        ]
        if not all(_repeats(y, taken[name], row, name, stand) for y, _, name in pairs):
            return None
        ends, sent = [y for y, _, _ in pairs], [g for _, g, _ in pairs]
        grads: tuple[Tensor | None, ...] = torch.autograd.grad(
            ends, list(weights.values()), sent, allow_unused=True
        )
        for (place, w), g in zip(weights.items(), grads, strict=True):
            held[place].append((torch.zeros_like(w) if g is None else g).reshape(-1))
    return {place: torch.stack(parts) for place, parts in held.items()}


def _repeats(y: Tensor, whole: Tensor, row: int, name: str, stand: Stand) -> bool:
    part = stand.one(whole, stand.axes.get(name), row)
    near = NEAR.get(y.dtype, LOOSE)
    return (
        y.requires_grad
        and y.shape == part.shape
        and part.numel() > 0
        and torch.allclose(y, part, rtol=near, atol=near * float(part.abs().amax()))
    )

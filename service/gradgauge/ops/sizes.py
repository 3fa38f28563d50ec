"""How many elements an op's output will have, told from its inputs before anything is allocated."""

import math
from collections.abc import Callable, Mapping, Sequence
from typing import Any

import torch
from torch import Tensor

from gradgauge.ops.window import resolve

Arguments = Sequence[Any]
Attributes = Mapping[str, Any]
Rule = Callable[[Arguments, Attributes], int]


def _whole(x: Tensor) -> list[int]:
    """A shape held in a tensor; below zero is left to the op to refuse."""
    return [max(int(n), 0) for n in x.reshape(-1).tolist()]


def _broadcast(arguments: Arguments, _: Attributes) -> int:
    shapes = [a.shape for a in arguments if isinstance(a, Tensor)]
    rank = max((len(s) for s in shapes), default=0)
    sizes = [max((s[-k] for s in shapes if len(s) >= k), default=1) for k in range(1, rank + 1)]
    return math.prod(sizes)


def _tile(arguments: Arguments, _: Attributes) -> int:
    x, repeats = arguments[:2]
    return int(x.numel()) * math.prod(_whole(repeats))


def _expand(arguments: Arguments, _: Attributes) -> int:
    x, shape = arguments[:2]
    wanted = _whole(shape)
    ours = [1] * max(len(wanted) - x.dim(), 0) + list(x.shape)
    wanted = [1] * (len(ours) - len(wanted)) + wanted
    return math.prod(max(a, b) for a, b in zip(ours, wanted, strict=True))


def _range(arguments: Arguments, _: Attributes) -> int:
    start, limit, delta = (float(v.detach()) for v in arguments[:3])
    count = (limit - start) / delta if delta else 0.0
    return max(math.ceil(count), 0) if math.isfinite(count) else 0


def _pad(arguments: Arguments, attributes: Attributes) -> int:
    x = arguments[0]
    pads = attributes["pads"] if "pads" in attributes else arguments[1].tolist()
    axes: Sequence[int] = range(x.dim())
    if len(arguments) > 3 and arguments[3] is not None:
        axes = arguments[3].tolist()
    sizes = list(x.shape)
    for k, axis in enumerate(axes):
        sizes[axis] += pads[k] + pads[k + len(axes)]
    return math.prod(max(n, 0) for n in sizes)


def _one_hot(arguments: Arguments, _: Attributes) -> int:
    return int(arguments[0].numel()) * max(int(arguments[1].detach()), 0)


def _shape_of(arguments: Arguments, _: Attributes) -> int:
    return math.prod(_whole(arguments[0]))


def _resize(arguments: Arguments, attributes: Attributes) -> int:
    x, *others = arguments
    for given in reversed(others):
        if isinstance(given, Tensor) and given.numel():
            held = given.tolist()
            if given.is_floating_point():
                return math.ceil(int(x.numel()) * math.prod(max(s, 0.0) for s in held))
            axes = attributes.get("axes") or range(x.dim())
            sizes = list(x.shape)
            for axis, n in zip(axes, held, strict=False):
                sizes[axis] = n
            return math.prod(max(n, 0) for n in sizes)
    return int(x.numel() * math.prod(attributes.get("scales") or [1.0]))


def _matmul(arguments: Arguments, _: Attributes) -> int:
    a, b = arguments[:2]
    if a.dim() < 2 or b.dim() < 2:
        return int(max(a.numel(), b.numel()))
    batch = _broadcast([a[..., 0, 0], b[..., 0, 0]], {})
    return batch * int(a.shape[-2] * b.shape[-1])


def _conv(arguments: Arguments, attributes: Attributes) -> int:
    x, w = arguments[:2]
    chosen = [attributes.get(n) for n in ("strides", "dilations", "pads")]
    mode = attributes.get("auto_pad", "NOTSET")
    win = resolve(x.shape[2:], tuple(w.shape[2:]), chosen[0], chosen[1], chosen[2], mode)
    padded = math.prod(n + a + b for n, a, b in zip(win.sizes, win.before, win.after, strict=True))
    outputs = math.prod(max(n, 0) for n in win.outputs(ceil=False))
    return max(int(x.shape[0] * w.shape[0]) * outputs, int(x.shape[0] * x.shape[1]) * padded)


def _conv_transpose(arguments: Arguments, attributes: Attributes) -> int:
    x, w = arguments[:2]
    rank = x.dim() - 2
    strides = attributes.get("strides") or [1] * rank
    dilations = attributes.get("dilations") or [1] * rank
    spatial = [
        (n - 1) * s + (k - 1) * d + 1
        for n, k, s, d in zip(x.shape[2:], w.shape[2:], strides, dilations, strict=True)
    ]
    channels = int(w.shape[1]) * int(attributes.get("group", 1))
    return int(x.shape[0]) * channels * int(math.prod(spatial))


_ARITHMETIC = ("Add", "Div", "Max", "Mean", "Min", "Mod", "Mul", "PRelu", "Pow", "Sub", "Sum")
_RULES: dict[str, Rule] = {
    **dict.fromkeys(_ARITHMETIC, _broadcast),
    **dict.fromkeys(("And", "Equal", "Greater", "Less", "Or", "Where", "Xor"), _broadcast),
    "ConstantOfShape": _shape_of,
    "Conv": _conv,
    "ConvTranspose": _conv_transpose,
    "Expand": _expand,
    "MatMul": _matmul,
    "OneHot": _one_hot,
    "Pad": _pad,
    "Range": _range,
    "Resize": _resize,
    "Tile": _tile,
    "Upsample": _resize,
}


def elements(op: str, arguments: Arguments, attributes: Attributes) -> int | None:
    """Elements of the first output, or None where they cannot be told beforehand.

    None too where the inputs do not fit the op: running it says so in its own words.
    """
    rule = _RULES.get(op)
    if rule is None:
        return None
    try:
        with torch.no_grad():
            return rule(arguments, attributes)
    except (RuntimeError, IndexError, ValueError, TypeError, AttributeError, ArithmeticError):
        return None

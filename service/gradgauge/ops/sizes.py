"""How large an op's output will be, told from its inputs before anything is allocated."""

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
    return _together([a.shape for a in arguments if isinstance(a, Tensor)])


def _together(shapes: Sequence[Sequence[int]]) -> int:
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


def _crop_or_pad(arguments: Arguments, attributes: Attributes) -> int:
    x, shape = arguments[:2]
    sizes = list(x.shape)
    axes = attributes.get("axes") or range(x.dim())
    for axis, wanted in zip(axes, _whole(shape), strict=True):
        sizes[axis] = wanted
    return math.prod(sizes)


def _one_hot(arguments: Arguments, _: Attributes) -> int:
    return int(arguments[0].numel()) * max(int(arguments[1].detach()), 0)


def _shape_of(arguments: Arguments, _: Attributes) -> int:
    return math.prod(_whole(arguments[0]))


def _same(arguments: Arguments, _: Attributes) -> int:
    return int(arguments[0].numel())


def _drawn(_: Arguments, attributes: Attributes) -> int:
    return math.prod(attributes["shape"])


def _window(arguments: Arguments, _: Attributes) -> int:
    return max(int(arguments[0]), 0)


def _mel(arguments: Arguments, _: Attributes) -> int:
    return max(int(arguments[0]), 0) * (max(int(arguments[1]), 0) // 2 + 1)


def _dft(arguments: Arguments, attributes: Attributes) -> int:
    x, length = arguments[:2]
    if length is None:
        return 2 * int(x.numel())
    axis = attributes.get("axis", -2)
    if len(arguments) > 2 and arguments[2] is not None:
        axis = int(arguments[2])
    others = int(x.numel()) // max(int(x.shape[axis]), 1)
    return 2 * others * max(int(length), 0)


def _affine(arguments: Arguments, _: Attributes) -> int:
    batch, _channels, *spatial = _whole(arguments[1])
    return batch * math.prod(spatial) * len(spatial)


def _grid_sample(arguments: Arguments, _: Attributes) -> int:
    x, grid = arguments[:2]
    return int(x.shape[0] * x.shape[1] * math.prod(grid.shape[1:-1]))


def _image(arguments: Arguments, attributes: Attributes) -> int:
    x, image, block = arguments[:3]
    win = resolve(_whole(image), _whole(block), None, None, attributes.get("pads"), "NOTSET")
    padded = math.prod(n + a + b for n, a, b in zip(win.sizes, win.before, win.after, strict=True))
    return int(x.shape[0] * x.shape[1]) // max(math.prod(_whole(block)), 1) * padded


def _unpool(arguments: Arguments, attributes: Attributes) -> int:
    x = arguments[0]
    kernel = attributes["kernel_shape"]
    strides = attributes.get("strides") or [1] * len(kernel)
    spatial = [(n - 1) * s + k for n, s, k in zip(x.shape[2:], strides, kernel, strict=True)]
    told = math.prod(_whole(arguments[2])) if arguments[2:] and arguments[2] is not None else 0
    return max(int(x.shape[0] * x.shape[1] * math.prod(spatial)), told)


def _regions(arguments: Arguments, attributes: Attributes) -> int:
    x, rois = arguments[:2]
    each = attributes.get("output_height", 1) * attributes.get("output_width", 1)
    return int(rois.shape[0] * x.shape[1]) * int(each)


def _counts(arguments: Arguments, attributes: Attributes) -> int:
    shape = arguments[0].shape
    rows = int(shape[0]) if len(shape) > 1 else 1
    return rows * (int(max(attributes["ngram_indexes"], default=-1)) + 1)


def _gather(arguments: Arguments, attributes: Attributes) -> int:
    x, indices = arguments[:2]
    return int(x.numel()) // max(int(x.shape[attributes.get("axis", 0)]), 1) * int(indices.numel())


def _gather_nd(arguments: Arguments, attributes: Attributes) -> int:
    x, indices = arguments[:2]
    taken = int(attributes.get("batch_dims", 0)) + int(indices.shape[-1])
    return int(math.prod(indices.shape[:-1]) * math.prod(x.shape[taken:]))


def _joined(arguments: Arguments, _: Attributes) -> int:
    parts = arguments[0] if isinstance(arguments[0], list) else arguments
    return sum(int(part.numel()) for part in parts)


def _einsum(arguments: Arguments, attributes: Attributes) -> int:
    """Of the letters an explicit equation keeps; an ellipsis is left to the op."""
    left, arrow, right = str(attributes["equation"]).replace(" ", "").partition("->")
    sizes: dict[str, int] = {}
    for letters, x in zip(left.split(","), arguments, strict=True):
        sizes.update(zip(letters, x.shape, strict=True))
    return math.prod(sizes[letter] for letter in right) if arrow else 0


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
    batch = _together([a.shape[:-2], b.shape[:-2]])
    return batch * int(a.shape[-2] * b.shape[-1])


def _gemm(arguments: Arguments, attributes: Attributes) -> int:
    a, b = arguments[:2]
    rows = a.shape[1 if attributes.get("transA", 0) else 0]
    return int(rows * b.shape[0 if attributes.get("transB", 0) else 1])


def _conv(arguments: Arguments, attributes: Attributes) -> int:
    """Of the output or of the padded input, which may be made too, whichever is larger."""
    x, w = arguments[:2]
    outputs, padded = _windows(x, tuple(w.shape[2:]), attributes)
    return max(int(x.shape[0] * w.shape[0]) * outputs, int(x.shape[0] * x.shape[1]) * padded)


def _pool(arguments: Arguments, attributes: Attributes) -> int:
    x = arguments[0]
    return int(x.shape[0] * x.shape[1]) * max(_windows(x, attributes["kernel_shape"], attributes))


def _windows(x: Tensor, kernel: Sequence[int], attributes: Attributes) -> tuple[int, int]:
    """Windows, and positions with the padding, of one channel."""
    chosen = [attributes.get(n) for n in ("strides", "dilations", "pads")]
    mode = attributes.get("auto_pad", "NOTSET")
    win = resolve(x.shape[2:], kernel, chosen[0], chosen[1], chosen[2], mode)
    padded = math.prod(n + a + b for n, a, b in zip(win.sizes, win.before, win.after, strict=True))
    return math.prod(max(n, 0) for n in win.outputs(ceil=False)), padded


def _conv_transpose(arguments: Arguments, attributes: Attributes) -> int:
    """Of the uncropped result or of the shape asked for, whichever is larger."""
    x, w = arguments[:2]
    rank = x.dim() - 2
    strides = attributes.get("strides") or [1] * rank
    dilations = attributes.get("dilations") or [1] * rank
    extra = attributes.get("output_padding") or [0] * rank
    spatial = [
        (n - 1) * s + (k - 1) * d + 1 + e
        for n, k, s, d, e in zip(x.shape[2:], w.shape[2:], strides, dilations, extra, strict=True)
    ]
    asked = list(attributes.get("output_shape") or spatial)[-rank:]
    channels = int(w.shape[1]) * int(attributes.get("group", 1))
    each = math.prod(max(a, b) for a, b in zip(spatial, asked, strict=True))
    return int(x.shape[0]) * channels * int(each)


_ARITHMETIC = ("Add", "Div", "Max", "Mean", "Min", "Mod", "Mul", "PRelu", "Pow", "Sub", "Sum")
_LOGIC = ("And", "Equal", "Greater", "GreaterOrEqual", "Less", "LessOrEqual", "Or", "Xor")
_LIKE = ("Bernoulli", "EyeLike", "RandomNormalLike", "RandomUniformLike")
_WINDOWS = ("BlackmanWindow", "HammingWindow", "HannWindow")
_RULES: dict[str, Rule] = {
    **dict.fromkeys((*_ARITHMETIC, *_LOGIC, "Where"), _broadcast),
    **dict.fromkeys(_LIKE, _same),
    **dict.fromkeys(_WINDOWS, _window),
    **dict.fromkeys(("AveragePool", "LpPool", "MaxPool"), _pool),
    **dict.fromkeys(("Concat", "ConcatFromSequence"), _joined),
    **dict.fromkeys(("Conv", "ConvInteger"), _conv),
    **dict.fromkeys(("MatMul", "MatMulInteger"), _matmul),
    **dict.fromkeys(("RandomNormal", "RandomUniform"), _drawn),
    "AffineGrid": _affine,
    "CenterCropPad": _crop_or_pad,
    "Col2Im": _image,
    "ConstantOfShape": _shape_of,
    "ConvTranspose": _conv_transpose,
    "DFT": _dft,
    "Einsum": _einsum,
    "Expand": _expand,
    "Gather": _gather,
    "GatherND": _gather_nd,
    "Gemm": _gemm,
    "GridSample": _grid_sample,
    "MaxUnpool": _unpool,
    "MelWeightMatrix": _mel,
    "OneHot": _one_hot,
    "Pad": _pad,
    "Range": _range,
    "Resize": _resize,
    "RoiAlign": _regions,
    "TfIdfVectorizer": _counts,
    "Tile": _tile,
    "Upsample": _resize,
}
# whose output has at most the product of all inputs' elements
_PRODUCTS = frozenset({_broadcast, _gather, _gemm, _matmul})
_WIDEST = 16  # bytes of the widest element
_FAULTS = (
    RuntimeError,
    LookupError,
    ValueError,
    TypeError,
    AttributeError,
    ArithmeticError,
)


def may_exceed(op: str, arguments: Arguments, limit: int) -> bool:
    """Whether `output_bytes` has to be asked; a glance says that a small op's is far below."""
    rule = _RULES.get(op)
    if rule not in _PRODUCTS:
        return rule is not None
    most = _WIDEST
    for x in arguments[:2] if rule is _gemm else arguments:
        if isinstance(x, Tensor):
            most *= x.numel()
    return most > limit or most == 0  # a product over no elements makes some


def output_bytes(op: str, arguments: Arguments, attributes: Attributes) -> int | None:
    """Bytes of the first output, or None where they cannot be told beforehand.

    None too where the inputs do not fit the op: running it says so in its own words.
    """
    rule = _RULES.get(op)
    if rule is None:
        return None
    try:
        if rule in _PRODUCTS:  # reads shapes alone
            return rule(arguments, attributes) * _width(op, arguments, attributes)
        with torch.no_grad():
            return rule(arguments, attributes) * _width(op, arguments, attributes)
    except _FAULTS:
        return None


def _width(op: str, arguments: Arguments, attributes: Attributes) -> int:
    """Bytes of one element of the output: of the type asked for, else of the data it copies."""
    if op in _LOGIC:
        return 1
    for name in ("dtype", "output_datatype"):
        if isinstance(attributes.get(name), torch.dtype):
            return int(attributes[name].itemsize)
    if op in {"RandomNormal", "RandomUniform", "ConstantOfShape", "MelWeightMatrix", *_WINDOWS}:
        value = attributes.get("value")
        return value.element_size() if isinstance(value, Tensor) else 4
    copied = arguments[2] if op == "OneHot" else arguments[0]
    copied = copied[0] if isinstance(copied, list) else copied
    return int(copied.element_size())

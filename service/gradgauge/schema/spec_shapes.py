"""Shapes, layers and parameters of a spec in pure Python, before anything is built.

The work is of the order of the text, not of the network: a repeat whose body keeps its shape is
walked once and multiplied.
"""

import math
from collections.abc import Callable
from dataclasses import dataclass, field
from typing import Any, NamedTuple

from gradgauge.errors import InvalidSpec, LimitExceeded
from gradgauge.schema.spec import (
    DEFAULT_LIMITS,
    ActivationLayer,
    ArchSpec,
    AvgPool,
    BatchNorm,
    Conv2d,
    Dense,
    Flatten,
    GlobalAvgPool,
    LayerNorm,
    MaxPool,
    Padding,
    Repeat,
    Residual,
    Rnn,
    SpecLimits,
)

Shape = tuple[int, ...]


class Counted(NamedTuple):
    """What a spec amounts to: `shapes` maps each spec path to its output's shape, no batch.

    `layers` counts repeats unrolled, a residual's own addition as one and its projection as
    another; `parameters` are the trained ones (no running statistics). Inside a repeat the shape
    is that of its last time.
    """

    layers: int
    parameters: int
    shapes: dict[str, Shape]


@dataclass(slots=True)
class _Walk:
    limits: SpecLimits
    shapes: dict[str, Shape] = field(default_factory=dict)
    visits: int = 0


_Sum = tuple[int, int, Shape]


def count(spec: ArchSpec, *, limits: SpecLimits = DEFAULT_LIMITS) -> Counted:
    """Layers, parameters and shapes.

    Raises:
        InvalidSpec: a layer cannot take the shape it is given; `where` names the layer.
        LimitExceeded: too many layers, parameters or values at one layer; `where` likewise.
    """
    walk = _Walk(limits)
    shape = spec.input.shape
    _bound(walk, "input.shape", (0, 0, shape))
    layers, parameters, _ = _sequence(spec.layers, shape, "layers", walk)
    return Counted(layers, parameters, walk.shapes)


def conv_pads(
    size: Shape, kernel: Shape, stride: Shape, padding: Padding, dilation: Shape
) -> tuple[Shape, Shape]:
    """(begin, end) padding of each spatial axis; `same` puts the odd one at the end."""
    if not isinstance(padding, str):
        return padding, padding
    if padding == "valid":
        return (0,) * len(size), (0,) * len(size)
    begin, end = [], []
    for n, k, s, d in zip(size, kernel, stride, dilation, strict=True):
        total = max((-(-n // s) - 1) * s + (k - 1) * d + 1 - n, 0)
        begin.append(total // 2)
        end.append(total - total // 2)
    return tuple(begin), tuple(end)


def projection_stride(before: Shape, after: Shape) -> Shape | None:
    """Strides with which a 1x1 convolution takes [c, h, w] to [c', h', w']; None if none does."""
    strides = []
    for n, m in zip(before[1:], after[1:], strict=True):
        s = -(-n // m)  # the least s with (n - 1) // s + 1 <= m
        if (n - 1) // s + 1 != m:
            return None
        strides.append(s)
    return tuple(strides)


def _sequence(layers: tuple[Any, ...], shape: Shape, path: str, walk: _Walk) -> _Sum:
    total = (0, 0, shape)
    for i, layer in enumerate(layers):
        total = _plus(total, _layer(layer, total[2], f"{path}[{i}]", walk))
        _bound(walk, f"{path}[{i}]", total)
    return total


def _plus(a: _Sum, b: _Sum) -> _Sum:
    return a[0] + b[0], a[1] + b[1], b[2]


def _layer(layer: Any, shape: Shape, path: str, walk: _Walk) -> _Sum:
    walk.visits += 1
    if walk.visits > walk.limits.max_layers:
        raise _too_many(walk, "max_layers", path, f"more than {walk.limits.max_layers:,} layers")
    if isinstance(layer, Repeat):
        found = _repeat(layer, shape, path, walk)
    elif isinstance(layer, Residual):
        found = _residual(layer, shape, path, walk)
    else:
        after, parameters = SHAPE_RULES[type(layer)](layer, shape, path)
        found = (1, parameters, after)
    walk.shapes[path] = found[2]
    return found


def _repeat(layer: Repeat, shape: Shape, path: str, walk: _Walk) -> _Sum:
    total, done = (0, 0, shape), 0
    while done < layer.times:
        body = _sequence(layer.layers, total[2], f"{path}.layers", walk)
        same = body[2] == total[2]
        times = layer.times - done if same else 1
        total = (total[0] + times * body[0], total[1] + times * body[1], body[2])
        done += times
        _bound(walk, path, total)
    return total


def _residual(layer: Residual, shape: Shape, path: str, walk: _Walk) -> _Sum:
    layers, parameters, after = _sequence(layer.layers, shape, f"{path}.layers", walk)
    if layer.shortcut == "projection":
        _check_projection(shape, after, path)
        axis = CHANNEL[len(shape)]
        return layers + 2, parameters + shape[axis] * after[axis], after
    if after != shape:
        raise _wrong(
            path,
            f"its layers turn {_say(shape)} into {_say(after)}, which cannot be added to the input",
            "keep the shape, or set `shortcut: projection`",
        )
    return layers + 1, parameters, after


CHANNEL = {1: 0, 2: 1, 3: 0}  # [features], [time, features], [channels, height, width]


def _check_projection(before: Shape, after: Shape, path: str) -> None:
    fits = len(before) == len(after) and (
        projection_stride(before, after) is not None
        if len(before) == 3
        else before[:-1] == after[:-1]
    )
    if not fits:
        raise _wrong(
            path,
            f"no projection takes {_say(before)} to {_say(after)}",
            "a dense layer changes the last axis, a strided 1x1 convolution an image",
        )


def _dense(layer: Dense, shape: Shape, path: str) -> tuple[Shape, int]:
    _needs(shape, (1, 2), path, "dense", "put `{type: flatten}` or a global_avg_pool before it")
    return (*shape[:-1], layer.units), layer.units * (shape[-1] + layer.bias)


def _activation(layer: ActivationLayer, shape: Shape, path: str) -> tuple[Shape, int]:
    if layer.axis is not None:
        _check_axis(layer.axis, shape, path)
    return shape, 1 if layer.function == "prelu" else 0


def _check_axis(axis: int, shape: Shape, path: str) -> None:
    if not -len(shape) <= axis < len(shape):
        raise _wrong(
            f"{path}.axis",
            f"axis {axis} is outside {_say(shape)}",
            f"from {-len(shape)} to {len(shape) - 1}, the batch not counted",
        )


def _conv2d(layer: Conv2d, shape: Shape, path: str) -> tuple[Shape, int]:
    _needs(shape, (3,), path, "conv2d", "its input is [channels, height, width]")
    if shape[0] % layer.groups or layer.filters % layer.groups:
        raise _wrong(
            f"{path}.groups",
            f"{layer.groups} groups do not divide {shape[0]} channels and {layer.filters} filters",
            "choose a common divisor",
        )
    after = _windows(layer, layer.stride, layer.dilation, shape, path)
    weight = layer.filters * (shape[0] // layer.groups) * math.prod(layer.kernel)
    return (layer.filters, *after), weight + layer.filters * layer.bias


def _pool(layer: MaxPool | AvgPool, shape: Shape, path: str) -> tuple[Shape, int]:
    _needs(shape, (3,), path, layer.type, "its input is [channels, height, width]")
    if not isinstance(layer.padding, str) and any(
        2 * p > k for p, k in zip(layer.padding, layer.kernel, strict=True)
    ):
        raise _wrong(f"{path}.padding", "a window would lie in the padding", "at most half of it")
    after = _windows(layer, layer.stride or layer.kernel, (1, 1), shape, path)
    return (shape[0], *after), 0


def _windows(
    layer: Conv2d | MaxPool | AvgPool, stride: Shape, dilation: Shape, shape: Shape, path: str
) -> Shape:
    size = shape[1:]
    begin, end = conv_pads(size, layer.kernel, stride, layer.padding, dilation)
    after = []
    for n, k, s, d, b, e in zip(size, layer.kernel, stride, dilation, begin, end, strict=True):
        room = n + b + e - (k - 1) * d - 1
        if room < 0:
            raise _wrong(
                f"{path}.kernel",
                f"a window of {(k - 1) * d + 1} does not fit into {n} places padded to {n + b + e}",
                "use a smaller kernel, fewer poolings, or `padding: same`",
            )
        after.append(room // s + 1)
    return tuple(after)


def _batch_norm(_: BatchNorm, shape: Shape, path: str) -> tuple[Shape, int]:
    _needs(shape, (1, 3), path, "batch_norm", "over time steps use layer_norm")
    return shape, 2 * shape[0]


def _layer_norm(layer: LayerNorm, shape: Shape, path: str) -> tuple[Shape, int]:
    _check_axis(layer.axis, shape, path)
    return shape, 2 * math.prod(shape[layer.axis :])


def _flatten(_: Flatten, shape: Shape, path: str) -> tuple[Shape, int]:  # noqa: ARG001
    return (math.prod(shape),), 0


def _global_avg_pool(_: GlobalAvgPool, shape: Shape, path: str) -> tuple[Shape, int]:
    _needs(shape, (3,), path, "global_avg_pool", "its input is [channels, height, width]")
    return shape[:1], 0


def _rnn(layer: Rnn, shape: Shape, path: str) -> tuple[Shape, int]:
    _needs(shape, (2,), path, "rnn", "its input is [time, features]")
    parameters = layer.units * (shape[1] + layer.units + 2 * layer.bias)
    return (shape[0], layer.units) if layer.return_sequences else (layer.units,), parameters


# layer, input shape, path -> output shape, trained parameters
SHAPE_RULES: dict[type, Callable[[Any, Shape, str], tuple[Shape, int]]] = {
    Dense: _dense,
    ActivationLayer: _activation,
    Conv2d: _conv2d,
    MaxPool: _pool,
    AvgPool: _pool,
    GlobalAvgPool: _global_avg_pool,
    BatchNorm: _batch_norm,
    LayerNorm: _layer_norm,
    Flatten: _flatten,
    Rnn: _rnn,
}


def _needs(shape: Shape, ranks: tuple[int, ...], path: str, what: str, hint: str) -> None:
    if len(shape) not in ranks:
        raise _wrong(path, f"{what} cannot take an input of shape {_say(shape)}", hint)


def _wrong(path: str, message: str, hint: str) -> InvalidSpec:
    return InvalidSpec("shape_mismatch", message, where=path, hint=hint)


def _say(shape: Shape) -> str:
    return f"[{', '.join(map(str, shape))}]"


def _bound(walk: _Walk, path: str, total: _Sum) -> None:
    layers, parameters, shape = total
    if layers > walk.limits.max_layers:
        raise _too_many(walk, "max_layers", path, f"{_number(layers)} layers")
    if parameters > walk.limits.max_parameters:
        raise _too_many(walk, "max_parameters", path, f"{_number(parameters)} parameters")
    if math.prod(shape) > walk.limits.max_elements:
        raise _too_many(walk, "max_elements", path, f"{_number(math.prod(shape))} values per input")


def _number(n: int) -> str:
    return f"{n:,}" if n < 10**12 else f"about 10^{math.floor(math.log10(n))}"


def _too_many(walk: _Walk, name: str, path: str, what: str) -> LimitExceeded:
    bound = getattr(walk.limits, name)
    return LimitExceeded(
        "spec_too_large",
        f"up to here the spec amounts to {what}",
        where=path,
        limit=f"{name}={bound}",
        hint=f"at most {bound:,}; reduce `times`, `units` or `shape`",
    )

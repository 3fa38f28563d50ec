"""Shapes, layers and parameters of a spec in pure Python, before anything is built.

The work is of the order of the text, not of the network: a repeat whose body keeps its shape is
walked once and multiplied.
"""

import math
from collections.abc import Callable
from dataclasses import dataclass, field, replace
from typing import Any, NamedTuple

from gradgauge.errors import LimitExceeded
from gradgauge.schema import shape_maps, shape_tokens
from gradgauge.schema.schemes import resolve
from gradgauge.schema.shape_state import (
    Kept,
    Shape,
    State,
    check_axis,
    needs,
    number,
    say,
    too_large,
    wrong,
)
from gradgauge.schema.spec import (
    DEFAULT_LIMITS,
    ActivationLayer,
    ArchSpec,
    Dense,
    Dropout,
    Flatten,
    Gated,
    Parallel,
    Permute,
    Recall,
    Remember,
    Repeat,
    Reshape,
    Residual,
    SpecLimits,
)
from gradgauge.schema.spec_tokens import Attention


class Counted(NamedTuple):
    """What a spec amounts to: `shapes` maps each spec path to its output's shape, no batch.

    `layers` counts repeats unrolled, a residual's own addition as one and its projection as
    another, a parallel's merge as one, `remember` and `recall` too; `parameters` are the trained
    ones (no running statistics). Inside a repeat the shape is that of its last time.
    """

    layers: int
    parameters: int
    shapes: dict[str, Shape]


@dataclass(slots=True)
class _Walk:
    limits: SpecLimits
    shapes: dict[str, Shape] = field(default_factory=dict)
    visits: int = 0


class _Sum(NamedTuple):
    layers: int
    parameters: int
    state: State


def count(spec: ArchSpec, *, limits: SpecLimits = DEFAULT_LIMITS) -> Counted:
    """Layers, parameters and shapes.

    Raises:
        InvalidSpec: a layer cannot take the shape it is given; `where` names the layer.
        LimitExceeded: too many layers, parameters or values at one layer; `where` likewise.
    """
    walk = _Walk(limits)
    start = State(spec.input.shape, integers=drawn_integers(spec))
    _bound(walk, "input.shape", _Sum(0, 0, start))
    layers, parameters, _ = _sequence(resolve(spec).layers, start, "layers", walk)
    return Counted(layers, parameters, walk.shapes)


def drawn_integers(spec: ArchSpec) -> tuple[int, int] | None:
    """(low, high) where the input's law is of integers."""
    given = spec.input
    return (given.low, given.high) if given.distribution == "integers" else None


def projection_stride(before: Shape, after: Shape) -> Shape | None:
    """Strides with which a 1x1 convolution takes [c, h, w] to [c', h', w']; None if none does."""
    strides = []
    for n, m in zip(before[1:], after[1:], strict=True):
        s = -(-n // m)  # the least s with (n - 1) // s + 1 <= m
        if (n - 1) // s + 1 != m:
            return None
        strides.append(s)
    return tuple(strides)


def _sequence(layers: tuple[Any, ...], state: State, path: str, walk: _Walk) -> _Sum:
    total = _Sum(0, 0, state)
    for i, layer in enumerate(layers):
        total = _plus(total, _layer(layer, total.state, f"{path}[{i}]", walk))
        _bound(walk, f"{path}[{i}]", total)
    return total


def _plus(a: _Sum, b: _Sum) -> _Sum:
    return _Sum(a.layers + b.layers, a.parameters + b.parameters, b.state)


def _layer(layer: Any, state: State, path: str, walk: _Walk) -> _Sum:
    walk.visits += 1
    if walk.visits > walk.limits.max_layers:
        raise _too_many(walk, "max_layers", path, f"more than {walk.limits.max_layers:,} layers")
    container = _CONTAINERS.get(type(layer))
    found = container(layer, state, path, walk) if container else _single(layer, state, path, walk)
    walk.shapes[path] = found.state.shape
    if len(found.state.kept) + len(found.state.biases) > walk.limits.max_names:
        raise _too_many(walk, "max_names", path, f"more than {walk.limits.max_names:,} names")
    return found


def _single(layer: Any, state: State, path: str, walk: _Walk) -> _Sum:
    if type(layer) in shape_tokens.STATE_RULES:
        after, parameters = shape_tokens.STATE_RULES[type(layer)](layer, state, path)
        if isinstance(layer, Attention):
            _bound_scores(layer, state, path, walk)
        return _Sum(1, parameters, after)
    shape, parameters = SHAPE_RULES[type(layer)](layer, state.shape, path)
    return _Sum(1, parameters, replace(state, shape=shape, integers=None))


def _bound_scores(layer: Attention, state: State, path: str, walk: _Walk) -> None:
    """A head's logits are a value at the layer too, if not its output."""
    source = state.kept[layer.memory].shape if layer.memory else state.shape
    scores = Kept((layer.heads, state.shape[0], source[0]))
    _bound(walk, path, _Sum(0, 0, State(scores.shape)))


def _repeat(layer: Repeat, state: State, path: str, walk: _Walk) -> _Sum:
    total, done = _Sum(0, 0, state), 0
    while done < layer.times:
        body = _sequence(layer.layers, total.state, f"{path}.layers", walk)
        times = layer.times - done if body.state == total.state else 1
        total = _Sum(
            total.layers + times * body.layers,
            total.parameters + times * body.parameters,
            body.state,
        )
        done += times
        _bound(walk, path, total)
    return total


def _residual(layer: Residual, state: State, path: str, walk: _Walk) -> _Sum:
    body = _sequence(layer.layers, replace(state, integers=None), f"{path}.layers", walk)
    before, after = state.shape, body.state.shape
    own = _Sum(body.layers + 1, body.parameters + layer.learned_scale, body.state)
    if layer.shortcut == "projection":
        _check_projection(before, after, path)
        axis = CHANNEL[len(before)]
        return _plus(own, _Sum(1, before[axis] * after[axis], body.state))
    if after != before:
        raise wrong(
            path,
            f"its layers turn {say(before)} into {say(after)}, which cannot be added to the input",
            "keep the shape, or set `shortcut: projection`",
        )
    return own


CHANNEL = {1: 0, 2: 1, 3: 0}  # [features], [time, features], [channels, height, width]


def _check_projection(before: Shape, after: Shape, path: str) -> None:
    fits = len(before) == len(after) <= 3 and (
        projection_stride(before, after) is not None
        if len(before) == 3
        else before[:-1] == after[:-1]
    )
    if not fits:
        raise wrong(
            path,
            f"no projection takes {say(before)} to {say(after)}",
            "a dense layer changes the last axis, a strided 1x1 convolution an image",
        )


def _parallel(layer: Parallel, state: State, path: str, walk: _Walk) -> _Sum:
    total, shapes = _Sum(1, 0, state), []
    for i, branch in enumerate(layer.branches):
        begun = replace(total.state, shape=state.shape, integers=state.integers)
        total = _plus(total, _sequence(branch, begun, f"{path}.branches[{i}]", walk))
        shapes.append(total.state.shape)
    after = _concatenated(layer, shapes, path) if layer.merge == "concat" else shapes[0]
    if layer.merge != "concat" and any(shape != after for shape in shapes):
        raise wrong(
            path,
            f"its branches end in {', '.join(map(say, shapes))}",
            f"to {layer.merge} they must end in one shape",
        )
    return total._replace(state=replace(total.state, shape=after, integers=None))


def concat_axis(layer: Parallel, rank: int) -> int:
    """The axis a concat joins along, from 0 without the batch."""
    if layer.axis is None:
        return 0 if rank > 2 else rank - 1
    return layer.axis % rank


def _concatenated(layer: Parallel, shapes: list[Shape], path: str) -> Shape:
    first = shapes[0]
    if layer.axis is not None:
        check_axis(layer.axis, first, path)
    axis = concat_axis(layer, len(first))
    rests = {(*shape[:axis], *shape[axis + 1 :]) for shape in shapes}
    if len(rests) > 1 or any(len(shape) != len(first) for shape in shapes):
        raise wrong(
            path,
            f"its branches end in {', '.join(map(say, shapes))}",
            f"to concatenate they must agree in every axis but axis {axis}",
        )
    return (*first[:axis], sum(shape[axis] for shape in shapes), *first[axis + 1 :])


def _remember(layer: Remember, state: State, _: str, __: _Walk) -> _Sum:
    kept = dict(state.kept) | {layer.name: Kept(state.shape, state.integers)}
    return _Sum(1, 0, replace(state, kept=kept))


def _recall(layer: Recall, state: State, path: str, _: _Walk) -> _Sum:
    found = shape_tokens.kept(state, layer.name, f"{path}.name")
    return _Sum(1, 0, replace(state, shape=found.shape, integers=found.integers))


_CONTAINERS: dict[type, Callable[[Any, State, str, _Walk], _Sum]] = {
    Repeat: _repeat,
    Residual: _residual,
    Parallel: _parallel,
    Remember: _remember,
    Recall: _recall,
}


def _dense(layer: Dense, shape: Shape, path: str) -> tuple[Shape, int]:
    needs(shape, (1, 2), path, "dense", "put `{type: flatten}` or a global_avg_pool before it")
    return (*shape[:-1], layer.units), layer.units * (shape[-1] + layer.bias)


def _gated(layer: Gated, shape: Shape, path: str) -> tuple[Shape, int]:
    needs(shape, (1, 2), path, "gated", "put `{type: flatten}` or a global_avg_pool before it")
    return (*shape[:-1], layer.units), 2 * layer.units * (shape[-1] + layer.bias)


def _activation(layer: ActivationLayer, shape: Shape, path: str) -> tuple[Shape, int]:
    if layer.axis is not None:
        check_axis(layer.axis, shape, path)
    return shape, 1 if layer.function == "prelu" else 0


def _dropout(_: Dropout, shape: Shape, path: str) -> tuple[Shape, int]:  # noqa: ARG001
    return shape, 0


def _flatten(_: Flatten, shape: Shape, path: str) -> tuple[Shape, int]:  # noqa: ARG001
    return (math.prod(shape),), 0


def _reshape(layer: Reshape, shape: Shape, path: str) -> tuple[Shape, int]:
    wanted, values = layer.shape, math.prod(shape)
    known = math.prod(n for n in wanted if n != -1)
    rest = values // known if known else 0
    after = tuple(rest if n == -1 else n for n in wanted)
    if 0 in wanted or wanted.count(-1) > 1 or math.prod(after) != values:
        raise wrong(
            f"{path}.shape",
            f"{say(shape)} has {values:,} values, which {say(wanted)} does not hold",
            "the sizes multiply to as many values; one of them may be -1",
        )
    return after, 0


def _permute(layer: Permute, shape: Shape, path: str) -> tuple[Shape, int]:
    if sorted(layer.axes) != list(range(len(shape))):
        raise wrong(
            f"{path}.axes",
            f"{list(layer.axes)} is no order of the axes of {say(shape)}",
            f"name each of 0 to {len(shape) - 1} once",
        )
    return tuple(shape[a] for a in layer.axes), 0


# layer, input shape, path -> output shape, trained parameters
SHAPE_RULES: dict[type, Callable[[Any, Shape, str], tuple[Shape, int]]] = {
    Dense: _dense,
    Gated: _gated,
    ActivationLayer: _activation,
    Dropout: _dropout,
    Flatten: _flatten,
    Reshape: _reshape,
    Permute: _permute,
    **shape_maps.RULES,
    **shape_tokens.RULES,
}


def _bound(walk: _Walk, path: str, total: _Sum) -> None:
    layers, parameters, state = total
    if layers > walk.limits.max_layers:
        raise _too_many(walk, "max_layers", path, f"{number(layers)} layers")
    if parameters > walk.limits.max_parameters:
        raise _too_many(walk, "max_parameters", path, f"{number(parameters)} parameters")
    values = math.prod(state.shape)
    if values > walk.limits.max_elements:
        raise _too_many(walk, "max_elements", path, f"{number(values)} values per input")


def _too_many(walk: _Walk, name: str, path: str, what: str) -> LimitExceeded:
    return too_large(getattr(walk.limits, name), name, path, what)

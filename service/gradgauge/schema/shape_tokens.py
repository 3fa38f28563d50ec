"""Shapes and parameters of layers over [time, features], and what they refer to."""

import math
from collections.abc import Callable
from dataclasses import replace
from typing import Any

from gradgauge.schema.shape_state import Kept, Shape, State, needs, say, wrong
from gradgauge.schema.spec_tokens import (
    GATES,
    Attention,
    ClassToken,
    Embedding,
    Gru,
    Lstm,
    PositionalEmbedding,
    Recurrent,
    RelativeBias,
    Rnn,
    SegmentEmbedding,
    Select,
    Unembedding,
)

_STEPS = "its input is [time, features]"
_MOST_PAIRS = 1 << 24  # pairs of steps whose distances are stored


def head_dim(layer: Attention, features: int) -> int:
    """Features of one head."""
    return layer.head_dim or features // layer.heads


def kept(state: State, name: str, path: str) -> Kept:
    """The value remembered under `name`.

    Raises:
        InvalidSpec: there is none.
    """
    if name not in state.kept:
        known = ", ".join(sorted(state.kept)) or "none"
        raise wrong(path, f"nothing was remembered as {name!r}", f"remembered before: {known}")
    return state.kept[name]


def _positional(layer: PositionalEmbedding, shape: Shape, path: str) -> tuple[Shape, int]:
    needs(shape, (2,), path, layer.type, _STEPS)
    if layer.kind == "sinusoidal":
        if layer.positions is not None:
            raise wrong(f"{path}.positions", "sines need no table", "leave it out")
        return shape, 0
    if layer.positions is not None and layer.positions < shape[0]:
        raise wrong(
            f"{path}.positions",
            f"{layer.positions} positions for {shape[0]} steps",
            f"at least {shape[0]}, or leave it out",
        )
    return shape, (layer.positions or shape[0]) * shape[1]


def _segment(layer: SegmentEmbedding, shape: Shape, path: str) -> tuple[Shape, int]:
    needs(shape, (2,), path, layer.type, _STEPS)
    return shape, layer.segments * shape[1]


def _class_token(layer: ClassToken, shape: Shape, path: str) -> tuple[Shape, int]:
    needs(shape, (2,), path, layer.type, _STEPS)
    return (shape[0] + layer.count, shape[1]), layer.count * shape[1]


def _select(layer: Select, shape: Shape, path: str) -> tuple[Shape, int]:
    needs(shape, (2, 3, 4), path, layer.type, "a vector has nothing to select")
    if not -shape[0] <= layer.index < shape[0]:
        raise wrong(
            f"{path}.index",
            f"entry {layer.index} is outside {say(shape)}",
            f"from {-shape[0]} to {shape[0] - 1}",
        )
    return shape[1:], 0


def _recurrent(layer: Recurrent, shape: Shape, path: str) -> tuple[Shape, int]:
    steps = layer.time_steps
    if len(shape) == 1 and steps is not None:
        shape = (steps, *shape)
    needs(shape, (2,), path, layer.type, f"{_STEPS}; a vector needs `time_steps`")
    if steps not in {None, shape[0]}:
        raise wrong(
            f"{path}.time_steps",
            f"{steps} steps of an input that has {shape[0]}",
            "leave it out, or give it for a vector",
        )
    gates, ways, h = GATES[type(layer)], 1 + layer.bidirectional, layer.units
    biases = layer.bias * (1 + layer.recurrent_bias)
    parameters = ways * gates * h * (shape[1] + h + biases)
    after = (shape[0], ways * h) if layer.return_sequences else (ways * h,)
    return after, parameters


# layer, input shape, path -> output shape, trained parameters
RULES: dict[type, Callable[[Any, Shape, str], tuple[Shape, int]]] = {
    PositionalEmbedding: _positional,
    SegmentEmbedding: _segment,
    ClassToken: _class_token,
    Select: _select,
    Rnn: _recurrent,
    Lstm: _recurrent,
    Gru: _recurrent,
}


def _embedding(layer: Embedding, state: State, path: str) -> tuple[State, int]:
    if state.integers is None:
        raise wrong(
            path,
            "an embedding looks up integers",
            "give the input `distribution: integers` and put no other layer before it",
        )
    needs(state.shape, (1,), path, layer.type, "its input is [time], of integers")
    low, high = state.integers
    if low < 0 or high > layer.entries:
        raise wrong(
            f"{path}.entries",
            f"integers from {low} to {high - 1} in a table of {layer.entries} rows",
            f"give the input `low: 0` and `high: {layer.entries}`",
        )
    after = (*state.shape, layer.units)
    table = (layer.entries, layer.units)
    return replace(state, shape=after, integers=None, table=table), layer.entries * layer.units


def _unembedding(layer: Unembedding, state: State, path: str) -> tuple[State, int]:
    needs(state.shape, (1, 2), path, layer.type, _STEPS)
    if state.table is None:
        raise wrong(path, "there is no embedding before it", "use a dense layer")
    entries, units = state.table
    if state.shape[-1] != units:
        raise wrong(
            path,
            f"a table of vectors of {units} cannot read {say(state.shape)}",
            f"bring the features to {units} by a dense layer",
        )
    return replace(state, shape=(*state.shape[:-1], entries)), entries * layer.bias


def _attention(layer: Attention, state: State, path: str) -> tuple[State, int]:
    needs(state.shape, (2,), path, layer.type, _STEPS)
    steps, features = state.shape
    _check_heads(layer, features, path)
    source, d = _source(layer, state, path), head_dim(layer, features)
    wide, narrow = layer.heads * d, (layer.kv_heads or layer.heads) * d
    units = layer.units or features
    last = layer.bias if layer.output_bias is None else layer.output_bias
    parameters = (features + layer.bias) * wide + 2 * (source[1] + layer.bias) * narrow
    parameters += (wide + last) * units + (2 * d if layer.qk_norm else 0)
    after = replace(state, shape=(steps, units), integers=None)
    if layer.relative_bias is None:
        return after, parameters
    table = _relative(layer, layer.relative_bias, state, steps * source[0], path)
    if table is None:
        return after, parameters
    name = layer.relative_bias.name
    return replace(after, biases={**state.biases, name: table}), parameters + math.prod(table)


def _check_heads(layer: Attention, features: int, path: str) -> None:
    heads, few = layer.heads, layer.kv_heads or layer.heads
    if heads % few:
        raise wrong(f"{path}.kv_heads", f"{few} do not divide {heads} heads", "choose a divisor")
    if layer.head_dim is None and features % heads:
        raise wrong(
            f"{path}.heads",
            f"{heads} heads do not divide {features} features",
            "choose a divisor, or give `head_dim`",
        )
    if layer.rotary is not None and head_dim(layer, features) % 2:
        raise wrong(f"{path}.rotary", "rotary positions turn pairs", "choose an even `head_dim`")


def _source(layer: Attention, state: State, path: str) -> Shape:
    if layer.memory is None:
        return state.shape
    if layer.causal:
        raise wrong(f"{path}.causal", "a memory has no order with the input", "leave it out")
    found = kept(state, layer.memory, f"{path}.memory").shape
    needs(found, (2,), f"{path}.memory", "attention", "a memory is [time, features]")
    return found


def _relative(
    layer: Attention, bias: RelativeBias, state: State, pairs: int, path: str
) -> tuple[int, int] | None:
    """The table a relative bias brings; None where an earlier layer brought it."""
    at = f"{path}.relative_bias"
    if layer.kv_heads not in {None, layer.heads}:
        raise wrong(at, "heads that share keys take no relative bias", "leave one of them out")
    if pairs > _MOST_PAIRS:
        raise wrong(at, f"{pairs:,} distances between steps", f"at most {_MOST_PAIRS:,}")
    table = (bias.buckets, layer.heads)
    held = state.biases.get(bias.name)
    if held not in {None, table}:
        raise wrong(at, f"{bias.name!r} has another number of buckets or heads", "use another name")
    return table if held is None else None


# layer, state, path -> state after it, trained parameters
STATE_RULES: dict[type, Callable[[Any, State, str], tuple[State, int]]] = {
    Embedding: _embedding,
    Unembedding: _unembedding,
    Attention: _attention,
}

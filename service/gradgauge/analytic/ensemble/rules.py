"""One mean-field rule per layer type of a spec; a spec's text decides which, no graph is built."""

from collections.abc import Callable
from dataclasses import dataclass, field
from typing import Any, NamedTuple

from gradgauge.analytic.ensemble import dense, maps, norms, tokens
from gradgauge.analytic.ensemble.attention import attention
from gradgauge.analytic.ensemble.recurrent import recurrent
from gradgauge.analytic.ensemble.state import PASS, State, Step, Transfer
from gradgauge.analytic.ensemble.weights import Bias, Laws
from gradgauge.schema.shape_state import Shape
from gradgauge.schema.spec import ActivationLayer, Dense, Dropout, Flatten, Gated, Permute, Reshape
from gradgauge.schema.spec_maps import (
    AvgPool,
    BatchNorm,
    Conv1d,
    Conv2d,
    Conv3d,
    ConvTranspose,
    DepthwiseConv,
    GlobalAvgPool,
    GlobalMaxPool,
    GroupNorm,
    InstanceNorm,
    LayerNorm,
    MaxPool,
    RmsNorm,
)
from gradgauge.schema.spec_shapes import SHAPE_RULES
from gradgauge.schema.spec_tokens import (
    Attention,
    ClassToken,
    Embedding,
    Gru,
    Lstm,
    PositionalEmbedding,
    Rnn,
    SegmentEmbedding,
    Select,
    Unembedding,
)


@dataclass(slots=True)
class Context:
    """What rules need beside the signal: laws, the batch, what was remembered, the last table."""

    laws: Laws
    batch: int | None
    integers: tuple[int, int]
    kept: dict[str, State] = field(default_factory=dict)
    table: tuple[Bias, int] = (Bias(0.0, 0.0), 1)


class Applied(NamedTuple):
    """A layer's step, and what goes back to the memory an attention reads."""

    step: Step
    memory: str | None = None
    to_memory: Transfer = PASS


def apply(layer: Any, x: State, context: Context) -> Applied:
    """The step of a layer that holds no others."""
    kind = type(layer)
    if kind is Attention:
        return _attention(layer, x, context)
    if kind is Embedding:
        return Applied(_embedding(layer, x, context))
    if kind is Unembedding:
        table, entries = context.table
        return Applied(dense.unembedding(layer, x, (*x.shape[:-1], entries), table))
    if kind in _SAME_SHAPE:
        return Applied(_SAME_SHAPE[kind](layer, x, context))
    shape, _ = SHAPE_RULES[kind](layer, x.shape, layer.type)
    return Applied(_RULES[kind](layer, x, shape, context))


def _attention(layer: Attention, x: State, context: Context) -> Applied:
    memory = x if layer.memory is None else context.kept[layer.memory]
    shape = (x.shape[0], layer.units or x.shape[1])
    found = attention(layer, x, memory, shape, context.laws)
    if found.to_memory is None:
        return Applied(found.step)
    return Applied(found.step, layer.memory, found.to_memory)


def _embedding(layer: Embedding, x: State, context: Context) -> Step:
    low, high = context.integers
    context.table = (
        context.laws.table(layer.init, (layer.entries, layer.units)),
        layer.entries,
    )
    return tokens.embedding(layer, low, high, (*x.shape, layer.units), context.laws)


_SAME_SHAPE: dict[type, Callable[[Any, State, Context], Step]] = {
    ActivationLayer: lambda layer, x, _: dense.activation(layer, x),
    BatchNorm: lambda layer, x, c: norms.batch_norm(layer, x, c.batch),
    LayerNorm: lambda layer, x, _: norms.layer_norm(layer, x),
    RmsNorm: lambda layer, x, _: norms.rms_norm(layer, x),
    GroupNorm: lambda layer, x, _: norms.group_norm(layer, x),
    InstanceNorm: lambda layer, x, _: norms.group_norm(layer, x),
    Dropout: lambda _, x, __: Step(x, PASS, cross=lambda overlap: overlap),
    PositionalEmbedding: lambda layer, x, c: tokens.positional(layer, x, c.laws),
    SegmentEmbedding: lambda layer, x, c: tokens.segment(layer, x, c.laws),
}
_RULES: dict[type, Callable[[Any, State, Shape, Context], Step]] = {
    Dense: lambda layer, x, shape, c: dense.dense(layer, x, shape, c.laws),
    Gated: lambda layer, x, shape, c: dense.gated(layer, x, shape, c.laws),
    Flatten: lambda _, x, shape, __: tokens.rearranged(x, shape),
    Reshape: lambda _, x, shape, __: tokens.rearranged(x, shape),
    Permute: lambda _, x, shape, __: tokens.rearranged(x, shape),
    MaxPool: lambda layer, x, shape, _: maps.pool(layer, x, shape),
    AvgPool: lambda layer, x, shape, _: maps.pool(layer, x, shape),
    GlobalAvgPool: lambda layer, x, shape, _: maps.global_pool(layer, x, shape),
    GlobalMaxPool: lambda layer, x, shape, _: maps.global_pool(layer, x, shape),
    DepthwiseConv: lambda layer, x, shape, c: maps.depthwise(layer, x, shape, c.laws),
    ConvTranspose: lambda layer, x, shape, c: maps.conv_transpose(layer, x, shape, c.laws),
    ClassToken: lambda layer, x, shape, c: tokens.class_token(layer, x, shape, c.laws),
    Select: lambda layer, x, shape, _: tokens.select(layer, x, shape),
    **{
        kind: lambda layer, x, shape, c: maps.conv(layer, x, shape, c.laws)
        for kind in (Conv1d, Conv2d, Conv3d)
    },
    **{
        kind: lambda layer, x, shape, c: recurrent(layer, x, shape, c.laws)
        for kind in (Rnn, Lstm, Gru)
    },
}

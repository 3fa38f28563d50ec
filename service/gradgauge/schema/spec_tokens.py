"""Layers over [time, features]: embeddings, attention, recurrence."""

from typing import Annotated, Literal, Self

from pydantic import Field, model_validator

from gradgauge.schema.laws import AttentionInit, InitSet, TableInit
from gradgauge.schema.spec_fields import Name, Size
from gradgauge.schema.strict import Positive, Real, Strict, refused


class Embedding(Strict):
    """Integers [time] to a table's rows, [time, units]; the input's `high` is at most `entries`."""

    type: Literal["embedding"]
    entries: Size
    units: Size
    init: TableInit = TableInit()


class PositionalEmbedding(Strict):
    """Adds to each step a vector of its own: learned, or of sines and cosines (Vaswani 2017).

    A learned table has `positions` rows, as many as there are steps unless given.
    """

    type: Literal["positional_embedding"]
    kind: Literal["learned", "sinusoidal"] = "learned"
    positions: Size | None = None
    init: TableInit = TableInit()


class SegmentEmbedding(Strict):
    """Adds to every step the first row of a learned table of `segments` rows (BERT's types)."""

    type: Literal["segment_embedding"]
    segments: Size = 2
    init: TableInit = TableInit()


class ClassToken(Strict):
    """Puts `count` learned steps in front of [time, features] (ViT's class token)."""

    type: Literal["class_token"]
    count: Size = 1
    init: TableInit = TableInit()


class Select(Strict):
    """One step of [time, features], or one entry of the first axis; -1 is the last."""

    type: Literal["select"]
    index: Annotated[int, Field(ge=-(1 << 31), lt=1 << 31)] = 0


class Unembedding(Strict):
    """Logits by the table of the last `embedding` before it: scale x E^T, plus a bias if wanted."""

    type: Literal["unembedding"]
    scale: Real = 1.0
    bias: bool = False
    init: InitSet = InitSet()


class RelativeBias(Strict):
    """A learned bias of each head for each bucket of distance, added to the logits (T5).

    All attention layers with one `name` share one table.
    """

    name: Name
    buckets: Annotated[int, Field(ge=4, le=1 << 16)] = 32
    max_distance: Annotated[int, Field(ge=4, le=1 << 24)] = 128
    init: TableInit = TableInit()

    @model_validator(mode="after")
    def _far_is_beyond_near(self) -> Self:
        if self.max_distance <= self.buckets // 2:
            near = self.buckets // 2
            raise refused(f"the first {near} distances have buckets of their own", field="buckets")
        return self


class Attention(Strict):
    """Softmax attention over [time, features], with its four projections.

    `kv_heads` below `heads` share keys and values among groups of heads; `head_dim` is features
    over heads unless given, `units` the output's features unless given. Keys and values come from
    the value that a `remember` layer named `memory` kept, or from the input. Logits are scaled by
    1 / sqrt(head_dim), by 1 / head_dim with `scaling: inverse` (muP), or by `scale`. `rotary` is
    the base of rotary position embeddings; `qk_norm` an rms_norm of each head's queries and keys.
    """

    type: Literal["attention"]
    heads: Size
    kv_heads: Size | None = None
    head_dim: Size | None = None
    units: Size | None = None
    causal: bool = False
    bias: bool = True
    output_bias: bool | None = None
    scale: Positive | None = None
    scaling: Literal["inverse_sqrt", "inverse"] = "inverse_sqrt"
    rotary: Positive | None = None
    qk_norm: bool = False
    relative_bias: RelativeBias | None = None
    memory: Name | None = None
    init: AttentionInit = AttentionInit()


class _Cell(Strict):
    """What `rnn`, `lstm` and `gru` have in common."""

    units: Size
    activation: Literal["tanh", "relu"] = "tanh"
    bias: bool = True
    recurrent_bias: bool = True
    bidirectional: bool = False
    return_sequences: bool = False
    time_steps: Size | None = None
    init: InitSet = InitSet()


class Rnn(_Cell):
    """h_t = f(W x_t + R h_(t-1) + b) over [time, features], from h_0 = 0.

    Gives the last state [units], or every state [time, units] with `return_sequences`; with
    `bidirectional` both directions' side by side, [2 units]. A vector input is given `time_steps`
    times. `recurrent_bias: false` leaves one bias where torch and ONNX have two that add.
    """

    type: Literal["rnn"]


class Lstm(_Cell):
    """A long short-term memory (ONNX's LSTM); `rnn` explains the fields they share.

    `forget_bias` is added to the forget gate's bias as drawn; `activation` stands where the
    hyperbolic tangent does. Laws take the four gates' weights as one matrix, as torch and Keras do.
    """

    type: Literal["lstm"]
    forget_bias: Real = 0.0


class Gru(_Cell):
    """A gated recurrent unit (ONNX's GRU); `rnn` explains the fields they share.

    `reset_after` applies the reset gate after the recurrent product, as torch and Keras do;
    `false` is Cho et al. 2014.
    """

    type: Literal["gru"]
    reset_after: bool = True


Recurrent = Rnn | Lstm | Gru
GATES: dict[type, int] = {Rnn: 1, Lstm: 4, Gru: 3}

"""The architecture spec, version 1: a network in a page of YAML or JSON, strictly read."""

from dataclasses import dataclass
from typing import Annotated, Any, Literal, Self, get_args

from pydantic import BeforeValidator, Field, ValidationError, model_validator

from gradgauge.errors import InvalidSpec
from gradgauge.schema.activations import ACTIVATIONS, Function
from gradgauge.schema.document import Format, read_document
from gradgauge.schema.laws import InitSet, NormInit
from gradgauge.schema.strict import Positive, Real, Strict, fault, refused


@dataclass(frozen=True, slots=True)
class SpecLimits:
    """The largest spec that is read, counted and built.

    `max_parameters` keeps the float32 weights below protobuf's 2 GiB; `max_elements` bounds the
    values one input makes at any one layer; `max_layers` counts repeats unrolled.
    """

    max_bytes: int = 1 << 20
    max_depth: int = 64
    max_layers: int = 100_000
    max_parameters: int = 500_000_000
    max_elements: int = 1 << 28


DEFAULT_LIMITS = SpecLimits()


def _as_list(value: Any) -> Any:
    """JSON and YAML have lists only; the models hold tuples."""
    return tuple(value) if isinstance(value, list) else value


def _pair(value: Any) -> Any:
    whole = isinstance(value, int) and not isinstance(value, bool)
    return (value, value) if whole else _as_list(value)


def _padding(value: Any) -> Any:
    pads = value if isinstance(value, str) else _pair(value)
    numbers = isinstance(pads, tuple) and len(pads) == 2
    if numbers and all(type(p) is int and 0 <= p < 1 << 31 for p in pads):
        return pads
    if pads in ("same", "valid"):
        return pads
    raise refused("not a padding", hint="allowed: same, valid, a whole number, or two of them")


Size = Annotated[int, Field(ge=1, lt=1 << 31)]
Count = Annotated[int, Field(ge=0, lt=1 << 31)]
Pair = Annotated[
    tuple[Size, Size], BeforeValidator(_pair, json_schema_input_type=Size | tuple[Size, Size])
]
Padding = Annotated[
    Literal["same", "valid"] | tuple[Count, Count],
    BeforeValidator(
        _padding, json_schema_input_type=Literal["same", "valid"] | Count | tuple[Count, Count]
    ),
]


class Dense(Strict):
    """y = x W + b on the last axis of a vector or of [time, features]."""

    type: Literal["dense"]
    units: Size
    bias: bool = True
    init: InitSet = InitSet()


class ActivationLayer(Strict):
    """An ONNX activation, elementwise or (softmax and its kin) along `axis`.

    The parameters are the operator's own, with its defaults; see the table in
    `gradgauge.schema.activations` for which takes which. `axis` counts without the batch.
    """

    type: Literal["activation"]
    function: Function
    alpha: Real | None = None
    beta: Real | None = None
    gamma: Real | None = None
    lambd: Real | None = None
    bias: Real | None = None
    min: Real | None = None
    max: Real | None = None
    approximate: Literal["none", "tanh"] | None = None
    axis: int | None = None

    @model_validator(mode="after")
    def _fields_fit_function(self) -> Self:
        takes = ACTIVATIONS[self.function].params
        for name in sorted(self.model_fields_set - {"type", "function"} - set(takes)):
            said = ", ".join(takes) or "no parameter"
            raise refused(f"{self.function} takes {said}", field=name)
        for name, default in takes.items():
            if default is None and getattr(self, name) is None:
                raise refused(f"{self.function} needs it", field=name)
        return self

    def parameter(self, name: str) -> float | int | str:
        """The value given, or the operator's default."""
        given: float | int | str | None = getattr(self, name)
        value = ACTIVATIONS[self.function].params[name] if given is None else given
        assert value is not None  # noqa: S101  # the validator has seen to it
        return value


class Conv2d(Strict):
    """A convolution over [channels, height, width].

    `kernel`, `stride`, `padding`, `dilation`: one number, or [height, width]. `same` pads so that
    the output has ceil(size / stride) places, the odd one at the end; `valid` pads nothing.
    """

    type: Literal["conv2d"]
    filters: Size
    kernel: Pair
    stride: Pair = (1, 1)
    padding: Padding = "valid"
    dilation: Pair = (1, 1)
    groups: Size = 1
    bias: bool = True
    init: InitSet = InitSet()


class BatchNorm(Strict):
    """Normalises a vector's features or an image's channels; running statistics start at (0, 1)."""

    type: Literal["batch_norm"]
    epsilon: Positive = 1e-5
    init: NormInit = NormInit()


class LayerNorm(Strict):
    """Normalises over the axes from `axis` on; `axis` counts without the batch."""

    type: Literal["layer_norm"]
    axis: int = -1
    epsilon: Positive = 1e-5
    init: NormInit = NormInit()


class Flatten(Strict):
    """All axes but the batch into one."""

    type: Literal["flatten"]


class MaxPool(Strict):
    """The largest of each window of an image; `stride` is `kernel` unless given."""

    type: Literal["max_pool"]
    kernel: Pair
    stride: Pair | None = None
    padding: Padding = "valid"


class AvgPool(Strict):
    """The mean of each window, padding left out; `stride` is `kernel` unless given."""

    type: Literal["avg_pool"]
    kernel: Pair
    stride: Pair | None = None
    padding: Padding = "valid"


class GlobalAvgPool(Strict):
    """[channels, height, width] to each channel's mean, [channels]."""

    type: Literal["global_avg_pool"]


class Rnn(Strict):
    """h_t = f(W x_t + R h_(t-1) + b) over [time, features], from h_0 = 0.

    Gives the last state [units], or every state [time, units] with `return_sequences`.
    """

    type: Literal["rnn"]
    units: Size
    activation: Literal["tanh", "relu"] = "tanh"
    bias: bool = True
    return_sequences: bool = False
    init: InitSet = InitSet()


class Repeat(Strict):
    """The layers `times` over, each time with weights of its own."""

    type: Literal["repeat"]
    times: Annotated[int, Field(ge=1)]
    layers: "Layers"


class Residual(Strict):
    """y = shortcut(x) + scale * f(x), f being `layers`.

    `projection` maps x to f(x)'s shape by a dense layer on the last axis or a strided 1x1
    convolution, without bias; `init` is for its weight.
    """

    type: Literal["residual"]
    layers: "Layers"
    scale: Real = 1.0
    shortcut: Literal["identity", "projection"] = "identity"
    init: InitSet = InitSet()


Layer = Annotated[
    Dense
    | ActivationLayer
    | Conv2d
    | BatchNorm
    | LayerNorm
    | Flatten
    | MaxPool
    | AvgPool
    | GlobalAvgPool
    | Rnn
    | Repeat
    | Residual,
    Field(discriminator="type"),
]
Layers = Annotated[
    tuple[Layer, ...],
    Field(min_length=1),
    BeforeValidator(_as_list, json_schema_input_type=list[Layer]),
]
LAYER_TYPES: frozenset[str] = frozenset(
    get_args(model.model_fields["type"].annotation)[0] for model in get_args(get_args(Layer)[0])
)


class InputSpec(Strict):
    """One input's shape without the batch, and the law it is drawn from.

    `mean` and `scale` (standard deviation) belong to normal and uniform; `low` (inclusive) and
    `high` (exclusive) to integers, which are cast to float before the first layer.
    """

    shape: Annotated[
        tuple[Size, ...],
        Field(min_length=1, max_length=3),
        BeforeValidator(_as_list, json_schema_input_type=list[Size]),
    ]
    distribution: Literal["normal", "uniform", "integers"] = "normal"
    mean: Real = 0.0
    scale: Positive = 1.0
    low: int = Field(default=0, ge=-(1 << 31), lt=1 << 31)
    high: int = Field(default=2, ge=-(1 << 31), lt=1 << 31)

    @model_validator(mode="after")
    def _fields_fit_distribution(self) -> Self:
        stray = {"mean", "scale"} if self.distribution == "integers" else {"low", "high"}
        for name in sorted(self.model_fields_set & stray):
            raise refused(f"{self.distribution} does not take it", field=name)
        if not self.low < self.high:
            raise refused(f"{self.high} is not above low ({self.low})", field="high")
        return self


class Defaults(Strict):
    """What layers take where they say nothing themselves."""

    init: InitSet = InitSet()


class ArchSpec(Strict):
    """An architecture: an input, layers in order, and the loss it is to be trained with."""

    gradgauge: Literal[1]
    name: str = Field(default="architecture", min_length=1, max_length=200)
    input: InputSpec
    defaults: Defaults = Defaults()
    layers: Layers
    loss: Literal["cross_entropy", "mse", "random_cotangent"] | None = None


def parse_spec(
    text: str | bytes,
    *,
    format: Format | None = None,  # noqa: A002  # the word the command line uses
    limits: SpecLimits = DEFAULT_LIMITS,
) -> ArchSpec:
    """The spec in `text`; with no `format`, JSON where it opens with a brace, else YAML.

    Shapes and counts are checked by `gradgauge.schema.spec_shapes.count`.

    Raises:
        InvalidSpec: `where` holds the path (`layers[3].layers[0].units`) or the line.
        LimitExceeded: the text is too long or nested too deeply.
    """
    data = read_document(
        text, format=format, max_bytes=limits.max_bytes, max_depth=limits.max_depth
    )
    if not isinstance(data, dict):
        raise InvalidSpec(
            "not_a_spec",
            "the text is not a mapping",
            hint="a spec opens with `gradgauge: 1`, `input` and `layers`",
        )
    try:
        return ArchSpec.model_validate(data)
    except ValidationError as error:
        said = fault(error, tags=LAYER_TYPES)
        raise InvalidSpec(said.code, said.message, where=said.path, hint=said.hint) from error

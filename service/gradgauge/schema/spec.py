"""The architecture spec, version 1: a network in a page of YAML or JSON, strictly read."""

from dataclasses import dataclass
from typing import Annotated, Any, Literal, Self, get_args

from pydantic import BeforeValidator, Field, ValidationError, model_validator

from gradgauge.errors import InvalidSpec
from gradgauge.schema.activations import ACTIVATIONS, Function
from gradgauge.schema.document import Format, read_document
from gradgauge.schema.laws import DefaultInit, InitSet
from gradgauge.schema.spec_fields import Name, Size, as_list
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
from gradgauge.schema.strict import Positive, Real, Strict, fault, refused
from gradgauge.schema.translate import translate


@dataclass(frozen=True, slots=True)
class SpecLimits:
    """The largest spec that is read, counted and built.

    `max_parameters` keeps the float32 weights below protobuf's 2 GiB; `max_elements` bounds the
    values one input makes at any one layer; `max_layers` counts repeats unrolled, `max_names` what
    is remembered or shared by name.
    """

    max_bytes: int = 1 << 20
    max_depth: int = 64
    max_layers: int = 100_000
    max_parameters: int = 500_000_000
    max_elements: int = 1 << 28
    max_names: int = 1000


DEFAULT_LIMITS = SpecLimits()


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


class Gated(Strict):
    """f(x W + b) times (x V + c) on the last axis: the GLU family.

    `sigmoid` is GLU, `identity` the bilinear layer, `relu` ReGLU, `gelu` GEGLU, `swish` SwiGLU
    (Shazeer 2020).
    """

    type: Literal["gated"]
    units: Size
    function: Literal["sigmoid", "identity", "relu", "gelu", "swish", "tanh"] = "sigmoid"
    approximate: Literal["none", "tanh"] | None = None
    bias: bool = True
    init: InitSet = InitSet()

    @model_validator(mode="after")
    def _fields_fit_function(self) -> Self:
        if self.approximate is not None and self.function != "gelu":
            raise refused(f"{self.function} does not take it", field="approximate")
        return self


class Dropout(Strict):
    """Zeroes a share of the values in training; the analysis reads the network without it."""

    type: Literal["dropout"]
    rate: Annotated[float, Field(ge=0, lt=1)] = 0.5


class Flatten(Strict):
    """All axes but the batch into one."""

    type: Literal["flatten"]


class Reshape(Strict):
    """The same values in another shape, the batch not counted; one size may be -1, the rest."""

    type: Literal["reshape"]
    shape: Annotated[
        tuple[Annotated[int, Field(ge=-1, lt=1 << 31)], ...],
        Field(min_length=1, max_length=4),
        BeforeValidator(as_list, json_schema_input_type=list[int]),
    ]


class Permute(Strict):
    """The axes in another order, counted from 0 without the batch."""

    type: Literal["permute"]
    axes: Annotated[
        tuple[Annotated[int, Field(ge=0, le=3)], ...],
        Field(min_length=1, max_length=4),
        BeforeValidator(as_list, json_schema_input_type=list[int]),
    ]


class Remember(Strict):
    """Keeps the value at this point under a name, for `recall` and `attention: memory`."""

    type: Literal["remember"]
    name: Name


class Recall(Strict):
    """Goes on with the value a `remember` layer kept, whatever came before."""

    type: Literal["recall"]
    name: Name


class Repeat(Strict):
    """The layers `times` over, each time with weights of its own."""

    type: Literal["repeat"]
    times: Annotated[int, Field(ge=1)]
    layers: "Layers"


class Residual(Strict):
    """y = shortcut_scale * shortcut(x) + scale * f(x), f being `layers`.

    `learned_scale` makes `scale` a weight, which starts there. `projection` maps x to f(x)'s shape
    by a dense layer on the last axis or a strided 1x1 convolution, without bias; `init` is for its
    weight.
    """

    type: Literal["residual"]
    layers: "Layers"
    scale: Real = 1.0
    learned_scale: bool = False
    shortcut_scale: Real = 1.0
    shortcut: Literal["identity", "projection"] = "identity"
    init: InitSet = InitSet()


class Parallel(Strict):
    """Branches from one input, merged; an empty branch passes the input on.

    `concat` joins along `axis`: unless given the channels of a feature map of three axes or more,
    else the last one.
    """

    type: Literal["parallel"]
    branches: Annotated[
        tuple["Branch", ...],
        Field(min_length=2, max_length=1000),
        BeforeValidator(as_list, json_schema_input_type=list["Branch"]),
    ]
    merge: Literal["add", "concat", "multiply", "average", "maximum", "minimum", "subtract"] = "add"
    axis: int | None = None

    @model_validator(mode="after")
    def _fields_fit_merge(self) -> Self:
        if self.axis is not None and self.merge != "concat":
            raise refused(f"{self.merge} takes no axis", field="axis", hint="`concat` does")
        if self.merge == "subtract" and len(self.branches) != 2:
            raise refused("subtract takes two branches", field="branches")
        return self


Layer = Annotated[
    Dense
    | ActivationLayer
    | Gated
    | Conv1d
    | Conv2d
    | Conv3d
    | ConvTranspose
    | DepthwiseConv
    | BatchNorm
    | LayerNorm
    | RmsNorm
    | GroupNorm
    | InstanceNorm
    | Dropout
    | MaxPool
    | AvgPool
    | GlobalAvgPool
    | GlobalMaxPool
    | Flatten
    | Reshape
    | Permute
    | Embedding
    | PositionalEmbedding
    | SegmentEmbedding
    | ClassToken
    | Select
    | Unembedding
    | Attention
    | Rnn
    | Lstm
    | Gru
    | Repeat
    | Residual
    | Parallel
    | Remember
    | Recall,
    Field(discriminator="type"),
]
Layers = Annotated[
    tuple[Layer, ...],
    Field(min_length=1),
    BeforeValidator(as_list, json_schema_input_type=list[Layer]),
]
Branch = Annotated[
    tuple[Layer, ...],
    BeforeValidator(as_list, json_schema_input_type=list[Layer]),
]
LAYER_TYPES: frozenset[str] = frozenset(
    get_args(model.model_fields["type"].annotation)[0] for model in get_args(get_args(Layer)[0])
)


class InputSpec(Strict):
    """One input's shape without the batch, and the law it is drawn from.

    `mean` and `scale` (standard deviation) belong to normal and uniform; `low` (inclusive) and
    `high` (exclusive) to integers, which only `embedding` takes as they are: before any other layer
    they are cast to float.
    """

    shape: Annotated[
        tuple[Size, ...],
        Field(min_length=1, max_length=4),
        BeforeValidator(as_list, json_schema_input_type=list[Size]),
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


def _scheme(value: Any) -> Any:
    return {"kind": value} if isinstance(value, str) else value


class Scheme(Strict):
    """A published initialisation of whole networks; a bare word stands for `{kind: word}`.

    It sets the laws and scales that layers leave unsaid, before `defaults.init` does. `classifier`
    belongs to fixup: the published scheme starts the last layer at zero, so that no gradient passes
    it at the first step; `keep` starts it at He's law. `base_width` belongs to mup: the width at
    which it agrees with LeCun's law.
    """

    kind: Literal["fixup", "rezero", "t-fixup", "deepnorm", "mup"]
    classifier: Literal["zero", "keep"] = "zero"
    base_width: Size | None = None

    @model_validator(mode="after")
    def _fields_fit_kind(self) -> Self:
        for name, kind in (("classifier", "fixup"), ("base_width", "mup")):
            if name in self.model_fields_set and self.kind != kind:
                raise refused(f"{self.kind} does not take it", field=name)
        return self


class Defaults(Strict):
    """What layers take where they say nothing themselves."""

    init: DefaultInit = DefaultInit()
    scheme: (
        Annotated[
            Scheme,
            BeforeValidator(
                _scheme,
                json_schema_input_type=Literal["fixup", "rezero", "t-fixup", "deepnorm", "mup"]
                | Scheme,
            ),
        ]
        | None
    ) = None


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

    A Keras model's `to_json()` and a Hugging Face `config.json` are translated on the way.
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
        return ArchSpec.model_validate(translate(data))
    except ValidationError as error:
        said = fault(error, tags=LAYER_TYPES)
        raise InvalidSpec(said.code, said.message, where=said.path, hint=said.hint) from error

"""The initial laws a spec may name, and for which weights of a layer."""

import math
from typing import Annotated, Any, Literal, Self, get_args

from pydantic import AfterValidator, BeforeValidator, Field, model_validator

from gradgauge.errors import InvalidSpec
from gradgauge.schema.gains import GainName, gain_for
from gradgauge.schema.strict import Positive, Real, Strict, nearest, refused

InitKind = Literal[
    "zeros",
    "ones",
    "constant",
    "normal",
    "uniform",
    "truncated_normal",
    "glorot_uniform",
    "glorot_normal",
    "he_uniform",
    "he_normal",
    "lecun_uniform",
    "lecun_normal",
    "orthogonal",
    "identity",
    "torch_default",
    "mup_output",
]


def _gain(value: Any) -> Any:
    """A name stands for the gain of that activation."""
    if not isinstance(value, str):
        return value
    try:
        return gain_for(value)
    except InvalidSpec as error:
        raise refused(error.message, hint=nearest(value, get_args(GainName))) from error


Gain = Annotated[
    float,
    Field(ge=0, le=1e9),
    BeforeValidator(_gain, json_schema_input_type=float | GainName),
]


def _init(value: Any) -> Any:
    return {"kind": value} if isinstance(value, str) else value


class InitSpec(Strict):
    """The law a weight is drawn from; a bare word stands for `{kind: word}`.

    `gain` multiplies the law's standard deviation (of `normal`, `uniform`, `truncated_normal` the
    one given), so `{kind: he_normal, gain: 4}` is four times He's; a name is that activation's
    gain (`{kind: orthogonal, gain: tanh}`: 5/3). `std` and `mean` belong to `normal` and
    `truncated_normal`, which is cut at `low` and `high` (two standard deviations from the mean
    unless given); `low` and `high` also bound `uniform`; `value` fills `constant`. `mode` chooses
    the fan of the he and lecun laws. `mup_output` is normal with standard deviation 1 / fan_in.
    """

    kind: InitKind
    gain: Gain = 1.0
    mean: Real = 0.0
    std: Positive | None = None
    low: Real | None = None
    high: Real | None = None
    value: Real | None = None
    mode: Literal["fan_in", "fan_out"] = "fan_in"

    @model_validator(mode="after")
    def _fields_fit_kind(self) -> Self:
        takes = _TAKES.get(self.kind.split("_")[0], _TAKES.get(self.kind, ("gain",)))
        stray = next((f for f in self.model_fields_set if f != "kind" and f not in takes), None)
        if stray is not None:
            allowed = ", ".join(takes) or "no field"
            raise refused(f"{self.kind} takes {allowed}", field=stray)
        for name in _NEEDS.get(self.kind, ()):
            if getattr(self, name) is None:
                raise refused(f"{self.kind} needs it", field=name)
        low, high = self.bounds()
        if not low < high:
            raise refused(f"{high} is not above low ({low})", field="high")
        if self.kind == "truncated_normal" and _mass(self, low, high) < 1e-6:
            raise refused("next to nothing of the normal lies between low and high", field="low")
        return self

    def bounds(self) -> tuple[float, float]:
        """(low, high) in the weight's units, where not given two standard deviations away."""
        reach = 2 * (self.std or 1.0)
        low = self.mean - reach if self.low is None else self.low
        return low, self.mean + reach if self.high is None else self.high


def _mass(init: InitSpec, low: float, high: float) -> float:
    """The normal's probability of [low, high]."""
    root = (init.std or 1.0) * math.sqrt(2)
    return (math.erf((high - init.mean) / root) - math.erf((low - init.mean) / root)) / 2


_TAKES: dict[str, tuple[str, ...]] = {
    "zeros": (),
    "ones": (),
    "constant": ("value",),
    "normal": ("gain", "mean", "std"),
    "uniform": ("gain", "low", "high"),
    "truncated": ("gain", "mean", "std", "low", "high"),
    "he": ("gain", "mode"),
    "lecun": ("gain", "mode"),
}
_NEEDS = {
    "constant": ("value",),
    "normal": ("std",),
    "uniform": ("low", "high"),
    "truncated_normal": ("std",),
}

Init = Annotated[InitSpec, BeforeValidator(_init, json_schema_input_type=InitKind | InitSpec)]


def _not_a_matrix(init: InitSpec) -> InitSpec:
    if init.kind in {"orthogonal", "identity"}:
        raise refused(f"{init.kind} is a law of matrices; a vector cannot have it")
    return init


VectorInit = Annotated[Init, AfterValidator(_not_a_matrix)]


class InitSet(Strict):
    """Laws by the weight's part in its layer.

    What is left out comes from `defaults`, then from glorot_uniform (weight), orthogonal
    (recurrent) and zeros (bias). A bias takes its fans from its layer's weight; an RNN's two ONNX
    biases, which add, are drawn from the same law.
    """

    weight: Init | None = None
    recurrent: Init | None = None
    bias: VectorInit | None = None


class DefaultInit(InitSet):
    """`InitSet`, and a law for the tables that are looked up.

    They are not multiplied, so `weight` does not reach them: normal with standard deviation 1,
    torch's, unless `embedding` is given.
    """

    embedding: Init | None = None


class TableInit(Strict):
    """The law of a table that is looked up or added: embeddings, positions, learned tokens."""

    weight: Init | None = None


class AttentionInit(Strict):
    """Laws of the four projections: `query` and so on where given, else `weight`."""

    weight: Init | None = None
    query: Init | None = None
    key: Init | None = None
    value: Init | None = None
    output: Init | None = None
    bias: VectorInit | None = None


class NormInit(Strict):
    """Laws of a normalisation's scale (ones unless given) and bias (zeros)."""

    scale: VectorInit | None = None
    bias: VectorInit | None = None

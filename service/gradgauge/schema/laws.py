"""The initial laws a spec may name, and for which weights of a layer."""

from typing import Annotated, Any, Literal, Self

from pydantic import AfterValidator, BeforeValidator, Field, model_validator

from gradgauge.schema.strict import Strict, refused

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
]


def _init(value: Any) -> Any:
    return {"kind": value} if isinstance(value, str) else value


class InitSpec(Strict):
    """The law a weight is drawn from; a bare word stands for `{kind: word}`.

    `gain` multiplies the law's standard deviation (of `normal`, `uniform`, `truncated_normal` the
    one given), so `{kind: he_normal, gain: 4}` is four times He's. `std` and `mean` belong to
    `normal` and `truncated_normal`, which is cut at `low` and `high` (two standard deviations from
    the mean unless given); `low` and `high` also bound `uniform`; `value` fills `constant`. `mode`
    chooses the fan of the he and lecun laws.
    """

    kind: InitKind
    gain: float = Field(default=1.0, ge=0)
    mean: float = 0.0
    std: float | None = Field(default=None, gt=0)
    low: float | None = None
    high: float | None = None
    value: float | None = None
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
        if self.low is not None and self.high is not None and not self.low < self.high:
            raise refused(f"{self.high} is not above low ({self.low})", field="high")
        return self


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


class NormInit(Strict):
    """Laws of a normalisation's scale (ones unless given) and bias (zeros)."""

    scale: VectorInit | None = None
    bias: VectorInit | None = None

"""What every block on the wire has in common: no defaults, no unknown fields, honest numbers."""

import math
from typing import Annotated, Literal, TypeVar

from pydantic import AfterValidator, BaseModel, ConfigDict, FailFast, Field, PlainSerializer

T = TypeVar("T")

Severity = Literal["none", "low", "medium", "high", "critical"]
SEVERITIES: tuple[Severity, ...] = ("none", "low", "medium", "high", "critical")

Category = Literal[
    "vanishing",
    "exploding",
    "saturation",
    "dead_units",
    "rank_collapse",
    "symmetry",
    "shattered",
    "precision_underflow",
    "precision_overflow",
    "attention_entropy",
    "initialisation",
    "ill_posed",
    "disagreement",
    "not_analysed",
]


def finite(value: float) -> float:
    """The value itself; raises ValueError for NaN and the infinities, which JSON lacks."""
    if not math.isfinite(value):
        raise ValueError("NaN and infinities are not on the wire: send null and say why")
    return value


def significant(value: float) -> float:
    """`value` to four significant digits; raises ValueError where it is not finite."""
    return float(f"{finite(value):.4g}") + 0.0  # -0.0 becomes 0.0


def encodable(text: str) -> str:
    r"""`text` with lone surrogates, which UTF-8 cannot carry, spelled out as \udcXX."""
    return text.encode("utf-8", "backslashreplace").decode("utf-8")


# Checked on the way in, so that what is in memory equals what is sent, and again on the way out,
# because model_copy and model_construct skip the way in.
Text = Annotated[str, AfterValidator(encodable)]
Exact = Annotated[float, AfterValidator(finite), PlainSerializer(finite)]
Number = Annotated[float, AfterValidator(significant), PlainSerializer(significant)]
Positive = Annotated[float, Field(ge=0), AfterValidator(significant), PlainSerializer(significant)]
Fraction = Annotated[
    float, Field(ge=0, le=1), AfterValidator(significant), PlainSerializer(significant)
]
Score = Annotated[
    float, Field(ge=0, le=100), AfterValidator(significant), PlainSerializer(significant)
]
Count = Annotated[int, Field(ge=0)]


class _FirstFault(FailFast):
    """`FailFast` as a part of unions, which Python 3.11 hashes."""

    __hash__ = object.__hash__


# Of a million wrong items the first is told, and no other kept.
Listed = Annotated[list[T], _FirstFault()]


class Block(BaseModel):
    """A part of the report: every field always present, none unknown, none changed later."""

    model_config = ConfigDict(extra="forbid", frozen=True, use_attribute_docstrings=True)


class Interval(Block):
    """A confidence interval, in the unit of the quantity it belongs to."""

    low: Number
    high: Number
    level: Fraction
    """Share of repetitions in which the interval holds the true value."""
    method: Text


class Quantiles(Block):
    """Quantiles of a sample; where it has one value only q50 is set."""

    q05: Number | None
    q25: Number | None
    q50: Number | None
    q75: Number | None
    q95: Number | None


class MeasurementBlock(Block):
    """A number that has no field of its own."""

    name: Text
    value: Number | None
    low: Number | None
    high: Number | None
    unit: Text
    source: Literal["analytic", "sampled"]
    note: Text | None

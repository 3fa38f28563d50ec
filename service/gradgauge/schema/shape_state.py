"""What is known at one point of a spec, and the words for what does not fit there."""

import math
from collections.abc import Mapping
from dataclasses import dataclass, field

from gradgauge.errors import InvalidSpec, LimitExceeded
from gradgauge.schema.spec_fields import spread

Shape = tuple[int, ...]


@dataclass(frozen=True, slots=True)
class Kept:
    """A value under a name: its shape, and (low, high) where it holds the input's integers."""

    shape: Shape
    integers: tuple[int, int] | None = None


@dataclass(frozen=True, slots=True)
class State:
    """The value at this point, and what later layers may refer to.

    `kept` are `remember`ed values by name, `table` (entries, units) of the last embedding, `biases`
    (buckets, heads) of relative biases by name.
    """

    shape: Shape
    integers: tuple[int, int] | None = None
    kept: Mapping[str, Kept] = field(default_factory=dict)
    table: tuple[int, int] | None = None
    biases: Mapping[str, tuple[int, int]] = field(default_factory=dict)


def needs(shape: Shape, ranks: tuple[int, ...], path: str, what: str, hint: str) -> None:
    """Refuse a shape whose number of axes is none of `ranks`."""
    if len(shape) not in ranks:
        raise wrong(path, f"{what} cannot take an input of shape {say(shape)}", hint)


def wrong(path: str, message: str, hint: str) -> InvalidSpec:
    """The error of a layer that cannot take what it is given."""
    return InvalidSpec("shape_mismatch", message, where=path, hint=hint)


def say(shape: Shape) -> str:
    """A shape as a spec spells it."""
    return f"[{', '.join(map(str, shape))}]"


def check_axis(axis: int, shape: Shape, path: str) -> None:
    """Refuse an axis the shape does not have."""
    if not -len(shape) <= axis < len(shape):
        raise wrong(
            f"{path}.axis",
            f"axis {axis} is outside {say(shape)}",
            f"from {-len(shape)} to {len(shape) - 1}, the batch not counted",
        )


def over_axes(given: Shape, axes: int, path: str) -> Shape:
    """One number for each axis.

    Raises:
        InvalidSpec: as many numbers were given as fit another number of axes.
    """
    if len(given) not in {1, axes}:
        raise wrong(
            path,
            f"{len(given)} numbers for an input of {axes} axes behind its channels",
            f"give one number, or {axes}",
        )
    return spread(given, axes)


def too_large(bound: int, name: str, path: str, what: str) -> LimitExceeded:
    """The error of a spec that passes a limit at `path`."""
    return LimitExceeded(
        "spec_too_large",
        f"up to here the spec amounts to {what}",
        where=path,
        limit=f"{name}={bound}",
        hint=f"at most {bound:,}; reduce `times`, `units` or `shape`",
    )


def number(n: int) -> str:
    """A count in full, or its power of ten."""
    return f"{n:,}" if n < 10**12 else f"about 10^{math.floor(math.log10(n))}"

"""The fields layers share: sizes, window sizes of one to three axes, paddings, names."""

from typing import Annotated, Any, Literal

from pydantic import BeforeValidator, Field

from gradgauge.schema.strict import refused


def as_list(value: Any) -> Any:
    """JSON and YAML have lists only; the models hold tuples."""
    return tuple(value) if isinstance(value, list) else value


def _is_whole(value: Any) -> bool:
    return isinstance(value, int) and not isinstance(value, bool)


def _single(value: Any) -> Any:
    return (value,) if _is_whole(value) else as_list(value)


def _pair(value: Any) -> Any:
    return (value, value) if _is_whole(value) else as_list(value)


def _triple(value: Any) -> Any:
    return (value, value, value) if _is_whole(value) else as_list(value)


def _padding(value: Any) -> Any:
    pads = value if isinstance(value, str) else _single(value)
    if isinstance(pads, tuple) and 1 <= len(pads) <= 3:
        if all(type(p) is int and 0 <= p < 1 << 31 for p in pads):
            return pads
    elif pads in ("same", "valid"):
        return pads
    raise refused(
        "not a padding", hint="allowed: same, valid, a whole number, or one for each axis"
    )


Size = Annotated[int, Field(ge=1, lt=1 << 31)]
Count = Annotated[int, Field(ge=0, lt=1 << 31)]
Single = Annotated[tuple[Size], BeforeValidator(_single, json_schema_input_type=Size | tuple[Size])]
Pair = Annotated[
    tuple[Size, Size], BeforeValidator(_pair, json_schema_input_type=Size | tuple[Size, Size])
]
Triple = Annotated[
    tuple[Size, Size, Size],
    BeforeValidator(_triple, json_schema_input_type=Size | tuple[Size, Size, Size]),
]
# one number stands for every axis: `spread` it over the input's
Sizes = Annotated[
    tuple[Size, ...],
    Field(min_length=1, max_length=3),
    BeforeValidator(_single, json_schema_input_type=Size | list[Size]),
]
Counts = Annotated[
    tuple[Count, ...],
    Field(min_length=1, max_length=3),
    BeforeValidator(_single, json_schema_input_type=Count | list[Count]),
]
Padding = Annotated[
    Literal["same", "valid"] | tuple[Count, ...],
    BeforeValidator(
        _padding, json_schema_input_type=Literal["same", "valid"] | Count | list[Count]
    ),
]
Name = Annotated[str, Field(min_length=1, max_length=100)]


def spread(given: tuple[int, ...], axes: int) -> tuple[int, ...]:
    """One number for each of `axes`, where only one was given."""
    return given * axes if len(given) == 1 else given

"""Strict models, and one plain sentence for whatever they refuse."""

import difflib
import re
from collections.abc import Collection, Iterable
from dataclasses import dataclass
from typing import Annotated, Any, Self

from pydantic import (
    BaseModel,
    ConfigDict,
    Field,
    ModelWrapValidatorHandler,
    ValidationError,
    model_validator,
)
from pydantic_core import ErrorDetails, PydanticCustomError

Real = Annotated[float, Field(ge=-1e9, le=1e9)]  # float32 holds its square
Positive = Annotated[float, Field(gt=0, le=1e9)]


class Strict(BaseModel):
    """Frozen; refuses unknown fields (naming the nearest), wrong types, NaN and infinity."""

    model_config = ConfigDict(
        extra="forbid", strict=True, frozen=True, allow_inf_nan=False, validate_default=False
    )

    @model_validator(mode="wrap")
    @classmethod
    def _known_fields(cls, data: Any, handler: ModelWrapValidatorHandler[Self]) -> Self:
        allowed = [field.alias or name for name, field in cls.model_fields.items()]
        unknown = [key for key in data if key not in allowed] if isinstance(data, dict) else []
        if unknown:
            raise PydanticCustomError(
                "unknown_field",
                "unknown field",
                {"field": str(unknown[0]), "allowed": allowed},
            )
        return handler(data)


@dataclass(frozen=True, slots=True)
class Fault:
    """The first thing a model refused: `path` as a reader writes it, `layers[3].units`."""

    code: str
    path: str
    message: str
    hint: str | None


def fault(error: ValidationError, *, tags: Collection[str] = ()) -> Fault:
    """The first refusal in `error`; `tags` are union tags to leave out of the path."""
    details = error.errors(include_url=False)
    first = details[0]
    loc = _without_tags(first["loc"], tags)
    code, name, message, hint = _SAY.get(first["type"], _other)(first)
    path = spell(loc if name is None else (*loc, name))
    more = len(details) - 1
    return Fault(code, path, message + (f" (and {more} more)" if more else ""), hint)


def spell(loc: Iterable[str | int]) -> str:
    """A path as people write it: `layers[3].layers[0].units`."""
    return "".join(f"[{p}]" if isinstance(p, int) else f".{p}" for p in loc).lstrip(".")


def nearest(word: str, allowed: Collection[str]) -> str:
    """What to write instead: the nearest allowed word, or all of them."""
    close = difflib.get_close_matches(word, allowed, n=1, cutoff=0.6)
    listed = ", ".join(allowed)
    return f"did you mean {close[0]!r}? allowed: {listed}" if close else f"allowed: {listed}"


def _without_tags(loc: tuple[int | str, ...], tags: Collection[str]) -> list[int | str]:
    """Pydantic puts a union's tag after the index it applies to."""
    return [
        part
        for i, part in enumerate(loc)
        if not (i and isinstance(loc[i - 1], int) and part in tags)
    ]


_Said = tuple[str, str | None, str, str | None]


def _unknown(detail: ErrorDetails) -> _Said:
    ctx = detail["ctx"]
    field, allowed = _short(ctx["field"]), ctx["allowed"]
    return "unknown_field", field, f"there is no field {field!r}", nearest(field, allowed)


def _missing(_: ErrorDetails) -> _Said:
    return "missing_field", None, "this field is required", None


def _no_type(_: ErrorDetails) -> _Said:
    return "missing_field", "type", "a layer needs its type", None


def _wrong_type(detail: ErrorDetails) -> _Said:
    given, allowed = _short(detail["ctx"]["tag"]), _quoted(detail["ctx"]["expected_tags"])
    return "unknown_type", "type", f"{given!r} is not a layer type", nearest(given, allowed)


def _word(detail: ErrorDetails) -> _Said:
    allowed = _quoted(detail["ctx"]["expected"]) or [detail["ctx"]["expected"]]
    given = detail["input"]
    said = f"{_short(given)!r} is not allowed here"
    return "bad_value", None, said, nearest(given if isinstance(given, str) else "", allowed)


def _custom(detail: ErrorDetails) -> _Said:
    ctx = detail.get("ctx", {})
    return "bad_value", ctx.get("field"), detail["msg"], ctx.get("hint")


def _length(detail: ErrorDetails) -> _Said:
    ctx = detail["ctx"]
    bound = (
        f"at least {ctx['min_length']}" if "min_length" in ctx else f"at most {ctx['max_length']}"
    )
    return "bad_value", None, f"must have {bound} items, not {ctx['actual_length']}", None


def _other(detail: ErrorDetails) -> _Said:
    what = _KINDS.get(detail["type"], detail["msg"].removeprefix("Input should "))
    said = what if what.startswith("be ") else f"be right: {what}"
    given = _short(detail["input"])
    shown = repr(given) if isinstance(detail["input"], str) else given
    return "bad_value", None, f"must {said}, not {shown}", None


_KINDS = {
    "int_type": "be a whole number",
    "float_type": "be a number",
    "bool_type": "be true or false",
    "string_type": "be a text",
    "tuple_type": "be a list",
    "model_type": "be a mapping",
    "model_attributes_type": "be a mapping",
    "dict_type": "be a mapping",
}


_SAY = {
    "unknown_field": _unknown,
    "missing": _missing,
    "union_tag_not_found": _no_type,
    "union_tag_invalid": _wrong_type,
    "literal_error": _word,
    "refused": _custom,
    "too_short": _length,
    "too_long": _length,
}


def refused(message: str, *, field: str | None = None, hint: str | None = None) -> Exception:
    """What a validator raises: said as it stands, at `field` of the model."""
    context = {"field": field, "hint": hint}
    return PydanticCustomError("refused", "{message}", {"message": message, **context})


def _quoted(listed: str) -> list[str]:
    return re.findall(r"'([^']*)'", listed)


def _short(value: Any) -> str:
    """The value as the spec spells it, cut to a line."""
    if isinstance(value, (dict, list, tuple)):
        return "a mapping" if isinstance(value, dict) else "a list"
    words = {None: "null", True: "true", False: "false"}
    plain = value is None or isinstance(value, bool)
    return (words[value] if plain else str(value))[:60]

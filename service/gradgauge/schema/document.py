"""Text to plain data: JSON or a safe subset of YAML 1.2, with nothing in it that can surprise.

The subset: the core schema's null, true, false, decimal numbers and strings (so `no` is a string
and `1e-3` a number, unlike in YAML 1.1); no tags, anchors, aliases or merge keys, one document.
"""

import json
import math
import re
from collections.abc import Iterator
from dataclasses import dataclass
from typing import Any, Literal

import yaml

from gradgauge.errors import InvalidSpec, LimitExceeded

Format = Literal["json", "yaml"]

_NULL = frozenset({"", "~", "null", "Null", "NULL"})
_TRUE = frozenset({"true", "True", "TRUE"})
_FALSE = frozenset({"false", "False", "FALSE"})
_INT = re.compile(r"[-+]?[0-9]+")
_FLOAT = re.compile(r"[-+]?(\.[0-9]+|[0-9]+(\.[0-9]*)?)([eE][-+]?[0-9]+)?")
_NOT_FINITE = re.compile(r"[-+]?\.(inf|Inf|INF)|\.(nan|NaN|NAN)")
_DIGITS = 40  # far above any count a limit allows; Python's own int() is quadratic in the digits
_Loader = getattr(yaml, "CSafeLoader", yaml.SafeLoader)


@dataclass(frozen=True, slots=True)
class _Twice:
    """Stands for a mapping in which `key` was given twice, until its path is known."""

    key: str


@dataclass(frozen=True, slots=True)
class _BadNumber:
    """Stands for a number that is not finite or is absurdly long, until its path is known."""

    text: str


def read_document(
    text: str | bytes,
    *,
    format: Format | None = None,  # noqa: A002  # the word the command line uses
    max_bytes: int = 1 << 20,
    max_depth: int = 64,
) -> Any:
    """Dicts, lists, strings, finite numbers, booleans and None.

    Raises:
        LimitExceeded: more than `max_bytes` of text or `max_depth` levels of nesting.
        InvalidSpec: not UTF-8, not JSON or YAML, a key given twice, an alias, a number that is not
            finite.
    """
    if len(text) > max_bytes:
        raise LimitExceeded(
            "spec_too_large",
            f"the text has {len(text):,} bytes",
            limit=f"max_bytes={max_bytes}",
            hint=f"at most {max_bytes:,} are read; use `repeat` for repeated layers",
        )
    try:
        words = text.decode("utf-8-sig") if isinstance(text, bytes) else text
    except UnicodeDecodeError as error:
        raise InvalidSpec(
            "spec_not_text",
            f"the text is not UTF-8 (byte {error.start})",
            hint="a spec is JSON or YAML text; a model is given as .onnx",
        ) from error
    data = _READ[format](words, max_depth)
    _check(data, "", max_depth)
    return data


def _read_json(text: str, max_depth: int) -> Any:
    try:
        return json.loads(
            text,
            object_pairs_hook=_pairs,
            parse_int=_integer,
            parse_float=_float,
            parse_constant=_BadNumber,
        )
    except json.JSONDecodeError as error:
        where = f"line {error.lineno}, column {error.colno}"
        raise InvalidSpec("spec_syntax", f"not JSON: {error.msg}", where=where) from error
    except RecursionError as error:
        raise _too_deep(max_depth, None) from error


def _read_yaml(text: str, max_depth: int) -> Any:
    try:
        return _build(yaml.parse(text, Loader=_Loader), max_depth)
    except yaml.MarkedYAMLError as error:
        problem = error.problem or error.context or "syntax error"
        raise InvalidSpec(
            "spec_syntax", f"not YAML: {problem}", where=_line(error.problem_mark)
        ) from error
    except yaml.YAMLError as error:
        raise InvalidSpec("spec_syntax", f"not YAML: {error}") from error


def _read_either(text: str, max_depth: int) -> Any:
    """JSON where it looks like JSON; YAML's flow style looks like it too, so YAML comes second."""
    if not text.lstrip().startswith("{"):
        return _read_yaml(text, max_depth)
    try:
        return _read_json(text, max_depth)
    except InvalidSpec as error:
        try:
            return _read_yaml(text, max_depth)
        except InvalidSpec:
            raise error from None


_READ = {"json": _read_json, "yaml": _read_yaml, None: _read_either}


def _pairs(pairs: list[tuple[str, Any]]) -> dict[str, Any] | _Twice:
    found: dict[str, Any] = {}
    for key, value in pairs:
        if key in found:
            return _Twice(key)
        found[key] = value
    return found


def _integer(text: str) -> int | _BadNumber:
    return int(text) if len(text) <= _DIGITS else _BadNumber(text)


def _float(text: str) -> float | _BadNumber:
    number = float(text)
    return number if math.isfinite(number) else _BadNumber(text)


def _build(events: Iterator[Any], max_depth: int) -> Any:
    """Data from parser events, without PyYAML's recursive composer (which a deep text overruns)."""
    root: list[Any] = []
    stack: list[tuple[type, list[Any]]] = [(list, root)]
    for event in events:
        _refuse_features(event, seen=bool(root))
        if isinstance(event, yaml.ScalarEvent):
            stack[-1][1].append(_scalar(event))
        elif isinstance(event, yaml.CollectionStartEvent):
            if len(stack) > max_depth:
                raise _too_deep(max_depth, _line(event.start_mark))
            stack.append((dict if isinstance(event, yaml.MappingStartEvent) else list, []))
        elif isinstance(event, yaml.CollectionEndEvent):
            kind, items = stack.pop()
            stack[-1][1].append(_mapping(items, event) if kind is dict else items)
    return root[0] if root else None


def _refuse_features(event: Any, *, seen: bool) -> None:
    if isinstance(event, yaml.DocumentStartEvent) and seen:
        raise _refused(event, "a second document", "give one spec per file")
    if isinstance(event, yaml.AliasEvent) or getattr(event, "anchor", None):
        raise _refused(event, "an anchor or alias", "write it out, or use `repeat`")
    if getattr(event, "tag", None):
        raise _refused(event, f"the tag {event.tag!r}", "plain values need none")


def _mapping(items: list[Any], event: Any) -> dict[str, Any] | _Twice:
    keys = items[::2]
    odd = next((key for key in keys if not isinstance(key, str)), None)
    if odd is not None or "<<" in keys:
        key = "<<" if odd is None else odd
        raise _refused(event, f"the key {key!r} in the mapping that ends", "keys are plain words")
    return _pairs(list(zip(keys, items[1::2], strict=True)))


def _scalar(event: Any) -> Any:
    text: str = event.value
    if not event.implicit[0]:  # quoted
        return text
    for words, value in ((_NULL, None), (_TRUE, True), (_FALSE, False)):
        if text in words:
            return value
    if _NOT_FINITE.fullmatch(text):
        return _BadNumber(text)
    if _INT.fullmatch(text):
        return _integer(text)
    return _float(text) if _FLOAT.fullmatch(text) else text


def _check(data: Any, path: str, room: int) -> None:
    """Refuse what the readers marked, now that its path is known."""
    if isinstance(data, _Twice):
        where = f"{path}.{data.key}".lstrip(".")
        raise InvalidSpec("duplicate_key", f"{data.key!r} is given twice", where=where)
    if isinstance(data, _BadNumber):
        shown = data.text if len(data.text) <= _DIGITS else f"{data.text[:_DIGITS]}..."
        message = f"{shown} is not a finite number of at most {_DIGITS} digits"
        raise InvalidSpec("bad_number", message, where=path)
    if isinstance(data, str) and any("\ud800" <= c <= "\udfff" for c in data):
        raise InvalidSpec("bad_text", "half of a surrogate pair is not text", where=path)
    if isinstance(data, (dict, list)):
        if room == 0:
            raise _too_deep(None, path[:200])
        for key, value in data.items() if isinstance(data, dict) else enumerate(data):
            _check(
                value,
                f"{path}[{key}]" if isinstance(key, int) else f"{path}.{key}".lstrip("."),
                room - 1,
            )


def _refused(event: Any, what: str, hint: str) -> InvalidSpec:
    return InvalidSpec(
        "yaml_feature", f"{what} is not allowed in a spec", where=_line(event.start_mark), hint=hint
    )


def _too_deep(max_depth: int | None, where: str | None) -> LimitExceeded:
    return LimitExceeded(
        "spec_too_deep",
        "the text is nested too deeply",
        where=where,
        limit=None if max_depth is None else f"max_depth={max_depth}",
        hint="flatten the nesting",
    )


def _line(mark: Any) -> str | None:
    return None if mark is None else f"line {mark.line + 1}, column {mark.column + 1}"

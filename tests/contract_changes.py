"""What of a contract an older client could no longer use with a newer one.

Asked: a call, a parameter, a body, a field, a value that was taken is taken still, and nothing more
is asked for. Told: a field that was always there is there still, of a type that was possible.
"""

from collections.abc import Iterator, Mapping
from typing import Any

Document = Mapping[str, Any]
_BOUNDS = {
    "maximum": -1,
    "exclusiveMaximum": -1,
    "maxLength": -1,
    "maxItems": -1,
    "minimum": 1,
    "exclusiveMinimum": 1,
    "minLength": 1,
    "minItems": 1,
}


def breaking(old: Document, new: Document) -> list[str]:
    """A line for each change that breaks; the names in it are the contract's."""
    return sorted(set(_changes(old, new)))


def _changes(old: Document, new: Document) -> Iterator[str]:
    for path, shared in old["paths"].items():
        for method, before in shared.items():
            name = f"{method.upper()} {path}"
            after = new["paths"].get(path, {}).get(method)
            if after is None:
                yield f"{name}: gone"
            else:
                yield from _call(name, before, after, _Both(old, new))


class _Both:
    """Two contracts side by side, and which pairs of named types have been compared."""

    def __init__(self, old: Document, new: Document) -> None:
        self._old, self._new = old, new
        self.seen: set[tuple[str, str, bool]] = set()

    def old(self, schema: Any) -> Any:
        return _resolved(self._old, schema)

    def new(self, schema: Any) -> Any:
        return _resolved(self._new, schema)


def _resolved(document: Document, part: Any) -> Any:
    while isinstance(part, Mapping) and "$ref" in part:
        found: Any = document
        for name in part["$ref"].removeprefix("#/").split("/"):
            found = found[name]
        part = found
    return part


def _call(name: str, old: Any, new: Any, both: _Both) -> Iterator[str]:
    if old["operationId"] != new["operationId"]:
        yield f"{name}: operationId was {old['operationId']}"
    yield from _parameters(name, old, new, both)
    yield from _bodies(name, old, new, both)
    for status, answer in old["responses"].items():
        if not status.startswith("2"):
            continue
        if status not in new["responses"]:
            yield f"{name}: no longer answers {status}"
            continue
        told = both.new(new["responses"][status]).get("content", {})
        for kind, each in both.old(answer).get("content", {}).items():
            if kind not in told:
                yield f"{name}: {status} is no longer {kind}"
            else:
                where = f"{name} {status}"
                yield from _told(where, each.get("schema", {}), told[kind].get("schema", {}), both)


def _parameters(name: str, old: Any, new: Any, both: _Both) -> Iterator[str]:
    before = {(each["in"], each["name"]): each for each in old.get("parameters", ())}
    after = {(each["in"], each["name"]): each for each in new.get("parameters", ())}
    for key, each in before.items():
        where = f"{name} {key[0]} {key[1]}"
        if key not in after:
            yield f"{where}: gone"
            continue
        if after[key].get("required") and not each.get("required"):
            yield f"{where}: now required"
        yield from _asked(where, each["schema"], after[key]["schema"], both)
    for key, each in after.items():
        if key not in before and each.get("required"):
            yield f"{name} {key[0]} {key[1]}: new and required"


def _bodies(name: str, old: Any, new: Any, both: _Both) -> Iterator[str]:
    before, after = old.get("requestBody", {}), new.get("requestBody", {})
    if after.get("required") and not before.get("required"):
        yield f"{name}: a body is now required"
    for kind, each in before.get("content", {}).items():
        if kind not in after.get("content", {}):
            yield f"{name}: no longer takes {kind}"
            continue
        held = after["content"][kind]
        yield from _asked(f"{name} body", each.get("schema", {}), held.get("schema", {}), both)


def _asked(where: str, old: Any, new: Any, both: _Both) -> Iterator[str]:
    yield from _compared(where, old, new, both, asked=True)


def _told(where: str, old: Any, new: Any, both: _Both) -> Iterator[str]:
    yield from _compared(where, old, new, both, asked=False)


def _compared(where: str, old: Any, new: Any, both: _Both, *, asked: bool) -> Iterator[str]:
    pair = (str(old), str(new), asked)
    if old == new and "$ref" not in str(old):
        return
    if pair in both.seen:
        return
    both.seen.add(pair)
    old, new = both.old(old), both.new(new)
    yield from _kinds(where, old, new, asked=asked)
    if asked:
        yield from _bounds(where, old, new)
    yield from _fields(where, old, new, both, asked=asked)
    for name in ("items", "additionalProperties"):
        if isinstance(old.get(name), Mapping) and isinstance(new.get(name), Mapping):
            yield from _compared(f"{where}[]", old[name], new[name], both, asked=asked)
    for name in ("anyOf", "oneOf"):
        for before, after in zip(old.get(name, ()), new.get(name, ()), strict=False):
            yield from _compared(where, before, after, both, asked=asked)


def _kinds(where: str, old: Any, new: Any, *, asked: bool) -> Iterator[str]:
    """What was taken has to be taken still; what is told has to have been possible."""
    before, after = _values(old), _values(new)
    if before is None or after is None:
        if asked and before is None and after is not None:
            yield f"{where}: now only {sorted(after)}"
        return
    lost = before - after if asked else after - before
    if lost:
        yield f"{where}: {sorted(lost)} {'no longer taken' if asked else 'now possible'}"


def _values(schema: Any) -> set[str] | None:
    """The kinds or values a schema allows in words; None: anything."""
    if "const" in schema:
        return {repr(schema["const"])}
    if "enum" in schema:
        return {repr(each) for each in schema["enum"]}
    if "type" in schema:
        kinds = schema["type"]
        return set(kinds) if isinstance(kinds, list) else {kinds}
    branches = schema.get("anyOf") or schema.get("oneOf")
    if not branches:
        return None
    found: set[str] = set()
    for each in branches:
        if "$ref" in each:
            found.add(each["$ref"])
            continue
        inner = _values(each)
        if inner is None:
            return None
        found |= inner
    return found


def _bounds(where: str, old: Any, new: Any) -> Iterator[str]:
    for name, sign in _BOUNDS.items():
        if name in new and (name not in old or sign * (new[name] - old[name]) > 0):
            yield f"{where}: {name} is now {new[name]}"
    if "pattern" in new and new["pattern"] != old.get("pattern"):
        yield f"{where}: another pattern"


def _fields(where: str, old: Any, new: Any, both: _Both, *, asked: bool) -> Iterator[str]:
    before, after = old.get("properties", {}), new.get("properties", {})
    for name, each in before.items():
        if name in after:
            yield from _compared(f"{where}.{name}", each, after[name], both, asked=asked)
        elif asked or name in old.get("required", ()):
            yield f"{where}.{name}: gone"
    needed, always = set(new.get("required", ())), set(old.get("required", ()))
    if asked:
        yield from (f"{where}.{name}: now required" for name in needed - always)
    else:
        yield from (f"{where}.{name}: may be absent" for name in (always & set(after)) - needed)

"""The OpenAPI document as plain rows for a page that people read."""

from collections.abc import Iterator, Mapping, Sequence
from dataclasses import dataclass
from typing import Any

_PREFIX = "#/components/schemas/"
_METHODS = ("get", "put", "post", "delete", "patch")


@dataclass(frozen=True, slots=True)
class Piece:
    """A part of a type's spelling; `target` is the schema it names, if it does."""

    text: str
    target: str = ""


@dataclass(frozen=True, slots=True)
class Field:
    """A parameter, or a property of a schema."""

    name: str
    kind: tuple[Piece, ...]
    required: bool
    description: str


@dataclass(frozen=True, slots=True)
class Message:
    """A body that goes in or comes out."""

    name: str
    media: str
    kind: tuple[Piece, ...]
    description: str


@dataclass(frozen=True, slots=True)
class Operation:
    """One call."""

    id: str
    method: str
    path: str
    tag: str
    description: str
    parameters: tuple[Field, ...]
    bodies: tuple[Message, ...]
    answers: tuple[Message, ...]


@dataclass(frozen=True, slots=True)
class Schema:
    """A named type and its fields, or how it is spelt where it has none."""

    name: str
    description: str
    fields: tuple[Field, ...]
    kind: tuple[Piece, ...]


def operations(document: Mapping[str, Any]) -> list[Operation]:
    """Every call, those with one tag together."""
    found = [
        _operation(method, path, shared[method], document["components"])
        for path, shared in document["paths"].items()
        for method in _METHODS
        if method in shared
    ]
    tags = list(dict.fromkeys(each.tag for each in found))
    return sorted(found, key=lambda each: (each.tag == "health", tags.index(each.tag)))


def schemas(document: Mapping[str, Any]) -> list[Schema]:
    """Every named type, by name."""
    return [
        Schema(
            name,
            told.get("description", ""),
            tuple(_fields(told)),
            () if "properties" in told else tuple(_spell(told)),
        )
        for name, told in sorted(document["components"]["schemas"].items())
    ]


def _operation(
    method: str, path: str, told: Mapping[str, Any], components: Mapping[str, Any]
) -> Operation:
    body = told.get("requestBody", {})
    return Operation(
        id=told["operationId"],
        method=method.upper(),
        path=path,
        tag=told["tags"][0],
        description=told.get("description", ""),
        parameters=tuple(
            Field(
                each["name"],
                (Piece(f"{each['in']}: "), *_spell(each["schema"])),
                each.get("required", False),
                each.get("description", ""),
            )
            for each in told.get("parameters", ())
        ),
        bodies=tuple(_messages("body", body)),
        answers=tuple(
            message
            for status, each in told["responses"].items()
            for message in _messages(status, _shared(each, components))
        ),
    )


def _shared(answer: Mapping[str, Any], components: Mapping[str, Any]) -> Mapping[str, Any]:
    """An answer that every call has is told in a line."""
    if "$ref" not in answer:
        return answer
    told = components["responses"][answer["$ref"].rpartition("/")[2]]
    return {**told, "description": told["description"].partition("\n")[0]}


def _messages(name: str, told: Mapping[str, Any]) -> Iterator[Message]:
    said = told.get("description", "")
    content: Mapping[str, Any] = told.get("content", {})
    if told and not content:
        yield Message(name, "", (), said)
    for media, each in content.items():
        yield Message(name, media, tuple(_spell(each.get("schema", {}))), said)


def _fields(schema: Mapping[str, Any]) -> Iterator[Field]:
    required = schema.get("required", ())
    for name, told in schema.get("properties", {}).items():
        yield Field(name, tuple(_spell(told)), name in required, told.get("description", ""))


def _spell(schema: Any) -> Iterator[Piece]:
    """A schema in a few words: `list of Layer or null`."""
    if not isinstance(schema, Mapping):
        yield Piece("anything")
    elif "$ref" in schema:
        name = schema["$ref"].removeprefix(_PREFIX)
        yield Piece(name, name)
    elif either := schema.get("anyOf") or schema.get("oneOf"):
        yield from _joined(either)
    elif "const" in schema:
        yield Piece(_constant(schema["const"]))
    elif "enum" in schema:
        yield Piece(" or ".join(_constant(each) for each in schema["enum"]))
    else:
        yield from _plain(schema)


def _plain(schema: Mapping[str, Any]) -> Iterator[Piece]:
    kind = schema.get("type", "anything")
    if kind == "array":
        yield Piece("list of ")
        yield from _spell(schema.get("items", {}))
    elif kind == "object" and isinstance(schema.get("additionalProperties"), Mapping):
        yield Piece("map of ")
        yield from _spell(schema["additionalProperties"])
    else:
        yield Piece(f"{kind}{_bounds(schema)}")


def _joined(either: Sequence[Any]) -> Iterator[Piece]:
    for number, each in enumerate(either):
        if number:
            yield Piece(" or ")
        yield from _spell(each)


def _bounds(schema: Mapping[str, Any]) -> str:
    signs = {"minimum": "≥", "exclusiveMinimum": ">", "maximum": "≤", "exclusiveMaximum": "<"}
    told = [f"{sign} {schema[name]}" for name, sign in signs.items() if name in schema]
    return f" {', '.join(told)}" if told else ""


def _constant(value: object) -> str:
    return f'"{value}"' if isinstance(value, str) else str(value)

"""A patched spec as text, and how its text differs from the original's."""

import difflib
from collections.abc import Mapping, Sequence
from dataclasses import dataclass, replace
from typing import Any

import yaml
from typing_extensions import override

from gradgauge.errors import InvalidSpec, LimitExceeded
from gradgauge.graph.init import Law
from gradgauge.remedy.patch import Patch
from gradgauge.remedy.spec_words import Edit, edits
from gradgauge.schema.spec import ArchSpec, parse_spec

_WIDTH = 100


@dataclass(frozen=True, slots=True)
class SpecCopy:
    """A spec that says what a patch does: YAML, and a unified diff from the original's YAML.

    Both are written by the same hand, so that the diff shows what the patch changes alone; comments
    are lost. Its weights are drawn from the laws it names and are not the patched model's own.
    `unsaid` are the changes, in words, that no field says: then there is no text.
    """

    text: str | None
    diff: str | None
    unsaid: tuple[str, ...]


class _Apart(Exception):  # no error: what cannot be said is told
    """Two changes ask for different values of one field, or for a layer that is not there."""


def copied(spec: ArchSpec, patch: Patch, laws: Mapping[str, Law]) -> SpecCopy:
    """The spec with the patch in its own words; `laws` are those of the spec's graph."""
    wanted, unsaid = edits(patch, laws)
    if unsaid:
        return SpecCopy(None, None, tuple(unsaid))
    told = spec.model_dump(mode="json", exclude_unset=True)
    try:
        made = told | {"layers": _layers(told["layers"], wanted, "layers")}
        before, after = (_written(held) for held in (told, made))
        parse_spec(after)
    except (_Apart, InvalidSpec, LimitExceeded) as error:
        return SpecCopy(None, None, (str(error),))
    lines = difflib.unified_diff(
        before.splitlines(keepends=True), after.splitlines(keepends=True), "before", "after", n=2
    )
    return SpecCopy(after, "".join(lines), ())


def _layers(layers: Sequence[Any], wanted: Sequence[Edit], word: str) -> list[Any]:
    """The layers of a sequence, each with the edits whose path leads to it or into it."""
    made: list[list[Any]] = []
    for i, layer in enumerate(layers):
        mine = [_below(edit, 2) for edit in wanted if edit.path[:2] == (word, i)]
        made.append(_layer(layer, mine) if mine else [layer])
        for first, fields in (e.around for e in mine if not e.path and e.around is not None):
            inner = [each for group in made[first:] for each in group]
            made[first:] = [[] for _ in made[first:]]
            made[i] = [{"type": "residual", **fields, "layers": inner}]
    return [each for group in made for each in group]


def _below(edit: Edit, depth: int) -> Edit:
    return replace(edit, path=edit.path[depth:])


def _layer(layer: Mapping[str, Any], wanted: Sequence[Edit]) -> list[Any]:
    inside = [edit for edit in wanted if edit.path]
    own = [edit for edit in wanted if not edit.path]
    made = dict(layer)
    if inside and layer["type"] == "repeat":
        if own:
            raise _Apart("a repeat has no field of its own to change")
        return _repeat(made, inside)
    if inside and layer["type"] == "parallel":
        made["branches"] = [
            _layers(
                branch, [_below(e, 2) for e in inside if e.path[:2] == ("branches", i)], "layers"
            )
            for i, branch in enumerate(layer["branches"])
        ]
    elif inside:
        made["layers"] = _layers(layer["layers"], inside, "layers")
    _set(made, own)
    behind = [dict(edit.behind) for edit in own if edit.behind is not None]
    return [made, *behind]


def _repeat(layer: dict[str, Any], wanted: Sequence[Edit]) -> list[Any]:
    """Each time through with its own edits; what stays alike in a row is still one repeat."""
    bodies: list[tuple[list[Any], int]] = []
    for time in range(layer["times"]):
        mine = [_below(edit, 1) for edit in wanted if edit.path[0] == time]
        body = _layers(layer["layers"], mine, "layers")
        if bodies and bodies[-1][0] == body:
            bodies[-1] = (body, bodies[-1][1] + 1)
        else:
            bodies.append((body, 1))
    made: list[Any] = []
    for body, times in bodies:
        made += body if times == 1 else [layer | {"times": times, "layers": body}]
    return made


def _set(layer: dict[str, Any], wanted: Sequence[Edit]) -> None:
    """Fields and laws of one layer; of changes of one field the last one stands."""
    fields = {name: value for edit in wanted for name, value in edit.fields.items()}
    init = {part: law for edit in wanted for part, law in edit.init.items()}
    if "function" in fields:
        if layer["type"] != "activation":
            raise _Apart(f"the function of {layer['type']} is not an activation's")
        for name in set(layer) - {"type"}:
            del layer[name]
    if layer["type"] == "gated" and init.keys() & {"gate", "value"}:
        gate, value = init.pop("gate", None), init.pop("value", None)
        if gate != value:
            raise _Apart("gate and value of a gated layer are drawn from one law")
        init["weight"] = gate
    layer.update(fields)
    if init:
        layer["init"] = {**(layer.get("init") or {}), **init}


def _written(spec: Mapping[str, Any]) -> str:
    text: str = yaml.dump(
        _plain(spec), Dumper=_Dumper, sort_keys=False, default_flow_style=None, width=_WIDTH
    )
    return text


def _plain(value: Any) -> Any:
    """Laws that are one word as that word, empty mappings left out."""
    if isinstance(value, Mapping):
        if value.keys() == {"kind"}:
            return value["kind"]
        held = {key: _plain(inner) for key, inner in value.items()}
        return {key: inner for key, inner in held.items() if inner is not None and inner != {}}
    return [_plain(inner) for inner in value] if isinstance(value, list) else value


class _Dumper(yaml.SafeDumper):
    """A layer in one line unless layers stand in it; no aliases, which a spec may not have."""

    @override
    def ignore_aliases(self, data: Any) -> bool:
        return True

    @override
    def increase_indent(self, flow: bool = False, indentless: bool = False) -> None:
        super().increase_indent(flow, indentless=False)  # a list stands in from its key

    @override
    def represent_mapping(
        self, tag: str, mapping: Any, flow_style: bool | None = None
    ) -> yaml.MappingNode:
        nested = any(isinstance(v, list) and not _is_flat(v) for v in mapping.values())
        node: yaml.MappingNode = super().represent_mapping(tag, mapping, flow_style=not nested)
        return node


def _is_flat(values: Sequence[Any]) -> bool:
    return not any(isinstance(value, dict | list) for value in values)

"""A patch in a spec's own words: for each layer of the spec the fields that it changes."""

from collections.abc import Callable, Mapping
from dataclasses import dataclass, field, replace
from typing import Any, Final

from gradgauge.graph.init import Law
from gradgauge.remedy.patch import (
    Fill,
    Insert,
    Patch,
    Redraw,
    Rewire,
    Scale,
    Shift,
    Store,
    SwapCell,
    SwapOp,
    SwapRecurrent,
    words_of,
)
from gradgauge.schema.activations import ACTIVATIONS

Path = tuple[int | str, ...]
MADE = ".gradgauge."  # in every name that a patch makes
_FUNCTIONS = {activation.op: name for name, activation in ACTIVATIONS.items()}
_NORMS = {
    "LayerNormalization": "layer_norm",
    "BatchNormalization": "batch_norm",
    "RMSNormalization": "rms_norm",
}
_ENDS: Final = ("query", "key", "value", "output")  # projections with laws of their own
_DIGITS = 4  # of a gain
CLOSE = 1e-3  # share by which a gain may miss the usual one


@dataclass(frozen=True, slots=True)
class Edit:
    """Fields that one layer of a spec gets, laws by the part they are of, a layer that follows it.

    `path` is where: of `layers.2.0.layers.1` the second layer inside the first time through the
    third one, a repeat. With `around` the layers from that place of the same list on and this one
    become a residual of those fields.
    """

    path: Path
    fields: Mapping[str, Any] = field(default_factory=dict)
    init: Mapping[str, Any] = field(default_factory=dict)
    behind: Mapping[str, Any] | None = None
    around: tuple[int, Mapping[str, Any]] | None = None


@dataclass(frozen=True, slots=True)
class _Known:
    """By name the laws weights are drawn from, as the patch leaves them, and what it stores."""

    laws: dict[str, Law]
    stored: Mapping[str, Law]


def edits(patch: Patch, laws: Mapping[str, Law]) -> tuple[list[Edit], list[str]]:
    """The edits that say the patch, and in words the changes that no field of a spec says.

    `laws` are those the spec's weights are drawn from, by initializer.
    """
    known = _Known(dict(laws), {c.initializer: c.law for c in patch if isinstance(c, Store)})
    found: list[Edit] = []
    unsaid: list[str] = []
    for change in patch:
        said = _SAYS[type(change)](change, known)
        if said is None:
            unsaid.append(words_of(change))
        else:
            found += said
    return found, unsaid


def path_of(name: str) -> tuple[Path, tuple[str, ...]]:
    """Of `layers.0.7.layers.1.query.weight` where the layer stands, and the rest of the name.

    A name of a node or a value has slashes: `/layers.0/7/layers.1/Relu`.
    """
    parts = name.strip("/").replace("/", ".").split(".")
    path: list[int | str] = []
    at = 0
    while at < len(parts):
        word = parts[at]
        if word in {"layers", "branches"} and at + 1 < len(parts) and parts[at + 1].isdigit():
            path += [word, int(parts[at + 1])]
            at += 2
        elif word.isdigit():
            path.append(int(word))
            at += 1
        else:
            break
    return tuple(path), tuple(parts[at:])


def init_of(law: Law) -> Any:
    """The law as a spec writes it: a word, or a mapping with what the word leaves open."""
    if law.shifts:
        return None
    told: dict[str, Any] = {"kind": law.kind}
    if law.kind == "constant":
        return "zeros" if law.value == 0.0 else told | {"value": _short(law.value)}
    if law.kind == "normal":
        told |= {"std": _short(law.scale * law.gain)}
        return told if law.value == 0.0 else told | {"mean": _short(law.value)}
    if law.kind in {"uniform", "truncated_normal"}:
        told |= {"low": _short(law.low), "high": _short(law.high)}
        if law.kind == "truncated_normal":
            told |= {"std": _short(law.scale), "mean": _short(law.value)}
    if law.mode != "fan_in":
        told["mode"] = law.mode
    if _short(law.gain) != 1.0:
        told["gain"] = _short(law.gain)
    return law.kind if told.keys() == {"kind"} else told


def _short(number: float) -> float:
    return float(f"{number:.{_DIGITS}g}")


def _drawn(name: str, law: Law) -> list[Edit] | None:
    """A law of the part that the initializer is: of a projection's weight the projection's own."""
    path, parts = path_of(name)
    said = init_of(law)
    if not path or not parts or said is None:
        return None
    if len(parts) == 2 and parts[1] == "weight" and parts[0] in (*_ENDS, "gate"):
        return [Edit(path, init={parts[0]: said})]
    if parts[-1] in {"weight", "recurrent", "bias"} and len(parts) <= 2:
        return [Edit(path, init={parts[-1]: said})]
    return None


def _redraw(change: Redraw, known: _Known) -> list[Edit] | None:
    known.laws[change.initializer] = change.law
    return _drawn(change.initializer, change.law)


def _scale(change: Scale, known: _Known) -> list[Edit] | None:
    law = known.laws.get(change.initializer)
    if law is None or change.factor <= 0.0:
        return None
    if law.kind == "zeros" and not law.shifts:
        return []
    if law.kind == "ones":
        law = replace(law, kind="constant", value=law.gain)
    value, gain = law.value * change.factor, law.gain * change.factor
    scaled = replace(law, value=value) if law.kind == "constant" else replace(law, gain=gain)
    known.laws[change.initializer] = scaled
    return _drawn(change.initializer, scaled)


def _fill(change: Fill, known: _Known) -> list[Edit] | None:
    """An LSTM's forget gate at one number, or zeros where zeros are."""
    law, amounts = known.laws.get(change.initializer), set(change.amounts)
    width = len(change.amounts)
    if law is None or law.kind != "zeros" or len(amounts) != 1:
        return None
    if amounts == {0.0}:
        return [] if not law.shifts else None
    path, parts = path_of(change.initializer)
    lstm = law.unit is not None and law.unit[0] == 4 * width
    if lstm and parts == ("bias",) and change.start == 2 * width:
        return [Edit(path, {"forget_bias": amounts.pop()})]
    return None


def _swap(change: SwapOp, _known: _Known) -> list[Edit] | None:
    path, parts = path_of(change.node)
    function = _FUNCTIONS.get(change.op_type)
    if not path or function is None or len(parts) != 1:
        return None
    told = {name: _short(value) for name, value in change.attributes}
    return [Edit(path, {"function": function, **told})]


def _swap_recurrent(change: SwapRecurrent, _known: _Known) -> list[Edit] | None:
    path, _ = path_of(change.node)
    return [Edit(path, {"activation": change.activation.lower()})] if path else None


def _swap_cell(change: SwapCell, _known: _Known) -> list[Edit] | None:
    path, _ = path_of(change.node)
    return [Edit(path, {"type": change.op_type.lower()})] if path else None


def _store(change: Store, _known: _Known) -> list[Edit] | None:
    """What it is stored for says it, but for a cell's weights."""
    path, parts = path_of(change.initializer.partition(MADE)[0])
    part = {"W": "weight", "R": "recurrent", "B": "bias"}.get(
        change.initializer.rpartition(".")[2], ""
    )
    if not part:
        return []
    said = init_of(change.law)
    return [Edit(path, init={part: said})] if path and parts and said is not None else None


def _insert(change: Insert, known: _Known) -> list[Edit] | None:
    start, _, role = change.output.partition(MADE)
    path, parts = path_of(start)
    if not path or not parts:
        return None
    for says in (_norm, _gate, _attention, _stream, _skip):
        said = says(change, path, role, known)
        if said is not None:
            return said
    return None


def _norm(change: Insert, path: Path, role: str, _known: _Known) -> list[Edit] | None:
    """A norm behind a layer; the nodes that one is written out in are said by their last."""
    kind = _NORMS.get(change.op_type)
    if role == "norm" and kind is not None:
        return [Edit(path, behind={"type": kind})]
    if role == "norm" and change.op_type == "Mul" and change.inputs[0].endswith(".unit"):
        return [Edit(path, behind={"type": "rms_norm"})]
    return [] if role.startswith("norm.") else None


def _gate(change: Insert, path: Path, role: str, known: _Known) -> list[Edit] | None:
    """A learnt factor on what a residual's branch ends in: of the residual that holds the layer."""
    law = known.stored.get(f"{change.output}.alpha")
    inside = len(path) > 3 and isinstance(path[-4], str)
    if role != "scaled" or law is None or not inside:
        return None
    return [Edit(path[:-2], {"scale": law.value, "learned_scale": True})]


def _attention(change: Insert, path: Path, role: str, known: _Known) -> list[Edit] | None:
    """Norms of queries and keys whose gains start at 1, or another scale of the logits."""
    if role in {"query.unit", "key.unit"}:
        return []
    if role in {"query", "key"}:
        gain = known.stored[f"{change.output}.gain"]
        alike = abs(gain.value**2 / max(gain.shape) - 1.0) < CLOSE
        return [Edit(path, {"qk_norm": True})] if alike else None
    factor = known.stored.get(f"{change.output}.factor")
    if role != "scaled" or factor is None:
        return None
    usual = known.laws.get(f"{'.'.join(map(str, path))}.scale")
    return [Edit(path, {"scale": _short(factor.value * (usual.value if usual else 1.0))})]


def _stream(change: Insert, path: Path, role: str, known: _Known) -> list[Edit] | None:
    """DeepNorm's factor on what a residual passes by."""
    law = known.stored.get(f"{change.output}.alpha")
    if role != "stream" or law is None:
        return None
    return [Edit(path, {"shortcut_scale": _short(law.value)})]


def _skip(change: Insert, path: Path, role: str, known: _Known) -> list[Edit] | None:
    """A residual path around the layers behind what it adds, up to this one."""
    law = known.stored.get(f"{change.output}.factor")
    if role != "sum" or law is None:
        return [] if role == "sum.scaled" else None
    start, _ = path_of(change.inputs[0].partition(MADE)[0])
    last = start[-1] if start[:-1] == path[:-1] else -1
    if not isinstance(last, int):
        return None
    return [Edit(path, around=(last + 1, {"scale": _short(law.value), "learned_scale": True}))]


_SAYS: dict[type, Callable[..., list[Edit] | None]] = {
    Redraw: _redraw,
    Scale: _scale,
    Fill: _fill,
    Store: _store,
    SwapOp: _swap,
    SwapRecurrent: _swap_recurrent,
    SwapCell: _swap_cell,
    Insert: _insert,
    Shift: lambda _change, _known: None,
    Rewire: lambda change, _known: [] if MADE in change.value else None,
}

"""A Keras model's `to_json()` as a spec: Sequential and Functional, Keras 2 and 3.

Keras counts channels last, specs first. An image's axes are turned when its law is written, other
values where a layer needs them turned; what is flattened stays in the order it is in, which no law
of a weight can tell.
"""

from dataclasses import dataclass, field
from typing import Any

from gradgauge.schema import keras_layers
from gradgauge.schema.keras_laws import activation
from gradgauge.schema.keras_steps import Json, Reference, Step, read, refused
from gradgauge.schema.keras_values import Now, settled, size, turned

_LONGEST = 100  # characters of a name
_STEPS = 128  # of an axis whose size the model leaves open
_MERGES = {
    "Add": "add",
    "Subtract": "subtract",
    "Multiply": "multiply",
    "Average": "average",
    "Maximum": "maximum",
    "Minimum": "minimum",
    "Concatenate": "concat",
}


def translate(document: Json) -> Json:
    """The spec of the model.

    Raises:
        InvalidSpec: it has a layer, a setting or a shape that a spec does not have; `where` is the
            layer's name.
    """
    steps = read(document)
    if not steps or steps[0].kind != "InputLayer":
        raise refused("the model does not say the shape of its input", None, "build it first")
    first, *rest = steps
    if not rest:
        raise refused("the model has no layers", None)
    given, now = _input(first, rest)
    made = _Made(now=now, last=first.name, ways={first.name: now})
    recalled = _recalled(first.name, rest)
    _remember(made, first.name, recalled)
    for step in rest:
        _translate_step(made, step)
        _remember(made, step.name, recalled)
    config = document.get("config")
    name = config.get("name") if isinstance(config, dict) else None
    return {
        "gradgauge": 1,
        "name": str(name)[:200] if name else "keras",
        "input": given,
        "layers": made.layers,
    }


@dataclass(slots=True)
class _Made:
    """The layers so far, the value they end in, every step's value, and names it is kept under."""

    now: Now
    last: str
    ways: dict[str, Now]
    keys: dict[str, str] = field(default_factory=dict)
    layers: list[Json] = field(default_factory=list)


def _input(step: Step, rest: list[Step]) -> tuple[Json, Now]:
    shape = step.config.get("batch_shape") or step.config.get("batch_input_shape")
    if not isinstance(shape, list) or len(shape) < 2:
        raise refused("its input has no shape", step.name, "build the model first")
    sizes = [_STEPS if size is None and i == 0 else size for i, size in enumerate(shape[1:])]
    if any(type(size) is not int for size in sizes) or (len(sizes) > 2 and shape[1] is None):
        raise refused("an image's size is left open", step.name, "give the input a shape")
    tables = [s for s in rest if s.kind == "Embedding" and step.name in s.inputs]
    if tables:
        high = min(size(table, "input_dim") for table in tables)
        law = {"distribution": "integers", "low": 0, "high": high}
        return {"shape": sizes} | law, Now(len(sizes))
    if len(sizes) > 2:
        return {"shape": [sizes[-1], *sizes[:-1]]}, Now(len(sizes), first=True)
    return {"shape": sizes}, Now(len(sizes))


def _recalled(first: str, steps: list[Step]) -> set[str]:
    """Steps whose value is needed later than by the next step."""
    before, found = first, set()
    for step in steps:
        merged = len(step.inputs) > 1
        if not step.inputs:
            raise refused("it has no input", step.name)
        places = step.inputs if merged else step.inputs[:1]
        found |= {name for name in places if name != before}
        found |= {v.name for v in step.named.values() if isinstance(v, Reference)}
        if step.kind == "MultiHeadAttention":
            found |= set(step.inputs[1:])
        before = step.name
    return found


def _remember(made: _Made, name: str, recalled: set[str]) -> None:
    made.last = name
    made.ways[name] = made.now
    if name in recalled:
        settled(made.now, name)
        made.keys[name] = name if len(name) <= _LONGEST else f"layer {len(made.ways)}"
        made.layers.append({"type": "remember", "name": made.keys[name]})


def _recall(made: _Made, name: str) -> Json:
    return {"type": "recall", "name": made.keys[name]}


def _translate_step(made: _Made, step: Step) -> None:
    if step.kind in _MERGES:
        _merge(made, step)
        return
    if step.inputs[0] != made.last:
        made.layers.append(_recall(made, step.inputs[0]))
        made.now = made.ways[step.inputs[0]]
    if step.kind == "MultiHeadAttention":
        _attention(made, step)
        return
    layers, made.now = keras_layers.translate(step, made.now)
    made.layers += layers
    phi = activation(step.config.get("activation"), step.name)
    if phi is not None and step.kind not in keras_layers.OWN_ACTIVATION:
        if phi["function"] in ("softmax", "log_softmax"):
            phi["axis"] = made.now.channel
        made.layers.append(phi)


def _merge(made: _Made, step: Step) -> None:
    if len(step.inputs) < 2:
        raise refused(f"a {step.kind} of one tensor and a number", step.name)
    ends = [made.ways[name] for name in step.inputs]
    for end in ends:
        settled(end, step.name)
    goal = ends[0]
    if any(end.rank != goal.rank for end in ends):
        raise refused(f"a {step.kind} of tensors that have not as many axes", step.name)
    branches = []
    for name, end in zip(step.inputs, ends, strict=True):
        branch: list[Json] = [] if name == made.last else [_recall(made, name)]
        branches.append([*branch, *turned(end, first=goal.first)[0]])
    layer: Json = {"type": "parallel", "merge": _MERGES[step.kind], "branches": branches}
    if step.kind == "Concatenate":
        axis = step.config.get("axis", -1)
        if axis not in (-1, goal.rank):
            raise refused("a Concatenate along another axis than the last", step.name)
        layer["axis"] = goal.channel
    made.layers.append(layer)
    made.now = goal


def _attention(made: _Made, step: Step) -> None:
    """Query, value and key by place or by keyword; value and key are one in a spec."""
    roles = dict(zip(("query", "value", "key"), step.inputs, strict=False))
    roles |= {k: v.name for k, v in step.named.items() if isinstance(v, Reference)}
    if set(roles) - {"query", "value", "key"}:
        raise refused("attention with a mask of its own", step.name)
    source = roles.get("value", roles["query"])
    if roles.get("key", source) != source:
        raise refused("attention whose keys and values come from two tensors", step.name)
    if made.now.rank != 2 or made.now.first or made.ways[source].first:
        raise refused("attention over other axes than the steps", step.name)
    layer = keras_layers.attention(step)
    if source != roles["query"]:
        layer["memory"] = made.keys[source]
    if step.named.get("use_causal_mask") is True:
        layer["causal"] = True
    made.layers.append(layer)


def applies(document: dict[str, Any]) -> bool:
    """Whether the document is a Keras model's."""
    return isinstance(document.get("class_name"), str) and "config" in document

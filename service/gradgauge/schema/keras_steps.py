"""A Keras `to_json()` document as steps in order: which layer, with what settings, on what."""

from collections.abc import Iterator
from dataclasses import dataclass, field, replace
from typing import Any

from gradgauge.errors import InvalidSpec

Json = dict[str, Any]
MODELS = frozenset({"Sequential", "Functional", "Model"})
_MOST_NESTED = 16


@dataclass(frozen=True, slots=True)
class Step:
    """One layer applied once: `inputs` are names of steps, `named` those given by keyword."""

    name: str
    kind: str
    config: Json
    inputs: tuple[str, ...]
    named: Json = field(default_factory=dict)


def read(document: Json, depth: int = 0) -> list[Step]:
    """The steps that lead to the model's output, each after its inputs; models inside unfolded.

    Raises:
        InvalidSpec: not such a document, or layers with several inputs, outputs or uses.
    """
    kind, config = document.get("class_name"), document.get("config")
    if depth > _MOST_NESTED:
        raise refused("models are nested too deeply", None)
    if kind == "Sequential":
        layers = config if isinstance(config, list) else mapping(config).get("layers")
        return _unfolded(_chain(_listed(layers)), depth)
    if kind not in MODELS:
        raise refused(f"{str(kind)[:60]!r} is no Keras model", None)
    config = mapping(config)
    steps = {step.name: step for step in map(_step, _listed(config.get("layers")))}
    (output,) = _ends(config.get("output_layers"), "output")
    _ends(config.get("input_layers"), "input")
    return _unfolded(_ordered(steps, output), depth)


def refused(message: str, name: str | None, hint: str | None = None) -> InvalidSpec:
    """The error of what has no translation, at the layer named `name`."""
    way = hint or "export the model to ONNX instead"
    return InvalidSpec("not_translated", f"Keras: {message}", where=name, hint=way)


def mapping(value: Any) -> Json:
    """The value, which has to be a mapping."""
    if not isinstance(value, dict):
        raise refused(f"a mapping is needed, not {str(value)[:60]}", None)
    return value


def _listed(value: Any) -> list[Json]:
    if not isinstance(value, list) or not value:
        raise refused("`config` has no list of layers", None)
    return [mapping(one) for one in value]


def _chain(layers: list[Json]) -> list[Step]:
    """A Sequential's layers; where it names no input, its first layer says the shape."""
    steps: list[Step] = []
    for i, layer in enumerate(layers):
        config = mapping(layer.get("config"))
        name = str(config.get("name", layer.get("name", f"layers_{i}")))
        kind = str(layer.get("class_name"))
        if not steps and kind != "InputLayer":
            given = {"batch_shape": config.get("batch_input_shape", config.get("batch_shape"))}
            steps.append(Step("input", "InputLayer", given, ()))
        before = (steps[-1].name,) if steps else ()
        steps.append(Step(name, kind, _config(layer, kind), before))
    return steps


def _config(layer: Json, kind: str) -> Json:
    """A layer's settings; of a model inside, the document itself."""
    return layer if kind in MODELS else mapping(layer.get("config"))


def _step(layer: Json) -> Step:
    kind = str(layer.get("class_name"))
    config = mapping(layer.get("config"))
    name = str(layer.get("name", config.get("name")))
    nodes = layer.get("inbound_nodes") or []
    if not isinstance(nodes, list):
        raise refused("`inbound_nodes` is no list", name)
    if len(nodes) > 1:
        raise refused(f"{name!r} is used {len(nodes)} times", name, "a spec shares no weights")
    inputs, named = _inbound(nodes[0]) if nodes else ((), {})
    return Step(name, kind, _config(layer, kind), inputs, named)


def _inbound(node: Any) -> tuple[tuple[str, ...], Json]:
    """Keras 3 has `{args, kwargs}` of tensors; Keras 2 a list of [name, node, tensor, kwargs]."""
    if isinstance(node, dict):
        named = mapping(node.get("kwargs") or {})
        return tuple(_tensors(node.get("args"))), {k: _resolved(v) for k, v in named.items()}
    if not isinstance(node, list) or not node:
        raise refused("an inbound node is no list", None)
    entries = [node] if isinstance(node[0], str) else node
    if not all(isinstance(e, list) and e and isinstance(e[0], str) for e in entries):
        raise refused("an inbound node is not of a known form", None)
    named = next((e[3] for e in entries if len(e) > 3 and isinstance(e[3], dict)), {})
    return tuple(e[0] for e in entries), {k: _resolved(v) for k, v in named.items()}


@dataclass(frozen=True, slots=True)
class Reference:
    """A keyword argument that is another layer's output."""

    name: str


def _resolved(value: Any) -> Any:
    if isinstance(value, dict) and value.get("class_name") == "__keras_tensor__":
        return Reference(next(_tensors(value)))
    if isinstance(value, list) and len(value) >= 3 and isinstance(value[0], str):
        return Reference(value[0])
    return value


def _tensors(value: Any) -> Iterator[str]:
    """Names of the layers whose outputs are in the arguments, in order."""
    if isinstance(value, dict):
        if value.get("class_name") == "__keras_tensor__":
            history = mapping(value.get("config")).get("keras_history")
            if not isinstance(history, list) or not history:
                raise refused("a tensor has no history", None)
            yield str(history[0])
        return
    if isinstance(value, list):
        for one in value:
            yield from _tensors(one)


def _ends(value: Any, what: str) -> list[str]:
    """Layer names in `input_layers` or `output_layers`, of which there has to be one."""
    entries = value if isinstance(value, list) else []
    single = len(entries) == 3 and isinstance(entries[0], str) and not isinstance(entries[1], list)
    names = [str(e[0]) for e in ([entries] if single else entries) if isinstance(e, list) and e]
    if len(names) != 1:
        raise refused(f"the model has {len(names)} {what}s", None, f"a spec has one {what}")
    return names


def _ordered(steps: dict[str, Step], output: str) -> list[Step]:
    """Steps the output needs, each after its inputs, the first input's way first."""
    done: dict[str, Step] = {}
    open_now: set[str] = set()
    todo = [output]
    while todo:
        name = todo[-1]
        if name not in steps:
            raise refused(f"no layer is named {name[:60]!r}", None)
        wanted = [n for n in needs(steps[name]) if n not in done]
        if name in done or not wanted:
            todo.pop()
            open_now.discard(name)
            done.setdefault(name, steps[name])
        elif name in open_now and any(n in open_now for n in wanted):
            raise refused("its layers go round in a circle", name)
        else:
            open_now.add(name)
            todo.extend(reversed(wanted))
    return list(done.values())


def needs(step: Step) -> tuple[str, ...]:
    """Every step this one reads, by place or by keyword."""
    return (*step.inputs, *(v.name for v in step.named.values() if isinstance(v, Reference)))


def _unfolded(steps: list[Step], depth: int) -> list[Step]:
    """Models inside replaced by their own steps, whose names come after the model's."""
    made: list[Step] = []
    alias: dict[str, str] = {}
    for step in steps:
        inputs = tuple(alias.get(n, n) for n in step.inputs)
        named = {
            k: Reference(alias.get(v.name, v.name)) if isinstance(v, Reference) else v
            for k, v in step.named.items()
        }
        if step.kind not in MODELS:
            made.append(replace(step, inputs=inputs, named=named))
            continue
        inner = [replace(s, name=f"{step.name}/{s.name}") for s in read(step.config, depth + 1)]
        own = {s.name.removeprefix(f"{step.name}/"): s.name for s in inner}
        for s in inner:
            if s.kind == "InputLayer":
                alias[s.name] = inputs[0] if inputs else ""
                continue
            there = tuple(alias.get(own.get(n, n), own.get(n, n)) for n in s.inputs)
            kept = {
                k: Reference(alias.get(own.get(v.name, v.name), own.get(v.name, v.name)))
                if isinstance(v, Reference)
                else v
                for k, v in s.named.items()
            }
            made.append(replace(s, inputs=there, named=kept))
        alias[step.name] = made[-1].name
    return made

"""Compile an ONNX graph into a differentiable torch function."""

import inspect
from collections.abc import Iterable, Mapping
from functools import cache
from pathlib import Path
from typing import Any

import onnx
import onnx_ir
import torch
from torch import Tensor

from gradgauge.errors import InvalidModel, UnsupportedOps
from gradgauge.graph.private import Mapped
from gradgauge.ops.straight import moving
from gradgauge.ops.table import Row, Run, lookup
from gradgauge.sampled.budget import Budget
from gradgauge.sampled.collection import held_off
from gradgauge.sampled.executable import Executable, execute
from gradgauge.sampled.inlining import inlined
from gradgauge.sampled.program import Body, Step, with_dead
from gradgauge.sampled.tensors import decode, element_type

__all__ = ["Budget", "Executable", "compile_graph"]

Missing = tuple[str, str, int, str]
# attributes that are element types
_ELEMENT_TYPES = frozenset({"to", "dtype", "output_datatype", "output_dtype", "softmax_precision"})


@held_off()
def compile_graph(
    model: onnx.ModelProto | onnx_ir.Model | Path,
    *,
    training: bool = False,
    dtype: torch.dtype | None = None,
    device: torch.device | str | None = None,
    budget: Budget | None = None,
) -> Executable:
    """Resolve every node against the op table and decode every stored tensor once.

    `dtype` makes the whole run float: initializers, constants, inputs and every cast to a float
    type take it. `training` makes BatchNormalization normalise by the batch's own statistics;
    Dropout stays what the graph says.

    Raises:
        UnsupportedOps: naming every op, attribute or element type without an implementation.
        InvalidModel: a node reads a value that nothing before it makes (`undefined_value`).
        AnalysisFailed: a Constant node cannot be evaluated.
    """
    graph = inlined(model)
    place = torch.device(device or "cpu")
    compiler = _Compiler(graph, training=training, dtype=dtype, device=place)
    steps, inputs, outputs = compiler.whole()
    _refuse_undefined(steps, {*inputs, *compiler.leaves, *compiler.constants}, outputs)
    return Executable(
        steps,
        inputs=inputs,
        outputs=outputs,
        initializers=compiler.leaves,
        constants=compiler.constants,
        mapped=frozenset(compiler.mapped),
        dtype=dtype,
        device=place,
        budget=budget,
    )


class _Compiler:
    """One pass over the nodes, collecting what is missing instead of stopping at the first.

    What subgraphs store lies beside what the graph stores, under a name of its own where two
    subgraphs use the same; `names` maps a subgraph's names to those.
    """

    def __init__(
        self,
        model: onnx_ir.Model,
        *,
        training: bool,
        dtype: torch.dtype | None,
        device: torch.device,
    ) -> None:
        self._graph = model.graph
        self._opsets = model.opset_imports
        self._training = training
        self._dtype = dtype
        self._device = device
        self._missing: list[Missing] = []
        self._rounds = any("Quantize" in n.op_type or "QLinear" in n.op_type for n in model.graph)
        self.leaves: dict[str, Tensor] = {}
        self.mapped: set[str] = set()
        self.constants: dict[str, Any] = {}

    def whole(self) -> tuple[list[Step], list[str], list[str]]:
        """The graph's steps, and its inputs (without defaults) and outputs by name."""
        held = self._graph.initializers
        inputs = [v.name or "" for v in self._graph.inputs if v.name not in held]
        names: dict[str, str] = {}
        steps = self._steps(self._graph, names, "")
        if self._missing:
            raise UnsupportedOps(self._missing)
        outputs = [v.name or "" for v in self._graph.outputs]
        return steps, inputs, outputs

    def _steps(self, graph: onnx_ir.Graph, names: dict[str, str], owner: str) -> list[Step]:
        for name, value in graph.initializers.items():
            names[name] = self._store(name, value, owner)
        found = (self._step(node, names, owner) for node in graph)
        return [step for step in found if step is not None]

    def _store(self, name: str, value: onnx_ir.Value, owner: str) -> str:
        """A float initializer becomes a leaf, any other a constant."""
        if value.const_value is None:
            raise InvalidModel(
                "undefined_value",
                f"initializer {name!r} holds no data",
                where=f"initializer {name}",
                hint="keep the external data file beside the model",
            )
        key = self._key(name, owner)
        stored = decode(value.const_value)
        tensor = self._placed(stored)
        if isinstance(value.const_value, Mapped) and tensor is stored:
            self.mapped.add(key)
        if isinstance(tensor, Tensor) and tensor.is_floating_point():
            self.leaves[key] = tensor.detach().requires_grad_()
        else:
            self.constants[key] = tensor
        return key

    def _key(self, name: str, owner: str) -> str:
        return f"{owner}/{name}" if owner else name

    def _placed(self, x: Any) -> Any:
        if not isinstance(x, Tensor):
            return x
        return x.to(self._device, self._dtype if x.is_floating_point() else None)

    def _step(self, node: onnx_ir.Node, names: dict[str, str], owner: str) -> Step | None:
        opset = node.version or self._opset(node.domain)
        name = node.name or (node.outputs[0].name if node.outputs else "") or ""
        row = lookup(node.domain, node.op_type, opset)
        if row is None:
            self._missing.append((node.op_type, node.domain, opset, name))
            return None
        attributes, faults = self._attributes(node, row)
        if faults:
            self._missing += [(f"{row.name}[{f}]", node.domain, opset, name) for f in faults]
            return None
        bodies = self._bodies(node, names, owner)
        step = Step(
            name,
            row.name,
            moving(row.run) if self._rounds and _moves(row) else row.run,
            attributes,
            tuple(None if v is None else names.get(v.name or "", v.name) for v in node.inputs),
            tuple(v.name or "" for v in node.outputs),
            bodies=bodies,
            captures=tuple(sorted({c for body in bodies.values() for c in body.captures})),
        )
        if row.name != "Constant":
            return step
        key = self._key(step.outputs[0], owner)
        names[step.outputs[0]] = key
        self.constants[key] = self._placed(execute(step, [])[0])
        return None

    def _opset(self, domain: str) -> int:
        """Of the domain as the model writes it; the default one has two spellings."""
        return self._opsets.get(domain, self._opsets.get("" if domain else "ai.onnx", 1))

    def _bodies(self, node: onnx_ir.Node, names: dict[str, str], owner: str) -> dict[str, Body]:
        found = {}
        for name, attribute in node.attributes.items():
            if attribute.type == onnx_ir.AttributeType.GRAPH:
                key = node.name or (node.outputs[0].name if node.outputs else "") or ""
                place = self._key(f"{key}.{name}", owner)
                found[name] = self._body(attribute.as_graph(), dict(names), place)
        return found

    def _body(self, graph: onnx_ir.Graph, names: dict[str, str], owner: str) -> Body:
        inputs = tuple(v.name or "" for v in graph.inputs)
        for name in inputs:
            names.pop(name, None)
        steps = self._steps(graph, names, owner)
        outputs = tuple(names.get(v.name or "", v.name or "") for v in graph.outputs)
        made = {*inputs, *(name for step in steps for name in step.outputs)}
        taken = {n for step in steps for n in (*step.inputs, *step.captures) if n is not None}
        captures = tuple(sorted((taken | set(outputs)) - made))
        return Body(inputs, outputs, tuple(with_dead(steps, outputs)), captures)

    def _attributes(self, node: onnx_ir.Node, row: Row) -> tuple[dict[str, Any], list[str]]:
        """Keyword arguments for `run`, and the attributes it cannot take."""
        accepted = _accepted(row.run)
        attributes: dict[str, Any] = {}
        faults = []
        for name, attribute in node.attributes.items():
            if name not in accepted:
                faults.append(name)
            if attribute.type == onnx_ir.AttributeType.GRAPH:
                continue
            value, known = self._attribute(name, attribute)
            if not known and name in accepted:
                faults.append(name)
            attributes[name] = value
        if "n_outputs" in accepted:
            attributes["n_outputs"] = len(node.outputs)
        if row.name == "BatchNormalization" and self._training:
            attributes["training_mode"] = 1
        return attributes, faults

    def _attribute(self, name: str, attribute: onnx_ir.Attr) -> tuple[Any, bool]:
        """The value as an op takes it, and whether it can."""
        value = attribute.value
        if attribute.type == onnx_ir.AttributeType.TENSOR:
            # not by as_tensor(), whose check of a protocol costs more than the tensor
            if element_type(value.dtype) is None:
                return None, False
            return self._placed(decode(value)), True
        if name in _ELEMENT_TYPES:
            if value == 0:
                return None, True  # unset
            element = element_type(_data_type(value))
            if isinstance(element, torch.dtype) and element.is_floating_point:
                return self._dtype or element, True
            return element, element is not None
        return value, attribute.type in _PLAIN


def _data_type(value: Any) -> onnx_ir.DataType:
    try:
        return onnx_ir.DataType(value)
    except ValueError:
        return onnx_ir.DataType.UNDEFINED


_PLAIN = frozenset(
    {
        onnx_ir.AttributeType.FLOAT,
        onnx_ir.AttributeType.FLOATS,
        onnx_ir.AttributeType.INT,
        onnx_ir.AttributeType.INTS,
        onnx_ir.AttributeType.STRING,
        onnx_ir.AttributeType.STRINGS,
        onnx_ir.AttributeType.TYPE_PROTO,
    }
)


def _moves(row: Row) -> bool:
    return row.kind == "movement" or row.name == "MaxPool"


@cache
def _accepted(run: Run) -> frozenset[str]:
    """The keyword-only names of `run`; a builtin of torch's takes no attribute."""
    try:
        parameters: Mapping[str, inspect.Parameter] = inspect.signature(run).parameters
    except ValueError:
        return frozenset()
    return frozenset(n for n, p in parameters.items() if p.kind is p.KEYWORD_ONLY)


def _refuse_undefined(
    steps: Iterable[Step], held: set[str], outputs: Iterable[str], where: str = "the graph"
) -> None:
    made = set(held)
    for step in steps:
        for name in step.inputs:
            if name is not None and name not in made:
                raise _undefined(name, f"node {step.node}")
        for body in step.bodies.values():
            inner = f"the subgraph of {step.node}"
            _refuse_undefined(body.steps, {*made, *body.inputs}, body.outputs, inner)
        made.update(step.outputs)
    for name in outputs:
        if name not in made:
            raise _undefined(name, f"{where}'s outputs")


def _undefined(name: str, where: str) -> InvalidModel:
    return InvalidModel(
        "undefined_value",
        f"value {name!r} is read before anything makes it",
        where=where,
        hint="sort the nodes topologically, or export the model again",
    )

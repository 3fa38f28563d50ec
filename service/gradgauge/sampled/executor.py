"""Compile an ONNX graph into a differentiable torch function."""

import inspect
from collections.abc import Mapping
from functools import cache
from pathlib import Path
from typing import Any

import onnx
import onnx_ir
import torch
from onnx_ir.passes.common import InlinePass
from torch import Tensor

from gradgauge.errors import InvalidModel, UnsupportedOps
from gradgauge.ops.table import Row, Run, lookup
from gradgauge.sampled.executable import Budget, Executable, Step, execute
from gradgauge.sampled.tensors import decode, torch_dtype

__all__ = ["Budget", "Executable", "compile_graph"]

Missing = tuple[str, str, int, str]
_ELEMENT_TYPES = frozenset({"to", "dtype", "output_dtype"})  # attributes that are element types


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
    graph = _inlined(model)
    place = torch.device(device or "cpu")
    compiler = _Compiler(graph, training=training, dtype=dtype, device=place)
    steps = compiler.steps()
    initializers, constants = compiler.stored()
    _refuse_undefined(steps, compiler.inputs, {*initializers, *constants}, compiler.outputs)
    return Executable(
        steps,
        inputs=compiler.inputs,
        outputs=compiler.outputs,
        initializers=initializers,
        constants=constants,
        dtype=dtype,
        device=place,
        budget=budget,
    )


def _inlined(model: onnx.ModelProto | onnx_ir.Model | Path) -> onnx_ir.Model:
    """As onnx_ir, model-local functions expanded, the caller's model untouched."""
    if isinstance(model, Path):
        model = onnx_ir.load(model)
    elif isinstance(model, onnx.ModelProto):
        model = onnx_ir.from_proto(model)
    if not model.functions:
        return model
    copy = model.clone()
    InlinePass()(copy)
    return copy


class _Compiler:
    """One pass over the nodes, collecting what is missing instead of stopping at the first."""

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
        self._constants: dict[str, Tensor] = {}
        held = self._graph.initializers
        self.inputs = [v.name or "" for v in self._graph.inputs if v.name not in held]
        self.outputs = [v.name or "" for v in self._graph.outputs]

    def steps(self) -> list[Step]:
        found = [step for node in self._graph if (step := self._step(node)) is not None]
        if self._missing:
            raise UnsupportedOps(self._missing)
        return found

    def stored(self) -> tuple[dict[str, Tensor], dict[str, Tensor]]:
        """Float initializers as leaves; everything else that is held."""
        leaves: dict[str, Tensor] = {}
        for name, value in self._graph.initializers.items():
            if value.const_value is None:
                raise InvalidModel(
                    "undefined_value",
                    f"initializer {name!r} holds no data",
                    where=f"initializer {name}",
                    hint="keep the external data file beside the model",
                )
            tensor = self._placed(decode(value.const_value))
            if tensor.is_floating_point():
                leaves[name] = tensor.detach().requires_grad_()
            else:
                self._constants[name] = tensor
        return leaves, self._constants

    def _placed(self, x: Tensor) -> Tensor:
        return x.to(self._device, self._dtype if x.is_floating_point() else None)

    def _step(self, node: onnx_ir.Node) -> Step | None:
        opset = node.version or self._opsets.get(node.domain, 1)
        name = node.name or (node.outputs[0].name if node.outputs else "") or ""
        row = lookup(node.domain, node.op_type, opset)
        if row is None:
            self._missing.append((node.op_type, node.domain, opset, name))
            return None
        attributes, faults = self._attributes(node, row)
        if faults:
            self._missing += [(f"{row.name}[{f}]", node.domain, opset, name) for f in faults]
            return None
        step = Step(
            name,
            row.name,
            row.run,
            attributes,
            tuple(None if v is None else v.name for v in node.inputs),
            tuple(v.name or "" for v in node.outputs),
        )
        if row.name != "Constant":
            return step
        self._constants[step.outputs[0]] = self._placed(execute(step, [])[0])
        return None

    def _attributes(self, node: onnx_ir.Node, row: Row) -> tuple[dict[str, Any], list[str]]:
        """Keyword arguments for `run`, and the attributes it cannot take."""
        accepted = _accepted(row.run)
        attributes: dict[str, Any] = {}
        faults = []
        for name, attribute in node.attributes.items():
            value, known = self._attribute(name, attribute)
            if name not in accepted or not known:
                faults.append(name)
            attributes[name] = value
        if "n_outputs" in accepted:
            attributes["n_outputs"] = len(node.outputs)
        if row.name == "BatchNormalization" and self._training:
            attributes["training_mode"] = 1
        return attributes, faults

    def _attribute(self, name: str, attribute: onnx_ir.Attr) -> tuple[Any, bool]:
        """The value as torch takes it, and whether torch can."""
        value = attribute.value
        if attribute.type == onnx_ir.AttributeType.TENSOR:
            if torch_dtype(attribute.as_tensor().dtype) is None:
                return None, False
            return self._placed(decode(attribute.as_tensor())), True
        if name in _ELEMENT_TYPES:
            element = torch_dtype(onnx_ir.DataType(attribute.as_int()))
            if element is None:
                return None, False
            return (self._dtype if element.is_floating_point else None) or element, True
        return value, attribute.type in _PLAIN


_PLAIN = frozenset(
    {
        onnx_ir.AttributeType.FLOAT,
        onnx_ir.AttributeType.FLOATS,
        onnx_ir.AttributeType.INT,
        onnx_ir.AttributeType.INTS,
        onnx_ir.AttributeType.STRING,
        onnx_ir.AttributeType.STRINGS,
    }
)


@cache
def _accepted(run: Run) -> frozenset[str]:
    """The keyword-only names of `run`; a builtin of torch's takes no attribute."""
    try:
        parameters: Mapping[str, inspect.Parameter] = inspect.signature(run).parameters
    except ValueError:
        return frozenset()
    return frozenset(n for n, p in parameters.items() if p.kind is p.KEYWORD_ONLY)


def _refuse_undefined(
    steps: list[Step], inputs: list[str], held: set[str], outputs: list[str]
) -> None:
    made = {*inputs, *held}
    for step in steps:
        for name in step.inputs:
            if name is not None and name not in made:
                raise _undefined(name, f"node {step.node}")
        made.update(step.outputs)
    for name in outputs:
        if name not in made:
            raise _undefined(name, "the graph's outputs")


def _undefined(name: str, where: str) -> InvalidModel:
    return InvalidModel(
        "undefined_value",
        f"value {name!r} is read before anything makes it",
        where=where,
        hint="sort the nodes topologically, or export the model again",
    )

"""Forward through an onnx_ir graph: constants and shapes exactly, activations by their moments."""

from collections import Counter
from collections.abc import Mapping
from dataclasses import dataclass, field, replace

import numpy as np
import onnx_ir
import torch

from gradgauge.analytic import attributes, axes, pointwise
from gradgauge.analytic.call import Call
from gradgauge.analytic.moments import Known, Moments, Signal, Step, Value, measure
from gradgauge.analytic.movement import as_signal, embedding
from gradgauge.analytic.pointwise import Origin
from gradgauge.analytic.probe import held
from gradgauge.analytic.rules import carry_out
from gradgauge.graph.reading import InputPlan, Reading
from gradgauge.ops.table import lookup

BATCH = 8  # inputs assumed to be stacked, for shapes only
SEED = 11
# Kinds that have a rule for activations only: drawn samples reach them as moments.
COMPUTING = frozenset({"linear", "normalisation", "recurrent", "contraction", "pooling"})
ELEMENTWISE = frozenset({"pointwise", "binary"})
MOST = 1 << 29  # elements of one value of a batch
FAULTS = (RuntimeError, IndexError, ValueError, TypeError, ArithmeticError)  # ops.row.Row.run's


@dataclass(frozen=True, slots=True)
class Shortcut:
    """A node that is one function of `base`: its gradient goes there at once."""

    base: str
    slope: float
    common: float


@dataclass(frozen=True, slots=True)
class Record:
    """One node carried out. `step` is None where it could not be; `width` is its fan-in."""

    name: str
    inputs: tuple[str, ...]
    outputs: tuple[str, ...]
    step: Step | None
    shortcut: Shortcut | None = None


@dataclass(slots=True)
class Trace:
    """All values and nodes of one forward pass, in the graph's order.

    `readers` counts the nodes that apply a constant to an activation.
    """

    batch: int
    values: dict[str, Value] = field(default_factory=dict)
    records: list[Record] = field(default_factory=list)
    by_name: dict[str, Record] = field(default_factory=dict)
    readers: Counter[str] = field(default_factory=Counter)
    origins: dict[str, Origin] = field(default_factory=dict)
    covered: int = 0


def run(model: onnx_ir.Model, reading: Reading) -> Trace:
    """Carry every node out in order; what depends on a node that cannot be is left out."""
    batched = any(plan.batch_axis is not None for plan in reading.inputs.values())
    trace = Trace(BATCH if batched else 1)
    for name, value in model.graph.initializers.items():
        if value.const_value is not None and value.dtype != onnx_ir.DataType.STRING:
            trace.values[name] = Known(attributes.tensor(value.const_value))
    generator = np.random.default_rng(SEED)
    for name, plan in reading.inputs.items():
        trace.values[name] = _input(plan, trace.batch, generator)
    opsets = model.graph.opset_imports
    for node in model.graph:
        _visit(node, trace, opsets, batch_statistics=reading.batch_statistics)
    return trace


def _input(plan: InputPlan, batch: int, generator: np.random.Generator) -> Value:
    shape = tuple(batch if n is None else n for n in plan.shape)
    held = plan.constant(shape)
    if held is not None:
        return Known(torch.from_numpy(held))
    if plan.kind == "integers":
        drawn = generator.integers(plan.low, plan.high, size=shape)
        return Known(torch.from_numpy(drawn).to(attributes.element(plan.dtype)), varying=True)
    roles = axes.of_input(len(shape), plan.batch_axis)
    if plan.kind == "data" and plan.data is not None:
        return _of_data(plan, shape, roles, batch)
    q, m2 = plan.mean**2 + plan.scale**2, plan.mean**2
    return Signal(shape, roles, Moments(plan.mean, q, m2, m2), batch)


def _of_data(plan: InputPlan, shape: tuple[int, ...], roles: str, batch: int) -> Value:
    data = torch.from_numpy(np.ascontiguousarray(plan.data))
    if not data.is_floating_point():
        whole = data if plan.batch_axis is None else _first(data, plan.batch_axis, batch)
        return Known(whole, varying=True)
    return Signal(shape, roles, measure(data, roles), batch)


def _first(data: torch.Tensor, axis: int, batch: int) -> torch.Tensor:
    """`batch` inputs, the given ones over again where there are fewer."""
    picks = torch.arange(batch) % data.shape[axis]
    return data.index_select(axis, picks)


def _visit(
    node: onnx_ir.Node, trace: Trace, opsets: Mapping[str, int], *, batch_statistics: bool
) -> None:
    names = tuple("" if v is None else (v.name or "") for v in node.inputs)
    outputs = tuple(v.name or "" for v in node.outputs)
    step, shortcut = None, None
    opset = opsets.get(node.domain, opsets.get("ai.onnx" if not node.domain else "", 1))
    row = lookup(node.domain, node.op_type, opset)
    if row is not None and all(not n or n in trace.values for n in names):
        try:
            call = Call(
                node.op_type,
                attributes.bound(row.run, len(outputs)),
                names,
                tuple(trace.values.get(n) for n in names),
                attributes.of_node(node),
                trace.batch,
                batch_statistics,
            )
            step, shortcut = _carry_out(call, row.kind, trace, outputs)
        except FAULTS:  # the sampled engine names the fault; here the node is not supported
            step = None
    if step is not None and any(isinstance(v, Signal) and v.size > MOST for v in step.outputs):
        step = None  # nor is a value nobody could hold: the sampled engine names the limit
    if step is not None:
        trace.covered += 1
        trace.values.update(
            (n, v)
            for n, v in zip(outputs, step.outputs, strict=False)
            if n and not (isinstance(v, Signal) and not v.moments.finite)
        )
    record = Record(node.name or "", names, outputs, step, shortcut)
    trace.records.append(record)
    trace.by_name[record.name] = record
    if any(isinstance(trace.values.get(n), Signal) for n in outputs):
        trace.readers.update(set(names))


def _carry_out(
    call: Call, kind: str, trace: Trace, outputs: tuple[str, ...]
) -> tuple[Step | None, Shortcut | None]:
    if call.op in {"Shape", "Size"}:
        return _shape(call), None
    if not call.signals:
        return _constant(call, kind), None
    step = carry_out(call, kind)
    if kind not in ELEMENTWISE:
        return step, None
    return _fused(call, step, trace, outputs[0])


def _shape(call: Call) -> Step:
    value = call.inputs[0]
    held_shape = value.tensor.shape if isinstance(value, Known) else ()
    shape = value.shape if isinstance(value, Signal) else held_shape
    stand_in = torch.zeros(()).expand(shape)
    return Step((Known(call.run(stand_in, **call.attributes)),), lambda _: [None])


def _constant(call: Call, kind: str) -> Step | None:
    """A node of exactly known inputs: run as it is, unless it has a rule for drawn samples."""
    varying = any(isinstance(v, Known) and v.varying for v in call.inputs)
    if varying and call.op == "Gather":
        found = embedding(call)
        if found is not None:
            return found
    if varying and kind in COMPUTING:
        moving = tuple(as_signal(v, call.batch) for v in call.inputs)
        return carry_out(replace(call, inputs=moving), kind)
    with torch.no_grad():
        arguments = [v.tensor if isinstance(v, Known) else None for v in call.inputs]
        made = call.run(*arguments, **call.attributes)
    tensors = made if isinstance(made, tuple | list) else (made,)
    outputs = tuple(Known(t, varying=varying) for t in tensors)

    # The transpose is built only for those constants that a gradient reaches.
    return Step(outputs, lambda flows: held(call).pull(flows))


def _fused(call: Call, step: Step, trace: Trace, output: str) -> tuple[Step, Shortcut | None]:
    """Replace the outcome by that of the whole pointwise function since its base."""
    origin = pointwise.fuse(call, trace.origins, trace.values)
    if origin is None:
        plain = pointwise.trace(call)
        if plain is not None:
            trace.origins[output] = plain
        return step, None
    base = trace.values[origin.base]
    out = step.outputs[0]
    if not isinstance(base, Signal) or not isinstance(out, Signal):
        return step, None
    trace.origins[output] = origin
    outcome, slope, common = pointwise.transform("", origin.phi, base.moments)
    joined = len({call.names[i] for i in call.signals}) > 1
    shortcut = Shortcut(origin.base, slope, common) if joined else None
    return replace(step, outputs=(replace(out, moments=outcome),)), shortcut

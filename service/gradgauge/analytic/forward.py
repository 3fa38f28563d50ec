"""Forward through an onnx_ir graph: constants and shapes exactly, activations by their moments."""

from collections import Counter
from collections.abc import Mapping
from dataclasses import dataclass, field, replace
from functools import partial
from typing import Literal

import numpy as np
import onnx_ir
import torch

from gradgauge.analytic import attributes, axes, pointwise
from gradgauge.analytic.call import Base, Call, single
from gradgauge.analytic.moments import Known, Signal, Step, Value, flow, measure, pooled, signal
from gradgauge.analytic.movement import as_signal, embedding
from gradgauge.analytic.pointwise import Origin, Through
from gradgauge.analytic.probe import held as probe_constants
from gradgauge.analytic.rules import carry_out
from gradgauge.graph.reading import InputPlan, Reading
from gradgauge.ops.table import lookup

SEED = 11
BATCH = 32  # inputs to a batch, where its statistics are the norms'
Closure = Literal["element", "image", "channel", "tensor"]
# Kinds that have a rule for activations only: drawn samples reach them as moments.
COMPUTING = frozenset({"linear", "normalisation", "recurrent", "contraction", "pooling"})
# Of a constant they keep every element once, and so the mean square of its gradient.
KEEPING = frozenset({"Flatten", "Identity", "Reshape", "Squeeze", "Transpose", "Unsqueeze"})
AFFINE = frozenset({"Add", "Identity", "Mul", "Neg", "Sub"})  # and Div by a constant
ELEMENTWISE = frozenset({"pointwise", "binary"})
MOST = 1 << 29  # elements of one value
KEPT = 1 << 28  # bytes of weights that are kept once read
FAULTS = (RuntimeError, IndexError, ValueError, TypeError, ArithmeticError)  # ops.row.Row.run's


@dataclass(frozen=True, slots=True)
class Shortcut:
    """A node that is one function of `base`: its gradient goes there at once."""

    base: str
    through: Through


@dataclass(frozen=True, slots=True)
class Record:
    """One node carried out. `step` is None where it could not be, and `call` then may be.

    `leans` is whether its gradient may depend on how the one it is given leans.
    """

    name: str
    inputs: tuple[str, ...]
    outputs: tuple[str, ...]
    step: Step | None
    shortcut: Shortcut | None = None
    call: Call | None = None
    leans: bool = True


@dataclass(slots=True)
class Trace:
    """All values and nodes of one forward pass, in the graph's order.

    `readers` counts the nodes that apply a constant to an activation; `closure` is how much of the
    moments is kept from node to node, `batch` how many inputs share BatchNorm's statistics.
    """

    closure: Closure = "element"
    batch: int = BATCH
    values: dict[str, Value] = field(default_factory=dict)
    records: list[Record] = field(default_factory=list)
    by_name: dict[str, Record] = field(default_factory=dict)
    readers: Counter[str] = field(default_factory=Counter)
    origins: dict[str, Origin] = field(default_factory=dict)
    covered: int = 0


def run(
    model: onnx_ir.Model, reading: Reading, closure: Closure = "element", batch: int = BATCH
) -> Trace:
    """Carry every node out in order; what depends on a node that cannot be is left out."""
    trace, read = Trace(closure, batch), _Read()
    for name, value in model.graph.initializers.items():
        if value.const_value is not None and value.dtype != onnx_ir.DataType.STRING:
            trace.values[name] = Known(partial(read.tensor, value.const_value))
    generator = np.random.default_rng(SEED)
    for name, plan in reading.inputs.items():
        trace.values[name] = _input(plan, generator)
    opsets = model.graph.opset_imports
    for node in model.graph:
        _visit(node, trace, opsets, batch_statistics=reading.batch_statistics)
    return trace


@dataclass(slots=True)
class _Read:
    """Stored tensors as they were read: a node asks for its weight several times.

    The first ones are kept, up to KEPT bytes in all; of the others the one that was read last.
    """

    kept: dict[int, torch.Tensor] = field(default_factory=dict)
    room: int = KEPT
    stored: onnx_ir.TensorProtocol | None = None
    read: torch.Tensor | None = None

    def tensor(self, stored: onnx_ir.TensorProtocol) -> torch.Tensor:
        """The tensor, read anew unless it is kept or the latest."""
        kept = self.kept.get(id(stored))
        if kept is not None:
            return kept
        held = self.read
        if held is None or self.stored is not stored:
            self.stored = self.read = None  # two are never held at once
            held = attributes.tensor(stored)
            size = held.numel() * held.element_size()
            if size <= min(self.room, KEPT // 4):
                self.kept[id(stored)] = held
                self.room -= size
            else:
                self.stored, self.read = stored, held
        return held


def _input(plan: InputPlan, generator: np.random.Generator) -> Value:
    shape = tuple(1 if n is None else n for n in plan.shape)
    held = plan.constant(shape)
    if held is not None:
        return Known(torch.from_numpy(held))
    if plan.kind == "integers":
        drawn = generator.integers(plan.low, plan.high, size=shape)
        return Known(torch.from_numpy(drawn).to(attributes.element(plan.dtype)), varying=True)
    roles = axes.of_input(len(shape), plan.batch_axis)
    if plan.kind == "data" and plan.data is not None:
        return _of_data(plan, roles)
    rank = [1] * len(shape)
    mean = torch.full(rank, plan.mean, dtype=torch.float64)
    return signal(shape, roles, mean, torch.full(rank, plan.scale**2, dtype=torch.float64))


def _of_data(plan: InputPlan, roles: str) -> Value:
    data = torch.from_numpy(np.ascontiguousarray(plan.data))
    if not data.is_floating_point():
        whole = data if plan.batch_axis is None else data.narrow(plan.batch_axis, 0, 1)
        return Known(whole, varying=True)
    if plan.batch_axis is None:
        return measure(data.unsqueeze(0), roles, 1)
    rows = data.movedim(plan.batch_axis, 0).unsqueeze(plan.batch_axis + 1)
    return measure(rows, roles, len(rows))


def _visit(
    node: onnx_ir.Node, trace: Trace, opsets: Mapping[str, int], *, batch_statistics: bool
) -> None:
    names = tuple("" if v is None else (v.name or "") for v in node.inputs)
    outputs = tuple(v.name or "" for v in node.outputs)
    call, step, shortcut = None, None, None
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
                batch_statistics,
                _bases(names, trace),
                trace.batch,
                trace.closure == "image",
            )
            step, shortcut = _carry_out(call, row.kind, trace, outputs)
        except FAULTS:  # the sampled engine names the fault; here the node is not supported
            step = None
    if step is not None and any(isinstance(v, Signal) and v.size > MOST for v in step.outputs):
        step = None  # nor is a value nobody could hold: the sampled engine names the limit
    if step is not None:
        trace.covered += 1
        _keep(trace, outputs, step)
    leans = row is None or (row.kind in ELEMENTWISE and node.op_type not in AFFINE)
    record = Record(node.name or "", names, outputs, step, shortcut, call, leans)
    trace.records.append(record)
    trace.by_name[record.name] = record
    if any(isinstance(trace.values.get(n), Signal) for n in outputs):
        trace.readers.update(set(names))


def _bases(names: tuple[str, ...], trace: Trace) -> dict[str, Base]:
    found = {}
    for name in names:
        origin = trace.origins.get(name)
        base = trace.values.get(origin.base) if origin is not None else None
        if origin is not None and isinstance(base, Signal):
            found[name] = Base(base, origin.phi)
    return found


def _keep(trace: Trace, outputs: tuple[str, ...], step: Step) -> None:
    for name, value in zip(outputs, step.outputs, strict=False):
        if not name or (isinstance(value, Signal) and not value.finite):
            continue
        if isinstance(value, Signal):
            trace.values[name] = pooled(value, trace.closure)
        else:
            trace.values[name] = value


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
    return _fused(call, step, trace, outputs[0], kind)


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
        moving = tuple(as_signal(v) for v in call.inputs)
        return carry_out(replace(call, inputs=moving), kind)
    with torch.no_grad():
        arguments = [v.tensor if isinstance(v, Known) else None for v in call.inputs]
        made = call.run(*arguments, **call.attributes)
    tensors = made if isinstance(made, tuple | list) else (made,)
    outputs = tuple(Known(t, varying=varying) for t in tensors)

    if call.op in KEEPING and not varying:
        return Step(outputs, single(call, lambda held: [flow(float(held.g.mean()))]))

    # The transpose is built only for those constants that a gradient reaches.
    return Step(outputs, lambda flows: probe_constants(call).pull(flows))


def _fused(
    call: Call, step: Step, trace: Trace, output: str, kind: str
) -> tuple[Step, Shortcut | None]:
    """Replace the outcome by that of the whole pointwise function since its base."""
    origin = pointwise.fuse(call, output, trace.origins, trace.values)
    affine = len(call.signals) == 1 and (
        call.op in AFFINE or (call.op == "Div" and call.signals == (0,))
    )
    if origin is None or (origin.long and affine):
        plain = pointwise.trace(call, output)
        if plain is not None:
            trace.origins[output] = replace(plain, affine=affine)
        return step, None
    before = trace.origins.get(call.names[call.signals[0]])
    before_affine = before is None or before.affine
    if affine or (kind == "pointwise" and len(call.signals) == 1 and before_affine):
        # Exact as it stands: moments of a Gaussian, or carried on by a line.
        trace.origins[output] = replace(origin, affine=affine and before_affine)
        return step, None
    if origin.long:
        raise ArithmeticError(f"more than {pointwise.LONGEST} functions of one value")
    base = trace.values[origin.base]
    out = step.outputs[0]
    if not isinstance(base, Signal) or not isinstance(out, Signal):
        return step, None
    trace.origins[output] = origin
    outcome, through = pointwise.transform("", origin.phi, base)
    joined = len({call.names[i] for i in call.signals}) > 1
    shortcut = Shortcut(origin.base, through) if joined else None
    return replace(step, outputs=(replace(outcome, masked=out.masked),)), shortcut

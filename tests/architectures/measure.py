"""An architecture's export run by us, beside native torch and beside onnxruntime."""

import contextlib
import math
from dataclasses import dataclass

import numpy as np
import onnx
import onnxruntime
import torch
from onnx import numpy_helper

from gradgauge.sampled.executor import compile_graph
from tests.architectures.architecture import Architecture, Float64
from tests.exports import Export, Exporter, export
from tests.native import ByValue, Compared, compare, difference, gradients

_FLOATS = {
    onnx.TensorProto.FLOAT,
    onnx.TensorProto.DOUBLE,
    onnx.TensorProto.FLOAT16,
    onnx.TensorProto.BFLOAT16,
}
# what many architectures multiply by or mask with
_SCALARS = (
    *(math.sqrt(n) for n in (2, 2 / math.pi, 1 / 2, 1 / 8, 8)),
    *(0.044715, 1.702, torch.finfo(torch.float64).min),
)


@dataclass(frozen=True)
class Gradients:
    """Of one float64 export: errors are norm-wise and relative, against native torch.

    `leaves` are those of the executable, `stored` the model's float initializers.
    """

    opset: int
    nodes: int
    leaves: frozenset[str]
    stored: frozenset[str]
    output: float
    inputs: float
    parameters: Compared

    @property
    def gradient(self) -> float:
        """The largest error of a gradient."""
        return max(self.inputs, self.parameters.error)


@dataclass(frozen=True)
class Forward:
    """Of one float32 export: largest differences over the largest output."""

    opset: int
    torch: float
    onnxruntime: float


def exported(
    architecture: Architecture, exporter: Exporter, opset: int, dtype: torch.dtype
) -> Export:
    """In float64 nothing is folded or fused, so that every parameter is stored.

    The TorchScript exporter runs the module, whose float32 by name is then float64.
    """
    exact = dtype == torch.float64
    traced = exact and exporter == "torchscript"
    with Float64() if traced else contextlib.nullcontext():
        return export(
            architecture.module(dtype),
            architecture.inputs(dtype),
            exporter=exporter,
            opset=opset,
            optimize=not exact,
        )


def measured_gradients(architecture: Architecture, exporter: Exporter, opset: int) -> Gradients:
    made = exported(architecture, exporter, opset, torch.float64)
    if exporter == "dynamo":
        _restore(made.model, (*_SCALARS, *architecture.scalars))
    exe = compile_graph(made.model, dtype=torch.float64)
    xs = [x.clone().requires_grad_(x.is_floating_point()) for x in made.inputs]
    floats = [x for x in xs if x.requires_grad]
    with Float64():
        native = made.native(*xs)
    native = [native] if isinstance(native, torch.Tensor) else list(native)
    ours = exe(**made.feed(xs))

    leaves = list(exe.initializers.values())
    parameters = [p for p in made.native.parameters() if p.requires_grad]
    mine = gradients(ours, leaves + floats)
    theirs = gradients(native, parameters + floats)
    return Gradients(
        opset=made.opset,
        nodes=len(made.model.graph.node),
        leaves=frozenset(exe.initializers),
        stored=frozenset(t.name for t in made.model.graph.initializer if t.data_type in _FLOATS),
        output=_largest(ours, native),
        inputs=_largest(mine[len(leaves) :], theirs[len(parameters) :]),
        parameters=compare(
            ByValue(leaves, mine[: len(leaves)]),
            ByValue(parameters, theirs[: len(parameters)]),
            made.native,
        ),
    )


def measured_forward(architecture: Architecture, exporter: Exporter, opset: int) -> Forward:
    made = exported(architecture, exporter, opset, torch.float32)
    feed = made.feed(made.inputs)
    session = onnxruntime.InferenceSession(
        made.model.SerializeToString(), _one_thread(), providers=["CPUExecutionProvider"]
    )
    theirs = session.run(None, {name: x.numpy() for name, x in feed.items()})
    with torch.no_grad():
        ours = [y.numpy() for y in compile_graph(made.model)(**feed)]
        native = made.native(*made.inputs)
    native = [native] if isinstance(native, torch.Tensor) else native
    return Forward(made.opset, _apart(ours, [y.numpy() for y in native]), _apart(ours, theirs))


def _one_thread() -> onnxruntime.SessionOptions:
    options = onnxruntime.SessionOptions()
    options.intra_op_num_threads = options.inter_op_num_threads = 1
    options.log_severity_level = 3
    return options


def _restore(model: onnx.ModelProto, scalars: tuple[float, ...]) -> None:
    """Undo what dynamo does to a Python scalar: it stores a float32 and casts it to double."""
    with np.errstate(over="ignore"):
        stored = {float(np.float32(scalar)): scalar for scalar in scalars}
    values = (a.t for n in model.graph.node for a in n.attribute if n.op_type == "Constant")
    for tensor in (*model.graph.initializer, *values):
        if tensor.data_type == onnx.TensorProto.FLOAT and not tensor.dims:
            scalar = stored.get(float(numpy_helper.to_array(tensor)))
            if scalar is not None:
                tensor.CopyFrom(numpy_helper.from_array(np.array(scalar), tensor.name))


def _largest(ours: list[torch.Tensor], native: list[torch.Tensor]) -> float:
    found = [difference(mine, theirs) for mine, theirs in zip(ours, native, strict=True)]
    return float(np.max(found, initial=0.0))  # unlike max, NaN stays


def _apart(ours: list[np.ndarray], others: list[np.ndarray]) -> float:
    found = [
        np.abs(mine - theirs).max() / np.abs(theirs).max()
        for mine, theirs in zip(ours, others, strict=True)
    ]
    return float(np.max(found))

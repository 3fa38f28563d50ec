"""One op with its inputs and attributes, and the two oracles it is held against."""

from collections.abc import Callable
from dataclasses import dataclass, field
from typing import Any

import ml_dtypes  # noqa: F401 - onnx.reference needs its dtypes registered
import numpy as np
import onnx
import onnxruntime
import torch
from onnx import helper
from onnx.reference import ReferenceEvaluator

from gradgauge.ops.table import Row, lookup
from gradgauge.sampled.executor import compile_graph

_RNG = np.random.default_rng(20)


def normal(*shape: int) -> np.ndarray:
    return _RNG.standard_normal(shape).astype(np.float32)


def uniform(low: float, high: float, *shape: int) -> np.ndarray:
    return _RNG.uniform(low, high, shape).astype(np.float32)


def ints(*values: Any, dtype: type = np.int64) -> np.ndarray:
    return np.array(values, dtype=dtype)


def scalar(value: Any, dtype: type = np.int64) -> np.ndarray:
    return np.array(value, dtype=dtype)


def bools(*shape: int) -> np.ndarray:
    return _RNG.random(shape) < 0.5


@dataclass(frozen=True)
class Case:
    """`inputs` may hold None for an absent one, or a list; `skip` are floats without a gradient.

    The last `around` of them are the graph's, not the node's: its subgraphs take them from there.

    `oracle` is onnxruntime, ONNX's reference implementation, or a function of the inputs (a closed
    form in numpy, or what the specification's text says) that gives the outputs.
    """

    op: str
    opset: int
    inputs: tuple[np.ndarray | list | None, ...] = ()
    attributes: dict[str, Any] = field(default_factory=dict)
    outputs: int = 1
    domain: str = ""
    oracle: str | Callable[..., list] = "onnxruntime"
    skip: tuple[int, ...] = ()
    smooth: bool = True
    tolerance: float = 1e-5
    around: int = 0

    def __str__(self) -> str:
        plain = {k: v for k, v in self.attributes.items() if not isinstance(v, onnx.GraphProto)}
        settings = ",".join(f"{k}={v}" for k, v in plain.items() if np.size(v) < 9)
        shapes = "x".join(_named(x) for x in self.inputs)
        return f"{self.domain}{self.op}{self.opset}({settings}){shapes}".replace(" ", "")

    @property
    def row(self) -> Row | None:
        return lookup(self.domain, self.op, self.opset)

    @property
    def fed(self) -> list[np.ndarray]:
        return [x for x in self.inputs if x is not None]

    def model(self) -> onnx.ModelProto:
        names = [f"x{i}" if x is not None else "" for i, x in enumerate(self.inputs)]
        outs = [f"y{i}" for i in range(self.outputs)]
        own = names[: len(names) - self.around]
        node = helper.make_node(
            self.op, own, outs, name="it", domain=self.domain, **self.attributes
        )
        values = [
            _value_info(n, x) for n, x in zip(names, self.inputs, strict=True) if x is not None
        ]
        results = [onnx.ValueInfoProto(name=o) for o in outs]
        opsets = [helper.make_opsetid("", self.opset if not self.domain else 20)]
        if self.domain:
            opsets.append(helper.make_opsetid(self.domain, self.opset))
        graph = helper.make_graph([node], "one", values, results)
        return helper.make_model(graph, opset_imports=opsets, ir_version=10)

    def expected(self) -> list[np.ndarray]:
        if callable(self.oracle):
            return self.oracle(*self.inputs)
        feed = {f"x{i}": x for i, x in enumerate(self.inputs) if x is not None}
        if self.oracle == "reference":
            return list(ReferenceEvaluator(self.model()).run(None, feed))
        options = onnxruntime.SessionOptions()
        options.log_severity_level = 4
        options.intra_op_num_threads = 1
        session = onnxruntime.InferenceSession(
            self.model().SerializeToString(), options, providers=["CPUExecutionProvider"]
        )
        return list(session.run(None, feed))


def _named(x: np.ndarray | list | None) -> str:
    return "-" if x is None else f"{len(x)}" if isinstance(x, list) else str(list(x.shape))


def _value_info(name: str, x: np.ndarray | list) -> onnx.ValueInfoProto:
    if isinstance(x, list):
        kind = helper.np_dtype_to_tensor_dtype(x[0].dtype)
        return helper.make_tensor_sequence_value_info(name, kind, None)
    return helper.make_tensor_value_info(name, helper.np_dtype_to_tensor_dtype(x.dtype), x.shape)


def fed(x: np.ndarray | list) -> object:
    """As the executor takes it: tensors, lists of them, arrays of strings."""
    if isinstance(x, list):
        return [fed(v) for v in x]
    return x if x.dtype == object else torch.from_numpy(x)


def agrees_forward(case: Case) -> None:
    """Same dtypes and shapes; values within the tolerance of the output's largest."""
    ours = compile_graph(case.model())(*(fed(x) for x in case.fed))
    theirs = case.expected()
    assert len(ours) == len(theirs)
    for mine, other in zip(ours, theirs, strict=True):
        assert isinstance(mine, list) == isinstance(other, list)
        pairs = zip(mine, other, strict=True) if isinstance(mine, list) else [(mine, other)]
        for got, want in pairs:
            _close(got, np.asarray(want), case.tolerance)


def _close(mine: torch.Tensor | np.ndarray, other: np.ndarray, tolerance: float) -> None:
    got = mine.detach().numpy() if isinstance(mine, torch.Tensor) else mine
    assert got.shape == other.shape
    if other.dtype.kind in "OU":
        assert got.tolist() == other.tolist()
        return
    assert got.dtype == other.dtype
    finite = np.abs(other[np.isfinite(other)]) if other.dtype.kind == "f" else other
    scale = float(finite.max()) if finite.size and other.dtype.kind == "f" else 0.0
    np.testing.assert_allclose(got, other, rtol=tolerance, atol=tolerance * max(scale, 1e-30))


def agrees_backward(case: Case) -> None:
    """In float64, against central differences of every float input."""
    exe = compile_graph(case.model(), dtype=torch.float64)
    inputs, wanted = [], set()
    for i, x in enumerate(case.inputs):
        if x is None:
            continue
        tensor = fed(x)
        if i not in case.skip and isinstance(tensor, torch.Tensor) and tensor.is_floating_point():
            wanted.add(len(inputs))
            tensor = tensor.double().requires_grad_()
        inputs.append(tensor)
    assert wanted, "a smooth case needs a float input"

    def run(*xs: torch.Tensor) -> tuple[torch.Tensor, ...]:
        found = [y for y in exe(*xs) if y.is_floating_point() and y.requires_grad]
        assert found, "no output depends on the inputs"
        return tuple(found)

    assert torch.autograd.gradcheck(run, inputs)

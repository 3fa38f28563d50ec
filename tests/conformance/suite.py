"""ONNX's own backend suite, run through compile_graph: what passes, and why the rest does not."""

import json
import warnings
from collections.abc import Callable, Iterator
from dataclasses import dataclass
from functools import cache
from pathlib import Path

import ml_dtypes
import numpy as np
import onnx
import torch
from onnx import numpy_helper
from onnx.backend.test.case.test_case import TestCase
from onnx.backend.test.loader import load_model_tests
from onnx.backend.test.runner import Runner
from torch import Tensor

from gradgauge.errors import GradgaugeError
from gradgauge.sampled.executor import compile_graph

# "real" is the suite's name for the light models
KINDS = ("node", "simple", "pytorch-converted", "pytorch-operator", "real")
HERE = Path(__file__).parent
LIGHT = Path(onnx.__file__).parent / "backend" / "test" / "data" / "light"
_NARROW = {
    torch.bfloat16: (torch.uint16, ml_dtypes.bfloat16),
    torch.float8_e4m3fn: (torch.uint8, ml_dtypes.float8_e4m3fn),
    torch.float8_e4m3fnuz: (torch.uint8, ml_dtypes.float8_e4m3fnuz),
    torch.float8_e5m2: (torch.uint8, ml_dtypes.float8_e5m2),
    torch.float8_e5m2fnuz: (torch.uint8, ml_dtypes.float8_e5m2fnuz),
    torch.float8_e8m0fnu: (torch.uint8, ml_dtypes.float8_e8m0fnu),
}


# a model and its inputs to its outputs, and what kept a gradient from its float inputs
Run = Callable[[onnx.ModelProto, list], tuple[list, str]]


@dataclass(frozen=True)
class Outcome:
    """`reason` is empty where the case passed; `gradient` where one reached a float input."""

    kind: str
    name: str
    reason: str
    gradient: str

    @property
    def key(self) -> str:
        return f"{self.kind}/{self.name}"


@cache
def suite() -> dict[str, TestCase]:
    with warnings.catch_warnings():
        warnings.simplefilter("ignore")  # the suite's own generators divide by zero
        found = [case for kind in KINDS for case in load_model_tests(kind=kind)]
    return {f"{case.kind}/{case.name}": case for case in found}


@cache
def differentiable() -> frozenset[str]:
    listed = json.loads((HERE / "differentiable_cases.json").read_text())["cases"]
    return frozenset(f"{case['kind']}/{case['name']}" for case in listed)


@cache
def expected_failures() -> dict[str, str]:
    """Case to reason."""
    found: dict[str, str] = json.loads((HERE / "expected_failures.json").read_text())
    return found


def outcome(
    key: str,
    run: Run | None = None,
    faults: tuple[type[Exception], ...] = (GradgaugeError, AssertionError),
) -> Outcome:
    """Run one case: values first, then whether a gradient arrives."""
    case = suite()[key]
    gradient = "no float input"
    try:
        for inputs, wanted, model in _data(case):
            got, gradient = (run or _run)(model, inputs)
            _compare(wanted, got, case)
    except faults as fault:
        return Outcome(case.kind, case.name, _reason(fault), gradient)
    return Outcome(case.kind, case.name, "", gradient)


def shortfall(found: Outcome) -> str:
    """Why a case does not count: its values, or for a differentiable one its gradient."""
    if found.reason or found.key not in differentiable():
        return found.reason
    return found.gradient and f"gradient: {found.gradient}"


def _reason(fault: Exception) -> str:
    lines = [line.strip() for line in str(fault).splitlines() if line.strip()]
    return " ".join(lines)[:160] or type(fault).__name__


def _run(model: onnx.ModelProto, inputs: list) -> tuple[list, str]:
    exe = compile_graph(model)
    fed = [as_tensor(x) for x in inputs]
    leaves = [x for x in _flat(fed) if isinstance(x, Tensor) and x.is_floating_point()]
    for leaf in leaves:
        leaf.requires_grad_()
    outputs = exe(**dict(zip(exe.input_names, fed, strict=False)))
    return [as_array(y) for y in outputs], _gradient(leaves, outputs)


def _gradient(leaves: list[Tensor], outputs: list) -> str:
    """Empty where a finite gradient reached a float input, else what kept it."""
    ends = [y for y in _flat(outputs) if isinstance(y, Tensor) and y.requires_grad]
    if not ends:
        return "no output depends on a float input through torch"
    try:
        found = torch.autograd.grad(
            ends, leaves, [torch.ones_like(y) for y in ends], allow_unused=True
        )
    except RuntimeError as fault:
        return f"backward failed: {_reason(fault)}"
    reached = [g for g in found if g is not None]
    if not reached:
        return "no gradient reached a float input"
    return "" if any(bool(g.double().isfinite().all()) for g in reached) else "not finite"


def _flat(values: list) -> Iterator[object]:
    for value in values:
        if isinstance(value, list | tuple):
            yield from _flat(list(value))
        else:
            yield value


def as_tensor(value: object) -> object:
    """As torch, on memory of its own; the executor takes arrays of what torch lacks."""
    if isinstance(value, list | tuple):
        return [as_tensor(v) for v in value]
    if isinstance(value, np.ndarray | np.generic):
        array = np.array(value, order="C")
        for integer, narrow in _NARROW.values():
            if array.dtype == narrow:
                dtype = next(t for t, pair in _NARROW.items() if pair[1] is narrow)
                numbers = array.view(np.uint16 if integer is torch.uint16 else np.uint8)
                return torch.from_numpy(numbers).view(dtype)
        try:
            return torch.from_numpy(array)
        except TypeError:
            return array
    return value


def as_array(value: object) -> object:
    if isinstance(value, list):
        return [as_array(v) for v in value]
    if not isinstance(value, Tensor):
        return value
    value = value.detach()
    if value.dtype in _NARROW:
        integer, dtype = _NARROW[value.dtype]
        return value.contiguous().view(integer).numpy().view(dtype)
    return value.resolve_conj().resolve_neg().numpy()


def _compare(wanted: list, got: list, case: TestCase) -> None:
    assert len(got) == len(wanted), f"{len(got)} outputs instead of {len(wanted)}"
    pairs = [(w, g) for w, g in zip(wanted, got, strict=True) if w is not None or g is not None]
    for w, g in pairs:
        assert w is not None, "an output instead of an absent optional"
        assert g is not None, "an absent optional instead of an output"
        assert isinstance(w, list | tuple) == isinstance(g, list | tuple), "sequence or not"
        if isinstance(g, list):
            assert len(g) == len(w), f"a sequence of {len(g)} instead of {len(w)}"
    # flat, since the suite's own comparison cannot take sequences of scalars
    theirs, ours = list(_flat([w for w, _ in pairs])), list(_flat([g for _, g in pairs]))
    with warnings.catch_warnings():
        warnings.simplefilter("ignore")  # comparing infinities and NaN
        Runner.assert_similar_outputs(theirs, ours, case.rtol, case.atol)


def _data(case: TestCase) -> Iterator[tuple[list, list, onnx.ModelProto]]:
    if case.kind == "real":
        yield _light(case)
    elif case.model is not None:
        for inputs, outputs in case.data_sets or []:
            yield [_normal(x) for x in inputs], [_normal(x) for x in outputs], case.model
    else:
        folder = Path(case.model_dir or "")
        model = onnx.load(folder / "model.onnx")
        for place in sorted(folder.glob("test_data_set*")):
            inputs = _stored(place, "input", [v.type for v in model.graph.input])
            yield inputs, _stored(place, "output", [v.type for v in model.graph.output]), model


def _normal(value: object) -> object:
    return numpy_helper.to_array(value) if isinstance(value, onnx.TensorProto) else value


def _stored(place: Path, what: str, types: list[onnx.TypeProto]) -> list:
    found = []
    for number, kind in enumerate(types):
        path = place / f"{what}_{number}.pb"
        if path.exists():
            data = path.read_bytes()
            if kind.HasField("sequence_type"):
                found.append(numpy_helper.to_list(onnx.SequenceProto.FromString(data)))
            elif kind.HasField("optional_type"):
                found.append(numpy_helper.to_optional(onnx.OptionalProto.FromString(data)))
            else:
                found.append(numpy_helper.to_array(onnx.TensorProto.FromString(data)))
    return found


def _light(case: TestCase) -> tuple[list, list, onnx.ModelProto]:
    """The input is the suite's ramp from 0 to 1, the output the one stored beside the model."""
    path = LIGHT / Path(case.url or "").name
    model = onnx.load(path)
    held = {x.name for x in model.graph.initializer}
    inputs = []
    for value in model.graph.input:
        if value.name not in held:
            shape = [d.dim_value for d in value.type.tensor_type.shape.dim]
            size = int(np.prod(shape))
            inputs.append((np.arange(size).reshape(shape) / size).astype(np.float32))
    stored = path.with_name(f"{path.stem}_output_0.pb").read_bytes()
    return inputs, [numpy_helper.to_array(onnx.TensorProto.FromString(stored))], model

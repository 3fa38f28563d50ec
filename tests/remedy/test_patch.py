"""A patched copy: valid ONNX that runs elsewhere, names kept, the original untouched."""

import numpy as np
import onnx
import onnx_ir
import onnxruntime
import pytest

from gradgauge.graph.init import Law
from gradgauge.graph.read_onnx import read_onnx
from gradgauge.remedy.patch import Redraw, Scale, Shift, SwapOp, SwapRecurrent, apply
from tests.handmade import made, node

RNG = np.random.default_rng(2)
STORED = {"W": RNG.normal(size=(4, 5)), "b": RNG.normal(size=5), "V": RNG.normal(size=(5, 3))}
NODES = [
    node("Gemm", "x W b", "h"),
    node("HardSigmoid", "h", "a", alpha=0.3),
    node("MatMul", "a V", "y"),
]


def patched(*changes, nodes=NODES, stored=None, inputs=None):
    model = read_onnx(made(nodes, inputs or {"x": ["N", 4]}, "y", stored or STORED)).model
    before = onnx_ir.to_proto(model).SerializeToString()
    proto = onnx_ir.to_proto(apply(model, changes))
    assert onnx_ir.to_proto(model).SerializeToString() == before
    onnx.checker.check_model(proto, full_check=True)
    return proto


def run(proto, x):
    session = onnxruntime.InferenceSession(
        proto.SerializeToString(), providers=["CPUExecutionProvider"]
    )
    return session.run(None, {"x": x.astype(np.float32)})[0]


def test_scale_shift_and_swap_do_in_onnxruntime_what_they_say():
    amounts = (1.0, 2.0, 3.0, 4.0, 5.0)
    proto = patched(Shift("b", amounts), Scale("W", 0.5), Scale("b", 0.5), SwapOp("a", "Relu"))
    x = RNG.normal(size=(7, 4))
    h = (x @ STORED["W"] + STORED["b"] + np.array(amounts)) / 2
    assert run(proto, x) == pytest.approx(np.maximum(h, 0) @ STORED["V"], abs=1e-5)


def test_names_and_types_are_kept_and_the_metadata_says_what_was_done():
    proto = patched(Scale("W", 2.0), SwapOp("a", "Relu"))
    original = onnx.load_from_string(made(NODES, {"x": ["N", 4]}, "y", STORED))
    for part in ("initializer", "node"):
        kept = [[held.name for held in getattr(m.graph, part)] for m in (original, proto)]
        assert kept[0] == kept[1]
    assert [t.data_type for t in proto.graph.initializer] == [1, 1, 1]
    assert not proto.graph.node[1].attribute
    (said,) = [p.value for p in proto.metadata_props if p.key == "gradgauge.patch"]
    assert said == "W * 2; a -> Relu"


def test_a_redraw_follows_its_law_and_its_seed():
    law = Law("he_normal", (64, 200), 200, 64)
    stored = {"W": np.zeros((64, 200)), "b": np.zeros(5)}
    model = read_onnx(
        made([node("Gemm", "x W", "y", transB=1)], {"x": ["N", 200]}, "y", {"W": stored["W"]})
    ).model
    held = [apply(model, [Redraw("W", law, seed)]) for seed in (1, 1, 2)]
    first, again, other = (m.graph.initializers["W"].const_value.numpy() for m in held)
    assert (first == again).all()
    assert (first != other).any()
    # He et al. 2015: variance 2 / fan_in
    assert first.std() == pytest.approx(np.sqrt(2 / 200), rel=0.03)


@pytest.mark.parametrize("kind", [np.float16, np.float64])
def test_other_number_types_stay_what_they_are(kind):
    code = onnx.helper.np_dtype_to_tensor_dtype(np.dtype(kind))
    model = onnx.load_from_string(
        made([node("MatMul", "x W", "y")], {"x": (code, ["N", 4])}, "y", {"W": np.zeros(1)})
    )
    model.graph.initializer[0].CopyFrom(onnx.numpy_helper.from_array(STORED["W"].astype(kind), "W"))
    model.graph.output[0].type.tensor_type.elem_type = code
    copy = onnx_ir.to_proto(apply(read_onnx(model.SerializeToString()).model, [Scale("W", 3.0)]))
    onnx.checker.check_model(copy, full_check=True)
    found = onnx.numpy_helper.to_array(copy.graph.initializer[0])
    assert found.dtype == kind
    assert found == pytest.approx(3 * STORED["W"], rel=2e-3)


@pytest.mark.parametrize(("direction", "count"), [("forward", 1), ("bidirectional", 2)])
def test_an_rnns_activation_is_changed_in_every_direction(direction, count):
    stored = {"W": RNG.normal(size=(count, 3, 4)), "R": RNG.normal(size=(count, 3, 3))}
    nodes = [
        node("RNN", "x W R", "Y", hidden_size=3, direction=direction),
        node("Identity", "Y", "y"),
    ]
    proto = patched(SwapRecurrent("Y", "Relu"), nodes=nodes, stored=stored, inputs={"x": [6, 2, 4]})
    x = RNG.normal(size=(6, 2, 4))
    y = run(proto, x)
    assert (y >= 0).all()
    # the first step of the forward direction, by hand
    assert y[0, 0] == pytest.approx(np.maximum(x[0] @ stored["W"][0].T, 0), abs=1e-5)

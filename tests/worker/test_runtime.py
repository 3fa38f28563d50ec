"""The check against onnxruntime in its second confined child, however that ends."""

import io
import subprocess
import sys
import time
import zipfile
from pathlib import Path

import numpy as np
import onnx
import onnx_ir
import pytest
import torch
from onnx import TensorProto, helper, numpy_helper

from gradgauge.graph.read_spec import read_spec
from gradgauge.sampled.executor import compile_graph
from gradgauge.worker import exchange, landlock, local, runtime, sandbox, spawn
from gradgauge.worker.forks import Zygote, ZygoteLost
from gradgauge.worker.frames import INPUTS, MODEL, OUTPUTS, Request
from tests.handmade import made, node, orthogonal

DYING = (sys.executable, "-P", str(Path(__file__).with_name("runtime_dying.py")))
QUICK = {"profile": "quick", "remediate": False}
SPEC = Path(__file__).parents[2] / "examples" / "deep-sigmoid.yaml"
MIB = 1 << 20


@pytest.fixture
def model(tmp_path):
    path = tmp_path / "net" / "model.onnx"
    path.parent.mkdir()
    nodes = [node("MatMul", "x W", "h"), node("Softplus", "h", "y")]
    path.write_bytes(made(nodes, {"x": ["N", 8]}, "y", {"W": orthogonal(8, 0)}))
    return path


@pytest.fixture
def asked(tmp_path):
    """A request as an analysis of the file makes it, and the arrays it leaves behind."""

    def ask(source, fed, **changed):
        folder = tmp_path / "exchange"
        folder.mkdir()
        base = Request(
            task="analyze", source=str(source), wall_s=240.0, **{"options": {}, **changed}
        )
        base = base.model_copy(
            update={"read_only": (str(Path(source).parent),), "memory_bytes": 2048 * MIB}
        )
        request = runtime.with_exchange(base, folder)
        exchange.write(folder / INPUTS, list(fed.items()))
        return request

    return ask


def outputs(request):
    return exchange.read(Path(request.exchange) / OUTPUTS)


def never():
    return False


def checked(path, **options):
    answer = local.analyze(str(path), {**QUICK, **options})
    assert "report" in answer, answer
    report = answer["report"]
    found = next(m for m in report["measurements"] if m["name"] == "onnxruntime_difference")
    return report, found


def test_an_upload_is_checked_and_agrees(model):
    report, found = checked(model)
    assert found["value"] < 1e-6
    assert report["summary"]["verdict"] == "pass"
    assert report["provenance"]["stage_ms"]["onnxruntime"] > 0


@pytest.mark.parametrize("handed_over", [True, False])
def test_a_spec_is_checked_with_the_weights_it_was_analysed_with(asked, handed_over):
    built = read_spec(SPEC, seed=5).model
    x = np.random.default_rng(0).standard_normal((4, 64)).astype(np.float32)
    exe = compile_graph(built)
    (name,) = exe.input_names
    proto = onnx_ir.serde.serialize_model(built).SerializeToString()
    beside = {MODEL: np.frombuffer(proto, np.uint8)} if handed_over else {}
    request = asked(SPEC, {**beside, name: x}, options={"seed": 5})
    assert runtime.answer(request, never).reason is None
    ((_, y),) = outputs(request)
    (ours,) = exe(torch.from_numpy(x))
    np.testing.assert_allclose(y, ours.detach().numpy(), rtol=1e-4, atol=1e-6)


def test_a_specs_analysis_hands_its_model_over():
    _, found = checked(SPEC, seed=5)
    assert found["value"] < 1e-5


def test_no_model_is_taken_in_place_of_an_upload(asked, model):
    zero = made([node("Mul", "x Z", "y")], {"x": ["N", 8]}, "y", {"Z": np.zeros(8, np.float32)})
    x = np.ones((2, 8), np.float32)
    request = asked(model, {MODEL: np.frombuffer(zero, np.uint8), "x": x})
    assert runtime.answer(request, never).reason is None
    ((_, y),) = outputs(request)
    np.testing.assert_allclose(y, np.log1p(np.exp(x @ orthogonal(8, 0))), rtol=1e-5)


def test_external_weights_are_read_beside_the_model_and_in_a_zip(model, tmp_path):
    kept = onnx.load(model)
    onnx.save(kept, model, save_as_external_data=True, location="w.bin", size_threshold=0)
    _, found = checked(model)
    assert found["value"] < 1e-6
    packed = io.BytesIO()
    with zipfile.ZipFile(packed, "w") as archive:
        for file in model.parent.iterdir():
            archive.write(file, file.name)
    zipped = tmp_path / "model.zip"
    zipped.write_bytes(packed.getvalue())
    _, found = checked(zipped)
    assert found["value"] < 1e-6


def test_a_model_onnxruntime_has_no_kernel_for_says_so_without_a_path(tmp_path):
    """Convolutions of float64: onnxruntime's CPU provider has none."""
    w = numpy_helper.from_array(np.ones((2, 1, 3, 3)), "w")
    graph = helper.make_graph(
        [node("Conv", "x w", "y")],
        "g",
        [helper.make_tensor_value_info("x", TensorProto.DOUBLE, ["N", 1, 8, 8])],
        [helper.make_tensor_value_info("y", TensorProto.DOUBLE, None)],
        [w],
    )
    kept = helper.make_model(graph, opset_imports=[helper.make_opsetid("", 18)], ir_version=8)
    path = tmp_path / "double.onnx"
    onnx.save(kept, path)
    report, found = checked(path)
    assert found["value"] is None
    (warning,) = [w for w in report["warnings"] if w["code"] == "W_FORWARD_NOT_COMPARED"]
    assert "Could not find an implementation for Conv" in warning["message"]
    assert str(tmp_path) not in str(report)
    assert report["summary"]["verdict"] in {"pass", "warn"}


@pytest.mark.parametrize(
    ("how", "says"),
    [("die", "onnxruntime died of SIGFPE"), ("lie", "the outputs are damaged")],
)
def test_whatever_becomes_of_onnxruntime_costs_no_analysis(model, monkeypatch, how, says):
    monkeypatch.setattr(runtime, "CHILD", (*DYING, how))
    report, found = checked(model)
    assert report["summary"]["verdict"] == "pass"
    assert found["value"] is None
    assert says in found["note"]


@pytest.mark.parametrize(
    ("how", "says"),
    [
        ("hang", "did not finish in time"),
        ("eat", "needs more memory"),
        ("flood", "could not be started on the model"),
    ],
)
def test_what_ended_onnxruntime_is_said(model, asked, monkeypatch, how, says):
    monkeypatch.setattr(runtime, "CHILD", (*DYING, how))
    monkeypatch.setattr(runtime, "_MOST_S", 3.0)
    began = time.monotonic()
    assert says in runtime.answer(asked(model, {}), never).reason
    assert time.monotonic() - began < 60


def test_a_model_that_kills_onnxruntime_is_survived_with_the_signals_name(asked, tmp_path):
    """INT_MIN / -1 in one node: onnxruntime dies of SIGFPE."""
    stored = {
        "a": np.array([np.iinfo(np.int32).min], np.int32),
        "b": np.array([-1], np.int32),
    }
    graph = onnx.load_model_from_string(made([node("Div", "a b", "y")], {"x": [1]}, "y", stored))
    graph.graph.output[0].type.tensor_type.elem_type = TensorProto.INT32
    path = tmp_path / "net.onnx"
    onnx.save(graph, path)
    request = asked(path, {"x": np.ones(1, np.float32)})
    assert runtime.answer(request, never).reason == "onnxruntime died of SIGFPE"


def test_a_fork_of_the_zygote_answers_as_a_spawned_child_does_and_as_confined(asked, model):
    x = np.random.default_rng(0).standard_normal((2, 8)).astype(np.float32)
    request, seen = asked(model, {"x": x}), []
    zygote = Zygote()

    def run(sent, **options):
        seen.append(zygote.run(sent, **options))
        return seen[-1]

    try:
        assert runtime.answer(request, never, run).reason is None
    finally:
        zygote.close()
    ((_, y),) = outputs(request)
    np.testing.assert_allclose(y, np.log1p(np.exp(x @ orthogonal(8, 0))), rtol=1e-5)
    assert seen[0].sandbox["one_thread"] == "on"
    assert landlock.version() == 0 or sandbox.missing(seen[0].sandbox) == []


def test_a_zygote_that_is_gone_costs_the_comparison_only(asked, model):
    def lost(_request, **_options):
        raise ZygoteLost("child_not_started", "the zygote is gone")

    assert runtime.answer(asked(model, {}), never, lost).reason == "the zygote is gone"


def test_bfloat16_goes_in_and_comes_out(asked, tmp_path):
    graph = onnx.load_model_from_string(made([node("Cast", "x", "y", to=1)], {"x": [4]}, "y"))
    graph.graph.input[0].type.tensor_type.elem_type = TensorProto.BFLOAT16
    path = tmp_path / "net.onnx"
    onnx.save(graph, path)
    x = np.array([1.0, -2.5, 3e38, 0.0], np.float32).astype(exchange._DTYPES["bfloat16"])
    request = asked(path, {"x": x})
    assert runtime.answer(request, never).reason is None
    ((name, y),) = outputs(request)
    assert name == "y"
    np.testing.assert_array_equal(y, x.astype(np.float32))


def test_the_second_child_is_confined_and_may_write_its_outputs_only(model, asked, monkeypatch):
    seen = []
    run = spawn.run

    def watched(request, **options):
        seen.append((request, run(request, **options)))
        return seen[-1][1]

    monkeypatch.setattr(spawn, "run", watched)
    request = asked(model, {"x": np.ones((2, 8), np.float32)})
    assert runtime.answer(request, never).reason is None
    ((sent, outcome),) = seen
    assert sent.require == sandbox.REQUIRED
    assert landlock.version() == 0 or sandbox.missing(outcome.sandbox) == []
    assert sent.writable == (str(Path(request.exchange) / OUTPUTS),)
    assert sent.threads == 1
    assert sent.memory_bytes is not None


@pytest.mark.skipif(landlock.version() == 0, reason="this kernel has no Landlock")
def test_the_second_child_can_write_nothing_else(model, asked, monkeypatch):
    monkeypatch.setattr(runtime, "CHILD", (*DYING, "break_out"))
    assert runtime.answer(asked(model, {}), never).reason is None
    assert {file.name for file in model.parent.iterdir()} == {"model.onnx"}


def test_a_cancelled_analysis_takes_the_second_child_along(model, asked, monkeypatch):
    monkeypatch.setattr(runtime, "CHILD", (*DYING, "hang"))
    began = time.monotonic()
    answer = runtime.answer(asked(model, {}), lambda: time.monotonic() > began + 1.5)
    assert "cancelled" in answer.reason
    assert time.monotonic() - began < 60


def test_onnxruntime_is_loaded_by_no_other_process():
    script = (
        "import sys; from gradgauge.worker import zygote, loop;"
        "print('torch' in sys.modules, 'onnxruntime' in sys.modules)"
    )
    command = [sys.executable, "-P", "-c", script]
    done = subprocess.run(
        command, env=spawn.environment(), capture_output=True, check=True, text=True
    )
    assert done.stdout == "True False\n"


def test_the_time_of_a_check_is_a_share_of_the_analysis_and_never_long():
    assert [runtime.limit_s(wall) for wall in (None, 600, 60, 1)] == [30, 30, 15, 5]


def test_arrays_survive_the_exchange_and_what_is_none_is_absent(tmp_path):
    path = tmp_path / "arrays"
    given = [
        ("a", np.arange(6, dtype=np.int64).reshape(2, 3).T),
        ("ü\n", np.array(True)),  # noqa: FBT003
        ("none", None),
        ("words", np.array(["x"], dtype=object)),
        ("empty", np.zeros((0, 3), np.float16)),
    ]
    exchange.write(path, given)
    got = exchange.read(path)
    assert [name for name, _ in got] == [name for name, _ in given]
    for (_, a), (name, b) in zip(given, got, strict=True):
        if name in {"none", "words"}:
            assert b is None
        else:
            np.testing.assert_array_equal(a, b)
            assert a.dtype == b.dtype


@pytest.mark.parametrize(
    "content",
    [
        b"",
        b"{}\n",
        b"[1]\n",
        b'[{"name": "y", "dtype": "object", "shape": [1]}]\n' + bytes(8),
        b'[{"name": "y", "dtype": "float32", "shape": [-1]}]\n',
        b'[{"name": "y", "dtype": "float32", "shape": [2]}]\n' + bytes(4),
        b'[{"name": "y", "dtype": "float32", "shape": [1]}]\n' + bytes(9),
        b"[" * 100_000,
    ],
    ids=["empty", "object", "number", "pickled", "negative", "short", "long", "deep"],
)
def test_what_was_not_written_by_us_is_damaged(tmp_path, content):
    path = tmp_path / "arrays"
    path.write_bytes(content)
    with pytest.raises(exchange.Damaged):
        exchange.read(path)


def test_a_question_nobody_may_ask_ends_the_child(model):
    asking = (
        "from gradgauge.worker import answer;"
        "answer.main({'analyze': lambda request, link: (link.ask(), link.answer())})"
    )
    request = Request(task="analyze", source=str(model), options={}, require=())
    outcome = spawn.run(request, wall_s=180, command=(sys.executable, "-P", "-c", asking))
    assert outcome.problem.code == "malformed_result"

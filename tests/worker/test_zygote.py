"""The real engine in a confined child: warm, single-threaded at the fork, reports that validate."""

import json
import math
import os
import sys
from pathlib import Path

import numpy as np
import onnx
import pytest
from onnx import TensorProto, helper

from gradgauge.schema.report import Report
from gradgauge.worker import forks, landlock, sandbox, spawn
from gradgauge.worker.frames import Request
from gradgauge.worker.memory import folder_bytes

SPEC = """gradgauge: 1
name: two-layers
input: {shape: [8]}
layers:
  - {type: dense, units: 16}
  - {type: activation, function: tanh}
  - {type: dense, units: 4}
"""
MIB = 1 << 20


@pytest.fixture(scope="module")
def zygote():
    zygote = forks.Zygote()
    yield zygote
    zygote.close()


@pytest.fixture(scope="module")
def folder(tmp_path_factory):
    folder = tmp_path_factory.mktemp("job")
    (folder / "spec.yaml").write_text(SPEC)
    (folder / "broken.onnx").write_bytes(b"\x08\x0anot a model")
    graph = helper.make_graph(
        [helper.make_node("MatMul", ["x", "w"], ["y"])],
        "matmul",
        [helper.make_tensor_value_info("x", TensorProto.FLOAT, [2, 3])],
        [helper.make_tensor_value_info("y", TensorProto.FLOAT, [2, 4])],
        [helper.make_tensor("w", TensorProto.FLOAT, [3, 4], [0.5] * 12)],
    )
    model = helper.make_model(graph, opset_imports=[helper.make_opsetid("", 17)], ir_version=8)
    onnx.save(model, folder / "matmul.onnx")
    return folder


def job(folder, name, *, task="analyze", **request):
    settings = {"options": {"profile": "quick", "seed": 1}, "memory_bytes": 512 * MIB} | request
    if landlock.version() == 0:
        settings["require"] = ()
    source = str(folder / name)
    return Request(task=task, source=source, read_only=(str(folder),), **settings)


def test_the_zygote_has_one_thread_once_everything_is_loaded(zygote):
    zygote.start()
    assert len(list(Path(f"/proc/{zygote.pid}/task").iterdir())) == 1


@pytest.mark.parametrize("threads", [1, 2])
def test_a_spec_is_analysed_in_a_confined_child(zygote, folder, threads):
    stages = []
    outcome = zygote.run(
        job(folder, "spec.yaml", threads=threads),
        wall_s=180,
        on_progress=lambda stage, _: stages.append(stage),
    )
    assert outcome.problem is None, outcome
    report = Report.model_validate_json(json.dumps(outcome.result))
    assert len(report.layers) >= 2
    assert stages[0] == "read"


def test_a_model_is_inspected_in_a_confined_child(zygote, folder):
    outcome = zygote.run(job(folder, "matmul.onnx", task="inspect"), wall_s=180)
    assert outcome.problem is None, outcome
    assert outcome.result["ops"] == {"MatMul": 1}
    assert outcome.result["param_count"] == 12


def test_what_is_no_model_is_the_callers_fault(zygote, folder):
    outcome = zygote.run(job(folder, "broken.onnx"), wall_s=180)
    assert outcome.problem.exit == 2
    assert str(folder) not in outcome.problem.model_dump_json()


def test_wrong_options_are_the_callers_fault(zygote, folder):
    outcome = zygote.run(job(folder, "spec.yaml", options={"sede": 1}), wall_s=180)
    assert outcome.problem.exit == 2
    assert "sede" in outcome.problem.model_dump_json()


def test_the_zygote_still_has_one_thread_after_its_jobs(zygote):
    assert len(list(Path(f"/proc/{zygote.pid}/task").iterdir())) == 1


def test_onnxruntime_runs_in_a_confined_child_of_its_own(folder):
    """Its import starts threads: the sandbox is entered first, and they start inside."""
    outcome = spawn.run(
        job(folder, "matmul.onnx", task="infer", memory_bytes=4096 * MIB, threads=2),
        wall_s=180,
        command=(sys.executable, "-P", str(Path(__file__).with_name("runtime_child.py"))),
    )
    assert outcome.problem is None, outcome
    assert outcome.result["shape"] == [2, 4]
    assert math.isclose(outcome.result["sum"], 12.0)
    assert landlock.version() == 0 or sandbox.missing(outcome.sandbox) == []


def test_a_model_that_fits_no_other_way_is_run_in_pieces(zygote, tmp_path):
    """80 values of 16 MiB under 512 MiB: a backward pass that kept them all would be stopped."""
    width, layers = 1 << 22, 40
    nodes, stored = [], []
    for i in range(layers):
        nodes += [
            helper.make_node("Mul", [f"t{i}" if i else "x", f"w{i}"], [f"m{i}"]),
            helper.make_node("Tanh", [f"m{i}"], [f"t{i + 1}"]),
        ]
        stored.append(helper.make_tensor(f"w{i}", TensorProto.FLOAT, [1], [1.1]))
    ends = [
        helper.make_tensor_value_info(name, TensorProto.FLOAT, [1, width])
        for name in ("x", f"t{layers}")
    ]
    graph = helper.make_graph(nodes, "wide", ends[:1], ends[1:], stored)
    onnx.save(
        helper.make_model(graph, opset_imports=[helper.make_opsetid("", 17)], ir_version=8),
        tmp_path / "wide.onnx",
    )
    options = {"profile": "quick", "engines": ["sampled"], "samples": 1, "remediate": False}
    outcome = zygote.run(job(tmp_path, "wide.onnx", options=options), wall_s=300)
    assert outcome.problem is None, outcome
    first = outcome.result["layers"][0]["sampled"]
    assert first["log10_grad_act"]["q50"] is not None


def chain(folder, width, layers):
    """Dense layers with ReLU of He weights, which lie in a data file beside the model."""
    rng = np.random.default_rng(0)
    nodes, stored = [], []
    with (folder / "weights").open("wb") as file:
        for i in range(layers):
            W = rng.standard_normal((width, width), dtype=np.float32) * np.float32(
                (2 / width) ** 0.5
            )
            held = TensorProto(name=f"W{i}", data_type=TensorProto.FLOAT, dims=W.shape)
            held.data_location = TensorProto.EXTERNAL
            for key, value in (("location", "weights"), ("offset", file.tell())):
                held.external_data.add(key=key, value=str(value))
            stored.append(held)
            file.write(W.tobytes())
            nodes.append(helper.make_node("MatMul", [f"h{i}", f"W{i}"], [f"a{i}"]))
            nodes.append(helper.make_node("Relu", [f"a{i}"], [f"h{i + 1}"]))
    ends = [
        helper.make_tensor_value_info(name, TensorProto.FLOAT, ["N", width])
        for name in ("h0", f"h{layers}")
    ]
    graph = helper.make_graph(nodes, "chain", ends[:1], ends[1:], stored)
    model = helper.make_model(graph, opset_imports=[helper.make_opsetid("", 17)], ir_version=8)
    (folder / "chain.onnx").write_bytes(model.SerializeToString())


@pytest.mark.slow
def test_weights_beside_the_model_and_their_gradients_take_no_memory(zygote, tmp_path):
    """16 weights of 16 MiB under 160 MiB: each copied once, or all gradients, would be 256."""
    chain(tmp_path, 2048, 16)
    options = {"profile": "quick", "engines": ["sampled"], "samples": 4, "remediate": False}
    asked = job(tmp_path, "chain.onnx", options=options, memory_bytes=160 * MIB)
    asked = asked.model_copy(update={"mapped_bytes": folder_bytes(tmp_path)})
    outcome = zygote.run(asked, wall_s=300)
    assert outcome.problem is None, outcome
    assert len(outcome.result["layers"]) >= 16
    assert outcome.peak_bytes < 160 * MIB


def test_a_data_file_that_shrinks_under_its_map_ends_that_child_alone(zygote, folder, tmp_path):
    chain(tmp_path, 256, 24)

    def shrink(stage, _share):
        if stage == "sampled":
            os.truncate(tmp_path / "weights", 0)

    options = {"profile": "standard", "remediate": False}
    asked = job(tmp_path, "chain.onnx", options=options)
    outcome = zygote.run(asked, wall_s=180, on_progress=shrink)
    assert outcome.problem is not None
    assert outcome.problem.message == "the analysis child died of SIGBUS"
    assert zygote.run(job(folder, "spec.yaml"), wall_s=180).problem is None


def test_an_analysis_is_cancelled_in_the_midst_of_a_stage(zygote, folder):
    layers = 40 * "  - {type: dense, units: 96}\n  - {type: activation, function: tanh}\n"
    deep = f"gradgauge: 1\nname: long\ninput: {{shape: [96]}}\nlayers:\n{layers}"
    (folder / "long.yaml").write_text(deep)
    passes_done = []

    def told(stage, share):
        if stage == "sampled" and share > 0.0:
            passes_done.append(share)

    options = {"profile": "deep", "engines": ["sampled"], "samples": 32}
    outcome = zygote.run(
        job(folder, "long.yaml", options=options),
        wall_s=300,
        on_progress=told,
        cancelled=lambda: bool(passes_done),
    )
    assert outcome.problem.code == "cancelled"
    assert max(passes_done) < 1.0

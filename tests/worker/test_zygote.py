"""The real engine in a confined child: warm, single-threaded at the fork, reports that validate."""

import json
import math
import sys
from pathlib import Path

import onnx
import pytest
from onnx import TensorProto, helper

from gradgauge.schema.report import Report
from gradgauge.worker import forks, landlock, sandbox, spawn
from gradgauge.worker.frames import Request

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
        wall_s=60,
        on_progress=lambda stage, _: stages.append(stage),
    )
    assert outcome.problem is None, outcome
    report = Report.model_validate_json(json.dumps(outcome.result))
    assert len(report.layers) >= 2
    assert stages[0] == "read"


def test_a_model_is_inspected_in_a_confined_child(zygote, folder):
    outcome = zygote.run(job(folder, "matmul.onnx", task="inspect"), wall_s=60)
    assert outcome.problem is None, outcome
    assert outcome.result["ops"] == {"MatMul": 1}
    assert outcome.result["param_count"] == 12


def test_what_is_no_model_is_the_callers_fault(zygote, folder):
    outcome = zygote.run(job(folder, "broken.onnx"), wall_s=60)
    assert outcome.problem.exit == 2
    assert str(folder) not in outcome.problem.model_dump_json()


def test_wrong_options_are_the_callers_fault(zygote, folder):
    outcome = zygote.run(job(folder, "spec.yaml", options={"sede": 1}), wall_s=60)
    assert outcome.problem.exit == 2
    assert "sede" in outcome.problem.model_dump_json()


def test_the_zygote_still_has_one_thread_after_its_jobs(zygote):
    assert len(list(Path(f"/proc/{zygote.pid}/task").iterdir())) == 1


def test_onnxruntime_runs_in_a_confined_child_of_its_own(folder):
    """Its import starts threads: the sandbox is entered first, and they start inside."""
    outcome = spawn.run(
        job(folder, "matmul.onnx", task="infer", memory_bytes=4096 * MIB, threads=2),
        wall_s=60,
        command=(sys.executable, "-P", str(Path(__file__).with_name("runtime_child.py"))),
    )
    assert outcome.problem is None, outcome
    assert outcome.result["shape"] == [2, 4]
    assert math.isclose(outcome.result["sum"], 12.0)
    assert landlock.version() == 0 or sandbox.missing(outcome.sandbox) == []

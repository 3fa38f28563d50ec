"""The engine without a server: what `gradgauge check --local` gets back."""

import os
import subprocess
import sys
from pathlib import Path

import pytest

from gradgauge.worker import local, sandbox, spawn

MISBEHAVING = (sys.executable, "-P", str(Path(__file__).with_name("misbehaving.py")))


@pytest.fixture(autouse=True)
def _fake_engine(monkeypatch):
    monkeypatch.setattr(spawn, "CHILD", MISBEHAVING)


def test_the_workers_side_loads_no_framework():
    """The worker's loop imports these; numpy or torch in it would start threads before a fork."""
    script = (
        "import sys; from gradgauge.worker import forks, local;"
        "heavy = {'torch', 'numpy', 'onnx', 'onnx_ir', 'onnxruntime'};"
        "print(sorted(heavy & set(sys.modules)))"
    )
    done = subprocess.run(
        [sys.executable, "-P", "-c", script],
        env=spawn.environment(),
        capture_output=True,
        check=True,
        text=True,
    )
    assert done.stdout == "[]\n"


@pytest.fixture
def model(tmp_path):
    path = tmp_path / "model.onnx"
    path.write_text("a model")
    return path


def test_a_report_comes_back_with_progress_on_the_way(model):
    seen = []
    answer = local.analyze(str(model), {"seed": 3}, on_progress=lambda *step: seen.append(step))
    assert answer["report"] == {"text": "a model", "options": {"seed": 3}}
    assert seen == [("read", 0.25), ("done", 1.0)]


def test_a_relative_path_means_the_callers_folder(model, monkeypatch):
    monkeypatch.chdir(model.parent)
    assert local.analyze("model.onnx", {})["report"]["text"] == "a model"


def test_a_data_file_reaches_the_child_by_its_absolute_path(model, monkeypatch):
    (model.parent / "batch.npz").write_bytes(b"x")
    monkeypatch.chdir(model.parent)
    answer = local.analyze(str(model), {"data": "batch.npz"})
    assert answer["report"]["options"] == {"data": str(model.parent / "batch.npz")}


@pytest.mark.parametrize(
    ("name", "says"),
    [
        ("missing.onnx", "No such file"),
        ("", "a directory"),
        ("fifo", "not a regular file"),
        ("nul\0byte", "not a path"),
    ],
)
def test_what_is_no_readable_file_is_the_callers_fault(tmp_path, name, says):
    os.mkfifo(tmp_path / "fifo")
    problem = local.analyze(f"{tmp_path}/{name}", {})["problem"]
    assert (problem["code"], problem["exit"]) == ("unreadable_file", 2)
    assert says in problem["message"]
    assert problem["where"] == f"{tmp_path}/{name}"


def test_a_missing_data_file_is_named_as_such(model):
    problem = local.analyze(str(model), {"data": str(model) + ".npz"})["problem"]
    assert "the data file" in problem["message"]
    assert problem["exit"] == 2


def test_the_state_of_the_sandbox_comes_with_the_report(model):
    told = local.analyze(str(model), {})["sandbox"]
    assert set(sandbox.REQUIRED) <= set(told["layers"])
    assert told["complete"] == (not told["warnings"])


def test_an_incomplete_sandbox_is_a_warning_and_no_obstacle(model, monkeypatch):
    breakout = str(Path(__file__).with_name("misbehaving.py"))
    monkeypatch.setattr(spawn, "CHILD", (sys.executable, "-P", breakout, "--unconfined"))
    answer = local.analyze(str(model), {})
    assert answer["report"]["text"] == "a model"
    assert answer["sandbox"]["complete"] is False
    assert "landlock: missing: no kernel for it" in answer["sandbox"]["warnings"]


def test_a_model_behind_a_symbolic_link_is_read(model):
    link = model.parent / "elsewhere" / "link.onnx"
    link.parent.mkdir()
    link.symlink_to(model)
    assert local.analyze(str(link), {})["report"]["text"] == "a model"


@pytest.mark.parametrize("how", ["argument", "options"])
def test_the_time_limit_is_the_callers(model, monkeypatch, how):
    monkeypatch.setattr(spawn, "CHILD", (*MISBEHAVING, "spin"))
    given = {"time_limit_s": 1.0}
    answer = (
        local.analyze(str(model), {}, **given)
        if how == "argument"
        else local.analyze(str(model), given)
    )
    assert answer["problem"]["code"] == "time_limit"
    assert answer["problem"]["exit"] == 5

"""`gradgauge export`: a valid model, and a reason where there is none."""

import json
import sys

import numpy as np
import onnx
import onnxruntime
import pytest

from gradgauge.cli.exporter import export
from tests.service import ROOT

EXAMPLES = sorted((ROOT / "examples").glob("*.yaml"))


@pytest.mark.parametrize("path", EXAMPLES, ids=lambda path: path.stem)
def test_an_example_becomes_a_model_that_onnxruntime_runs(path, tmp_path, capsys):
    out = tmp_path / "model.onnx"
    assert export([str(path), "-o", str(out)]) == 0
    onnx.checker.check_model(str(out), full_check=True)
    session = onnxruntime.InferenceSession(str(out), providers=["CPUExecutionProvider"])
    (given,) = session.get_inputs()
    shape = [3, *given.shape[1:]]
    x = np.zeros(shape, np.int64 if given.type == "tensor(int64)" else np.float32)
    (y,) = session.run(None, {"input": x})
    assert np.isfinite(y).all()
    told = capsys.readouterr()
    assert told.out == ""
    assert f"{out}: opset" in told.err


def test_a_seed_draws_other_weights_and_the_same_seed_the_same(tmp_path):
    written = []
    for i, seed in enumerate(("0", "1", "0")):
        out = tmp_path / f"{i}.onnx"
        assert export([str(EXAMPLES[0]), "-o", str(out), "--seed", seed]) == 0
        written.append(out.read_bytes())
    assert written[0] == written[2] != written[1]


def test_another_tools_description_is_exported(tmp_path):
    config = {"model_type": "gpt2", "n_embd": 8, "n_layer": 1, "n_head": 2, "vocab_size": 20}
    path = tmp_path / "config.json"
    path.write_text(json.dumps(config))
    assert export([str(path), "-o", str(tmp_path / "gpt2.onnx")]) == 0
    onnx.checker.check_model(str(tmp_path / "gpt2.onnx"), full_check=True)


@pytest.mark.parametrize(
    ("layers", "code", "says"),
    [
        ("{type: dense, unit: 3}", 2, "layers[0].unit"),
        ("{type: repeat, times: 1000000, layers: [{type: flatten}]}", 5, "at most 100,000"),
    ],
)
def test_a_spec_that_cannot_be_built_is_explained(layers, code, says, tmp_path, capsys):
    path = tmp_path / "spec.yaml"
    path.write_text(f"gradgauge: 1\ninput: {{shape: [4]}}\nlayers: [{layers}]")
    assert export([str(path), "-o", str(tmp_path / "out.onnx")]) == code
    assert says in capsys.readouterr().err
    assert not (tmp_path / "out.onnx").exists()


def test_a_file_that_cannot_be_written_is_explained(tmp_path, capsys):
    out = tmp_path / "nowhere" / "out.onnx"
    assert export([str(EXAMPLES[0]), "-o", str(out)]) == 1
    assert f"cannot write {out}" in capsys.readouterr().err


def test_without_the_engine_it_says_what_to_install(monkeypatch, tmp_path, capsys):
    monkeypatch.setitem(sys.modules, "gradgauge.graph.read_spec", None)
    monkeypatch.delattr("gradgauge.graph.read_spec", raising=False)
    assert export([str(EXAMPLES[0]), "-o", str(tmp_path / "out.onnx")]) == 2
    assert 'pip install "gradgauge[worker]"' in capsys.readouterr().err

"""The installed `gradgauge` command on real files: what it prints, where, and how it exits."""

import json
import subprocess
import sys
from pathlib import Path

import numpy as np
import onnx
import pytest

ROOT = Path(__file__).parents[2]
COMMAND = Path(sys.executable).with_name("gradgauge")


def check(*words: str | Path) -> subprocess.CompletedProcess[str]:
    return subprocess.run(
        [COMMAND, "check", "--local", *map(str, words)],
        capture_output=True,
        text=True,
        timeout=120,
        check=False,
    )


def strange_op(path: Path) -> Path:
    x = onnx.helper.make_tensor_value_info("x", 1, ["N", 8])
    y = onnx.helper.make_tensor_value_info("y", 1, ["N", 8])
    W = onnx.numpy_helper.from_array(np.eye(8, dtype=np.float32), "W")
    nodes = [
        onnx.helper.make_node("MatMul", ["x", "W"], ["a"]),
        onnx.helper.make_node("StrangeOp", ["a"], ["y"], domain="my.ops"),
    ]
    graph = onnx.helper.make_graph(nodes, "g", [x], [y], [W])
    imports = [onnx.helper.make_opsetid("", 17), onnx.helper.make_opsetid("my.ops", 1)]
    onnx.save(onnx.helper.make_model(graph, opset_imports=imports, ir_version=8), path)
    return path


def spec(path: Path, text: str) -> Path:
    path.write_text(text)
    return path


def written(path: Path, data: bytes) -> Path:
    path.write_bytes(data)
    return path


EXAMPLE = ROOT / "examples" / "pre-ln-transformer.onnx"
BROKEN = {
    "empty file": (lambda d: written(d / "a.onnx", b""), 2, "the file is empty"),
    "random bytes": (
        lambda d: written(d / "a.onnx", np.random.default_rng(0).bytes(4096)),
        2,
        "not an ONNX model",
    ),
    "truncated model": (
        lambda d: written(d / "a.onnx", EXAMPLE.read_bytes()[:100_000]),
        2,
        "ends inside a field",
    ),
    "misspelt spec field": (
        lambda d: spec(
            d / "a.yaml",
            "gradgauge: 1\nname: x\ninput: {shape: [8]}\nlayers:\n  - {type: dense, unts: 3}\n",
        ),
        2,
        "did you mean 'units'?",
    ),
    "unknown op": (lambda d: strange_op(d / "a.onnx"), 3, "StrangeOp"),
}


@pytest.mark.parametrize("kind", BROKEN)
def test_bad_input_gets_its_message_and_exit_code_and_no_traceback(kind, tmp_path):
    make, code, words = BROKEN[kind]
    done = check(make(tmp_path), "--profile", "quick")
    assert done.returncode == code, done.stderr
    assert words in done.stdout + done.stderr
    assert "Traceback" not in done.stdout + done.stderr


def test_two_examples_are_judged_and_the_worst_decides_the_exit_code():
    done = check(ROOT / "examples" / "deep-sigmoid.yaml", EXAMPLE, "--profile", "quick")
    assert done.returncode == 1
    assert "FAIL  deep-sigmoid" in done.stdout
    assert "PASS  pre-ln-transformer" in done.stdout
    assert "GF101" in done.stdout


def test_json_goes_to_stdout_and_html_to_its_file(tmp_path):
    page = tmp_path / "report.html"
    done = check(EXAMPLE, "--profile", "quick", "--format", "json", "--format", f"html:{page}")
    assert done.returncode == 0
    report = json.loads(done.stdout)
    assert report["summary"]["verdict"] == "pass"
    assert "<svg" in page.read_text()
    assert "://" not in page.read_text().replace("http://www.w3.org", "")

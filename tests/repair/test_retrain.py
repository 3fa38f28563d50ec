"""An exported network trains as the benchmark's own stacked runs of it do."""

import math

import numpy as np
import onnx_ir
import pytest
from benchmarks.repair.retrain import retrain
from benchmarks.trainability import train as stacked
from benchmarks.trainability.data import batches, pool
from benchmarks.trainability.export import export
from benchmarks.trainability.measure import ROWS
from benchmarks.trainability.specs import spec

from gradgauge.graph.read_onnx import read_onnx
from gradgauge.graph.reading import read


@pytest.mark.parametrize("number", [0, 2])
def test_the_losses_are_those_of_the_stacked_run(number, tmp_path, monkeypatch):
    one = spec(number)
    for module in (stacked, "benchmarks.repair.retrain"):
        steps = {one["family"]: 12}
        if isinstance(module, str):
            monkeypatch.setattr(f"{module}.STEPS", steps)
        else:
            monkeypatch.setattr(module, "STEPS", steps)
    x, y = pool(one)
    taken = batches(one, ROWS, 1, order=9)[0]
    np.savez(tmp_path / "batch.npz", x=x[taken], y=y[taken])
    model = read_onnx(export(one)).model
    reading = read(model, data=tmp_path / "batch.npz")
    assert isinstance(model, onnx_ir.Model)
    own = retrain(model, reading, one, 0.2, rates=(0.01,))
    theirs = stacked.train(one)["runs"][1]
    assert (theirs["optimizer"], theirs["lr"]) == ("sgd", 0.01)
    ours = float(np.mean(own.curve[-stacked.TAIL :]))
    assert math.isfinite(ours)
    assert ours == pytest.approx(theirs["end"], rel=2e-3)
    assert own.curve[:: max(1, len(own.curve) // 8)] == pytest.approx(theirs["curve"], rel=2e-3)

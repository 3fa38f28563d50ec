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
from gradgauge.sampled.trial import Trial


@pytest.mark.parametrize(("number", "setting", "place"), [
    (0, Trial(0.01), 1), (2, Trial(0.01), 1), (0, Trial(0.002, optimizer="adam"), 4),
])  # fmt: skip
def test_the_losses_are_those_of_the_stacked_run(number, setting, place, tmp_path, monkeypatch):
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
    monkeypatch.setattr("benchmarks.repair.retrain.RATES", {setting.optimizer: (setting.lr,) * 3})
    own = retrain(model, reading, one, 0.2, setting=setting)
    assert own.rate == setting.lr
    theirs = stacked.train(one)["runs"][place]
    assert (theirs["optimizer"], theirs["lr"]) == (setting.optimizer, setting.lr)
    ours = float(np.mean(own.curve[-stacked.TAIL :]))
    assert math.isfinite(ours)
    assert ours == pytest.approx(theirs["end"], rel=2e-3)
    assert own.curve[:: max(1, len(own.curve) // 8)] == pytest.approx(theirs["curve"], rel=2e-3)

"""The benchmark's networks are one and the same in training, as ONNX and on paper."""

import numpy as np
import onnx
import onnxruntime
import pytest
import torch
from benchmarks.trainability import train
from benchmarks.trainability.data import batches, outputs, pool
from benchmarks.trainability.export import export
from benchmarks.trainability.nets import forward
from benchmarks.trainability.specs import ORDER, TRIES, hidden, spec
from benchmarks.trainability.stacked import Stacked, fed
from benchmarks.trainability.weights import weights
from onnx.reference import ReferenceEvaluator
from torch import nn

RUNS = 2


def stacked(one, x):
    held, frozen = weights(one)
    params = {k: torch.from_numpy(v).expand(RUNS, *v.shape) for k, v in held.items()}
    tape = Stacked(params, frozen, RUNS)
    return forward(one, tape, fed(torch.from_numpy(x)[None], one["family"], RUNS, RUNS))


@pytest.mark.parametrize("number", range(2 * len(ORDER)))
def test_every_run_computes_what_onnx_runtimes_make_of_the_export(number):
    one = spec(number)
    x = pool(one)[0][:16]
    model = onnx.load_from_string(export(one))
    if one["norm"] == "bn" and not weights(one)[1]:
        _train_mode(model)
        (y,) = ReferenceEvaluator(model).run(None, {"x": x})
    else:
        session = onnxruntime.InferenceSession(
            model.SerializeToString(), providers=["CPUExecutionProvider"]
        )
        (y,) = session.run(None, {"x": x})
    assert y.shape == (16, outputs(one))
    for z in stacked(one, x):
        assert z.numpy() == pytest.approx(y, rel=2e-3, abs=2e-3 * float(np.abs(y).max()))


def _train_mode(model):
    for node in model.graph.node:
        if node.op_type == "BatchNormalization":
            node.attribute.append(onnx.helper.make_attribute("training_mode", 1))
            node.output.extend([f"{node.output[0]}_mean", f"{node.output[0]}_var"])


@pytest.mark.parametrize("place", range(len(TRIES)))
def test_a_run_is_torchs_own_optimiser(monkeypatch, place):
    one = spec(5) | {"depth": 2, "fault": None, "init": "he"}
    monkeypatch.setitem(train.STEPS, "mlp", 12)
    ours = train.train(one)["runs"][place]
    net = nn.Sequential(
        nn.Linear(64, one["width"]), nn.ReLU(), nn.Linear(one["width"], one["width"]), nn.ReLU(),
        nn.Linear(one["width"], outputs(one)),
    )  # fmt: skip
    held, _ = weights(one)
    with torch.no_grad():
        for parameter, w in zip(net.parameters(), held.values(), strict=True):
            parameter.copy_(torch.from_numpy(w))
    name, lr = TRIES[place]
    kinds = {"sgd": torch.optim.SGD, "adam": torch.optim.Adam}
    steps = kinds[name](net.parameters(), lr=lr, **({"momentum": 0.9} if name == "sgd" else {}))
    x, y = (torch.from_numpy(v) for v in pool(one))
    losses = []
    for taken in batches(one, train.BATCH, 12):
        loss = nn.functional.cross_entropy(net(x[taken]), y[taken])
        losses.append(loss.item())
        steps.zero_grad()
        loss.backward()
        steps.step()
    assert ours["end"] == pytest.approx(np.mean(losses[-train.TAIL :]), rel=2e-3)


def test_a_number_is_one_network_and_a_fault_lies_in_a_layer_it_has():
    specs = [spec(number) for number in range(240)]
    assert specs == [spec(number) for number in range(240)]
    planted = [one for one in specs if one["fault"]]
    assert {one["fault"]["kind"] for one in planted} >= {
        "dead", "saturated", "huge", "tiny", "symmetric", "rank1", "zero_head", "zero_branch",
        "input_scale", "frozen_norm",
    }  # fmt: skip
    for one in planted:
        assert one["fault"]["layer"] in {*hidden(one), "out", "n*", ""}


def test_a_second_order_is_another_one_of_the_same_examples():
    one = spec(3)
    first, second = (np.concatenate(batches(one, 64, 32, order=k)) for k in (0, 1))
    whole = len(pool(one)[1])
    assert (first != second).any()
    assert sorted(first[:whole]) == sorted(second[:whole])

"""PyTorch modules in place of files."""

import numpy as np
import onnx
import onnxruntime
import pytest
import torch
from torch import nn

from gradgauge_client import GradgaugeError, _here
from gradgauge_client._module import file_of


class Masked(nn.Module):
    """Inputs by name, one left out, a flag."""

    def __init__(self):
        super().__init__()
        self.embed, self.head = nn.Embedding(7, 4), nn.Linear(4, 3)

    def forward(self, input_ids, attention_mask=None, *, token_type_ids=None, scale=1.0):
        x = self.embed(input_ids) * attention_mask[..., None] * scale
        x = x if token_type_ids is None else x + self.embed(token_type_ids)
        return self.head(x)


class Branching(nn.Module):
    """No exporter follows it: what runs is chosen by values, outside the graph."""

    def forward(self, x):
        raise RuntimeError(f"chosen by {x.shape[0]} rows")


def normed():
    return nn.Sequential(nn.Conv2d(3, 4, 3), nn.BatchNorm2d(4), nn.Dropout(0.5), nn.ReLU())


def run(path, *inputs):
    session = onnxruntime.InferenceSession(path, providers=["CPUExecutionProvider"])
    names = [each.name for each in session.get_inputs()]
    return names, session.run(None, dict(zip(names, [x.numpy() for x in inputs], strict=True)))[0]


def test_a_path_stays_one(tmp_path):
    with file_of(str(tmp_path / "net.onnx")) as path:
        assert path == tmp_path / "net.onnx"


def test_onnxruntime_computes_what_the_module_does():
    torch.random.manual_seed(0)
    net, x = nn.Sequential(nn.Linear(5, 6), nn.LayerNorm(6), nn.GELU()), torch.randn(3, 5)
    with file_of(net, x) as path:
        assert path.name == "Sequential.onnx"
        names, got = run(path, x)
    assert not path.exists()
    assert names == ["input"]
    np.testing.assert_allclose(got, net(x).detach().numpy(), rtol=1e-5, atol=1e-6)


def test_arguments_by_name_keep_their_names():
    ids, mask = torch.arange(6).reshape(2, 3), torch.ones(2, 3)
    net = Masked()
    given = {"attention_mask": mask, "input_ids": ids, "scale": 2.0}
    with file_of(net, given) as path:
        names, got = run(path, ids, mask)
    assert names == ["input_ids", "attention_mask"]
    np.testing.assert_allclose(got, net(**given).detach().numpy(), rtol=1e-5, atol=1e-6)


@pytest.mark.parametrize("traced", [True, False])
def test_it_is_exported_as_it_trains_and_left_as_it_was(monkeypatch, traced):
    if not traced:
        whole = torch.onnx.export

        def without_trace(*args, dynamo, **options):
            if not dynamo:
                raise RuntimeError("the older exporter is gone")
            return whole(*args, dynamo=dynamo, **options)

        monkeypatch.setattr(torch.onnx, "export", without_trace)
    net = normed().eval()
    net[0].train()
    before = {name: value.clone() for name, value in net.state_dict().items()}
    drawn = torch.random.get_rng_state()
    with file_of(net, torch.randn(2, 3, 8, 8, generator=torch.Generator().manual_seed(1))) as path:
        model = onnx.load(path)
    assert [each.training for each in net.modules()] == [False, True, False, False, False]
    assert torch.equal(drawn, torch.random.get_rng_state())
    assert all(torch.equal(value, before[name]) for name, value in net.state_dict().items())
    norm = next(node for node in model.graph.node if node.op_type == "BatchNormalization")
    # the newer exporter keeps the norm and does not say that it trains
    assert [a.i for a in norm.attribute if a.name == "training_mode"] == [1] * traced
    weight = next(i for i in model.graph.initializer if i.name.endswith("0.weight"))
    np.testing.assert_array_equal(onnx.numpy_helper.to_array(weight), net[0].weight.detach())


@pytest.mark.parametrize(
    ("model", "given", "says"),
    [
        (nn.Linear(2, 2), None, "example_inputs"),
        (nn.Linear(2, 2), (), "missing a required argument"),
        (nn.Linear(2, 2), {"x": torch.zeros(1, 2)}, "input"),
        (nn.Linear(2, 2), 3, "a tensor, a sequence or a mapping"),
        ({"weights": 1}, None, "not dict"),
    ],
)
def test_what_cannot_be_run_is_a_type_error(model, given, says):
    with pytest.raises(TypeError, match=says), file_of(model, given):
        pass


def test_a_module_that_no_exporter_follows_says_so():
    with (
        pytest.raises(GradgaugeError, match=r"Branching.*TorchScript: chosen by 2 rows; torch"),
        file_of(Branching(), torch.zeros(2, 3)),
    ):
        pass


def test_a_module_is_uploaded_and_analysed(client, service):
    report = client.check(nn.Linear(5, 6), torch.zeros(2, 5), fail_on="never")
    assert report.summary.headline
    sent = next(s for s in service.seen if (s.method, s.path) == ("POST", "/v1/models"))
    assert sent.query["name"] == "Linear.onnx"
    onnx.checker.check_model(onnx.load_from_string(sent.body))


def test_the_engine_here_analyses_a_module():
    torch.random.manual_seed(0)
    block = [each for _ in range(12) for each in (nn.Linear(16, 16), nn.Sigmoid())]
    options = {"profile": "quick", "remediate": False}
    report = _here.check(nn.Sequential(*block), options, "never", torch.randn(8, 16))
    assert report.findings[0].rule_id == "GF101"
    assert "/10/Gemm" in {layer.name for layer in report.layers}

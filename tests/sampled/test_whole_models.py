"""Exported networks, by both exporters, against native torch and against onnxruntime."""

import copy
from functools import cache

import numpy as np
import onnxruntime
import pytest
import torch
from torch import Tensor, nn

from gradgauge.sampled.executor import compile_graph
from tests import nets
from tests.exports import Export, export
from tests.native import ByValue, compare, difference, gradients

_RNG = torch.Generator().manual_seed(3)


def _normal(*shape: int) -> Tensor:
    return torch.randn(*shape, generator=_RNG)


_IDS = torch.randint(0, 11, (2, 6), generator=_RNG)
NETS = {
    "mlp": (nets.mlp, _normal(3, 6)),
    "gelu_mlp": (lambda: nets.mlp(nn.GELU()), _normal(3, 6)),
    "cnn": (nets.cnn, _normal(2, 3, 12, 12)),
    "resnet18": (nets.resnet18, _normal(2, 3, 32, 32)),
    "mobilenet": (nets.mobilenet, _normal(2, 3, 10, 10)),
    "rnn": (lambda: nets.Recurrent("RNN"), _normal(2, 5, 3)),
    "relu_rnn": (
        lambda: nets.Recurrent("RNN", nonlinearity="relu", bidirectional=True),
        _normal(2, 5, 3),
    ),
    "gru": (lambda: nets.Recurrent("GRU", num_layers=2), _normal(2, 5, 3)),
    "lstm": (
        lambda: nets.Recurrent("LSTM", num_layers=2, bidirectional=True),
        _normal(2, 5, 3),
    ),
    "plain_lstm": (lambda: nets.Recurrent("LSTM", bias=False), _normal(2, 5, 3)),
    "encoder": (lambda: nets.Transformer(decoder=False), _IDS),
    "decoder": (lambda: nets.Transformer(decoder=True), _IDS),
    "encoder_layer": (nets.encoder_layer, _normal(2, 5, 16)),
}
# torch cannot export these
UNEXPORTABLE = {
    ("encoder_layer", "torchscript"),  # scaled_dot_product_attention: is_causal must be bool
    ("decoder", "torchscript", 13),  # aten::tril came with opset 14
}
# attributes hold float32 only: HardSwish-13 is a HardSigmoid of slope 1/6, off by 1e-9
INEXACT = {("mobilenet", "torchscript", 13)}
# the dynamo exporter takes seconds: at its other opsets, one net of a kind
_QUICK = {"cnn", "lstm", "encoder"}
_OFTEN = {"dynamo": {23}, "torchscript": {13, 17, 20}}


def _grid(*settings):
    return [
        pytest.param(
            name,
            exporter,
            opset,
            id=f"{name}-{exporter}{opset}",
            marks=() if name in _QUICK or opset in _OFTEN[exporter] else pytest.mark.slow,
        )
        for name in NETS
        for exporter, opset in settings
        if not {(name, exporter), (name, exporter, opset)} & UNEXPORTABLE
    ]


@cache
def _exported(name: str, exporter: str, opset: int, dtype: torch.dtype) -> Export:
    """Batch normalisation kept unfused, so that every parameter is still stored."""
    make, x = NETS[name]
    net = nets.seeded(make()).to(dtype)
    inputs = (x.to(dtype) if x.is_floating_point() else x,)
    return export(net, inputs, exporter=exporter, opset=opset, optimize=not _normed(net))


def _normed(net: nn.Module) -> bool:
    return any(isinstance(m, nn.BatchNorm2d) for m in net.modules())


def _close(mine: Tensor, native: Tensor) -> None:
    assert difference(mine, native) <= 1e-9


def _same_gradients(ours: ByValue, native: ByValue, net: nn.Module) -> None:
    compared = compare(ours, native, net)
    assert not compared.unmapped
    assert compared.error <= 1e-9, compared.worst


@pytest.mark.parametrize(
    ("name", "exporter", "opset"),
    _grid(("torchscript", 13), ("torchscript", 20), ("dynamo", 18), ("dynamo", 23)),
)
def test_outputs_and_all_gradients_are_native_torchs_in_float64(name, exporter, opset):
    if (name, exporter, opset) in INEXACT:
        opset = 14
    exported = _exported(name, exporter, opset, torch.float64)
    net = exported.native
    xs = [x.clone().requires_grad_(x.is_floating_point()) for x in exported.inputs]
    floats = [x for x in xs if x.requires_grad]
    exe = compile_graph(exported.model)

    ours, native = exe(*xs), [net(*xs)]
    for mine, theirs in zip(ours, native, strict=True):
        assert mine.dtype == torch.float64
        _close(mine, theirs)

    leaves = list(exe.initializers.values())
    parameters = list(net.parameters())
    mine = gradients(ours, leaves + floats)
    theirs = gradients(native, parameters + floats)
    for a, b in zip(mine[len(leaves) :], theirs[len(parameters) :], strict=True):
        _close(a, b)
    _same_gradients(
        ByValue(leaves, mine[: len(leaves)]),
        ByValue(parameters, theirs[: len(parameters)]),
        net,
    )


@pytest.mark.parametrize(("name", "exporter", "opset"), _grid(("torchscript", 17), ("dynamo", 20)))
def test_the_float32_forward_is_onnxruntimes(name, exporter, opset):
    exported = _exported(name, exporter, opset, torch.float32)
    exe = compile_graph(exported.model)
    with torch.no_grad():
        ours = exe(*exported.inputs)
    session = onnxruntime.InferenceSession(
        exported.model.SerializeToString(), providers=["CPUExecutionProvider"]
    )
    feed = dict(zip(exe.input_names, (x.numpy() for x in exported.inputs), strict=True))
    for mine, theirs in zip(ours, session.run(None, feed), strict=True):
        assert mine.dtype == torch.float32
        assert np.abs(mine.numpy() - theirs).max() <= 1e-4 * np.abs(theirs).max()


@pytest.mark.parametrize("name", ["mlp", "cnn", "resnet18", "lstm", "gru", "relu_rnn"])
def test_a_float32_model_run_in_float64_is_the_module_in_float64(name):
    exported = _exported(name, "torchscript", 17, torch.float32)
    native = copy.deepcopy(exported.native).double()
    (x,) = exported.inputs
    (y,) = compile_graph(exported.model, dtype=torch.float64)(x)
    assert y.dtype == torch.float64
    _close(y, native(x.double()))


@pytest.mark.parametrize("exporter", ["torchscript", "dynamo"])
def test_casts_and_shapes_in_a_transformer_stay_float64(exporter):
    exported = _exported("encoder", exporter, 20, torch.float32)
    (y,) = compile_graph(exported.model, dtype=torch.float64)(*exported.inputs)
    _close(y, copy.deepcopy(exported.native).double()(*exported.inputs))


def test_batch_statistics_are_those_of_the_module_in_training_mode():
    exported = _exported("resnet18", "torchscript", 17, torch.float64)
    (x,) = exported.inputs
    native = copy.deepcopy(exported.native).train()
    exe = compile_graph(exported.model, training=True)
    ours, theirs = exe(x), [native(x)]
    _close(ours[0], theirs[0])
    leaves, parameters = list(exe.initializers.values()), list(native.parameters())
    _same_gradients(
        ByValue(leaves, gradients(ours, leaves)),
        ByValue(parameters, gradients(theirs, parameters)),
        native,
    )


def test_norms_fused_into_convolutions_still_compute_the_same():
    net = nets.seeded(nets.cnn()).double()
    x = NETS["cnn"][1].double().requires_grad_()
    exported = export(net, (x.detach(),), exporter="dynamo", opset=20)
    assert "BatchNormalization" not in {n.op_type for n in exported.model.graph.node}
    ours, theirs = compile_graph(exported.model)(x), [net(x)]
    _close(ours[0], theirs[0])
    _close(gradients(ours, [x])[0], gradients(theirs, [x])[0])


@pytest.mark.parametrize("exporter", ["torchscript", "dynamo"])
@pytest.mark.parametrize("name", ["cnn", "lstm", "encoder"])
def test_a_dynamic_batch_takes_another_size(name, exporter):
    make, x = NETS[name]
    net = nets.seeded(make()).double()
    x = x.double() if x.is_floating_point() else x
    exported = export(net, (x,), exporter=exporter, opset=18, dynamic_batch=True)
    larger = torch.cat([x, x.flip(0), x])
    (y,) = compile_graph(exported.model)(larger)
    _close(y, net(larger))

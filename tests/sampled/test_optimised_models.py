"""Graphs as onnxruntime's optimiser and quantisers leave them, against onnxruntime itself."""

import warnings

import numpy as np
import onnx
import onnxruntime
import pytest
import torch
from onnxruntime.quantization import (
    CalibrationDataReader,
    QuantFormat,
    quantize_dynamic,
    quantize_static,
)

from gradgauge.sampled.executor import compile_graph
from tests import nets
from tests.exports import export

_RNG = torch.Generator().manual_seed(5)
_BATCH = torch.randn(3, 6, generator=_RNG)
_IMAGES = torch.randn(2, 3, 12, 12, generator=_RNG)
_IDS = torch.randint(0, 11, (2, 6), generator=_RNG)


def _session(model: onnx.ModelProto, path=None) -> onnxruntime.InferenceSession:
    options = onnxruntime.SessionOptions()
    options.log_severity_level = 4
    options.intra_op_num_threads = 1
    if path is not None:
        options.graph_optimization_level = onnxruntime.GraphOptimizationLevel.ORT_ENABLE_EXTENDED
        options.optimized_model_filepath = str(path)
    return onnxruntime.InferenceSession(
        model.SerializeToString(), options, providers=["CPUExecutionProvider"]
    )


def _theirs(model: onnx.ModelProto, x: torch.Tensor) -> list[np.ndarray]:
    session = _session(model)
    return session.run(None, {session.get_inputs()[0].name: x.numpy()})


def _close(mine: torch.Tensor, other: np.ndarray, tolerance: float) -> None:
    got = mine.detach().numpy()
    np.testing.assert_allclose(got, other, rtol=0, atol=tolerance * np.abs(other).max())


@pytest.mark.parametrize(
    ("make", "x", "fused"),
    [
        (nets.mlp, _BATCH, {"FusedGemm"}),
        (nets.cnn, _IMAGES, {"FusedConv"}),
        (nets.mobilenet, _IMAGES[:, :, :10, :10], {"FusedConv", "QuickGelu"}),
        (
            lambda: nets.Transformer(decoder=False),
            _IDS,
            {"FusedMatMul", "Gelu", "SkipLayerNormalization"},
        ),
        (
            lambda: nets.Transformer(decoder=True),
            _IDS,
            {"FusedMatMul", "SkipLayerNormalization"},
        ),
    ],
    ids=["mlp", "cnn", "mobilenet", "encoder", "decoder"],
)
def test_an_optimised_graph_has_the_plain_ones_outputs_and_gradients(make, x, fused, tmp_path):
    plain = export(nets.seeded(make()), (x,)).model
    _session(plain, tmp_path / "fused.onnx")
    optimised = onnx.load(tmp_path / "fused.onnx")
    ops = {node.op_type for node in optimised.graph.node if node.domain == "com.microsoft"}
    assert ops == fused
    ours, reference = compile_graph(optimised), compile_graph(plain)
    (y,), (want,) = ours(x), reference(x)
    _close(y, _theirs(plain, x)[0], 1e-5)
    # optimising folds weights into one another, so that only some leaves keep their name
    shared = sorted(ours.initializers.keys() & reference.initializers.keys())
    assert shared
    mine, theirs = (
        torch.autograd.grad(out.square().sum(), [exe.initializers[n] for n in shared])
        for out, exe in ((y, ours), (want, reference))
    )
    for a, b in zip(mine, theirs, strict=True):
        _close(a, b.numpy(), 1e-4)


class _Batches(CalibrationDataReader):
    def __init__(self, name: str) -> None:
        self._left = [{name: _IMAGES.numpy()}]

    def get_next(self):
        return self._left.pop() if self._left else None


@pytest.mark.parametrize("form", ["dynamic", "QDQ", "QOperator"])
def test_a_quantised_graph_runs_as_onnxruntime_runs_it_and_passes_gradients(form, tmp_path):
    source, path = tmp_path / "plain.onnx", tmp_path / "small.onnx"
    onnx.save(export(nets.seeded(nets.cnn()), (_IMAGES,), opset=17).model, source)
    with warnings.catch_warnings():
        warnings.simplefilter("ignore")  # it advises a preprocessing that changes nothing here
        if form == "dynamic":
            quantize_dynamic(source, path, op_types_to_quantize=["MatMul", "Gemm"])
        else:
            quantize_static(source, path, _Batches("input0"), quant_format=QuantFormat[form])
    model = onnx.load(path)
    assert any("Quantize" in n.op_type for n in model.graph.node)
    x = _IMAGES.clone().requires_grad_()
    (y,) = compile_graph(model)(x)
    _close(y, _theirs(model, _IMAGES)[0], 0.02)  # a value at a step's middle may round either way
    (found,) = torch.autograd.grad(y.sum(), x)
    assert found.isfinite().all()
    assert found.count_nonzero() > found.numel() / 2

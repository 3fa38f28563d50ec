"""Specs of a few layers, built, run by onnxruntime and held against torch."""

import json

import numpy as np
import onnx
import onnx_ir
import onnxruntime
import torch

from gradgauge.graph.model import Graph
from gradgauge.graph.read_spec import read_spec
from gradgauge.schema.spec import ArchSpec, parse_spec

BATCH = 3


def built(shape, *layers, seed=0, **more) -> Graph:
    whole = {"gradgauge": 1, "input": {"shape": list(shape)}, "layers": list(layers)}
    return read_spec(json.dumps(whole | more), seed=seed)


def layer(kind, **given):
    return {"type": kind} | given


def run(graph: Graph, x: np.ndarray) -> np.ndarray:
    proto = onnx_ir.to_proto(graph.model)
    onnx.checker.check_model(proto, full_check=True)
    session = onnxruntime.InferenceSession(
        proto.SerializeToString(), providers=["CPUExecutionProvider"]
    )
    (y,) = session.run(None, {"input": x})
    return y


def batch(graph: Graph, seed=0) -> np.ndarray:
    given = graph.model.graph.inputs[0]
    dims = [d for d in given.shape if isinstance(d, int)]
    if given.dtype == onnx_ir.DataType.INT64:
        high = int(given.metadata_props["gradgauge.high"])
        return np.random.default_rng(seed).integers(high, size=(BATCH, *dims))
    return np.random.default_rng(seed).standard_normal((BATCH, *dims)).astype(np.float32)


def weight(graph: Graph, name: str) -> torch.Tensor:
    return torch.from_numpy(graph.model.graph.initializers[name].const_value.numpy().copy())


def held(graph: Graph, x: np.ndarray, wanted: torch.Tensor) -> None:
    np.testing.assert_allclose(run(graph, x), wanted.detach().numpy(), rtol=1e-4, atol=1e-5)


def spec(shape, *layers, **more) -> ArchSpec:
    whole = {"gradgauge": 1, "input": {"shape": list(shape)}, "layers": list(layers)}
    return parse_spec(json.dumps(whole | more))

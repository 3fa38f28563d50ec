"""Tables, positions and steps of a spec, run by onnxruntime."""

import numpy as np
import pytest
import torch

from gradgauge.graph.read_spec import read_spec
from tests.specs import batch, built, held, layer, weight


def test_an_embedding_looks_up_and_an_unembedding_reads_its_table():
    graph = read_spec(
        "gradgauge: 1\ninput: {shape: [4], distribution: integers, high: 9}\n"
        "layers:\n  - {type: embedding, entries: 9, units: 5}\n"
        "  - {type: unembedding, scale: 0.5, bias: true}\n"
    )
    x = np.arange(8, dtype=np.int64).reshape(2, 4)
    E = weight(graph, "layers.0.weight")
    held(graph, x, 0.5 * E[torch.from_numpy(x)] @ E.T)
    assert set(graph.laws) >= {"layers.0.weight", "layers.1.bias"}
    assert "layers.1.weight" not in graph.laws


def test_positions_segments_and_class_tokens_are_added():
    graph = built((4, 6), layer("positional_embedding", positions=9))
    x = batch(graph)
    t = torch.from_numpy(x)
    held(graph, x, t + weight(graph, "layers.0.weight")[:4])
    graph = built((4, 6), layer("segment_embedding"))
    held(graph, x, t + weight(graph, "layers.0.weight")[0])
    graph = built((4, 6), layer("class_token", count=2))
    tokens = weight(graph, "layers.0.weight").expand(len(x), -1, -1)
    held(graph, x, torch.cat([tokens, t], 1))


@pytest.mark.parametrize("index", [0, 2, -1])
def test_a_step_is_selected(index):
    graph = built((4, 6), layer("select", index=index))
    x = batch(graph)
    held(graph, x, torch.from_numpy(x)[:, index])


def test_sinusoids_are_vaswanis():
    graph = built((50, 8), {"type": "positional_embedding", "kind": "sinusoidal"})
    x = np.zeros((1, 50, 8), np.float32)
    place, i = torch.arange(50.0)[:, None], torch.arange(4.0)
    angle = place / 10_000 ** (2 * i / 8)
    wanted = torch.stack([angle.sin(), angle.cos()], -1).flatten(1)
    held(graph, x, wanted[None])

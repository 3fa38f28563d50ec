"""Bounds by block are never below the largest singular value autograd finds, and close where known.

The oracle is the Jacobian of torch's own modules.
"""

import math

import numpy as np
import pytest
import torch
from torch import nn
from torch.func import jacrev

from gradgauge.analytic import forward, lipschitz, spectrum
from gradgauge.graph.reading import read
from tests.agreement.families import Residual, Transformer
from tests.analytic.autograd import export, to_graph


def bounds(net, x):
    graph = to_graph(export(net, x))
    trace = forward.run(graph.model, read(graph.model))
    return [b.log10_bound for b in lipschitz.blocks(trace, spectrum.of_trace(trace))]


def drawn(make):
    torch.manual_seed(3)  # noqa: TID251 - initialisers of torch.nn take no generator
    return make()


def steepest(module, shape):
    """The largest singular value of the Jacobian at any of some inputs."""
    generator = torch.Generator().manual_seed(0)
    J = jacrev(module.double())
    points = (torch.randn(1, *shape, generator=generator, dtype=torch.float64) for _ in range(8))
    size = math.prod(shape)
    return max(
        np.linalg.svd(J(x).detach().reshape(-1, size).numpy(), compute_uv=False)[0] for x in points
    )


BLOCKS = {
    "dense": (lambda: nn.Sequential(nn.Linear(12, 9), nn.Tanh()), (12,)),
    "gelu": (lambda: nn.Sequential(nn.Linear(12, 9), nn.GELU()), (12,)),
    "conv and pools": (
        lambda: nn.Sequential(
            nn.Conv2d(2, 3, 3, padding=1),
            nn.MaxPool2d(3, 2, 1),
            nn.AvgPool2d(2, 1),
            nn.AdaptiveAvgPool2d(1),
            nn.Flatten(),
        ),
        (2, 8, 8),
    ),
    "residual": (lambda: Residual(10, post=False, norm=False, gain=1.0, conv=False), (10,)),
    "batch norm": (lambda: nn.Sequential(nn.Conv2d(2, 3, 3), nn.BatchNorm2d(3)).eval(), (2, 6, 6)),
}


@pytest.mark.parametrize("name", BLOCKS)
def test_the_product_of_bounds_bounds_the_jacobian(name):
    make, shape = BLOCKS[name]
    net = drawn(make)
    found = bounds(net, torch.zeros(2, *shape))
    assert found
    assert all(b is not None for b in found)
    assert 10 ** sum(found) >= steepest(net, shape) * (1 - 1e-6)


def test_behind_an_embedding_blocks_begin_where_the_first_weights_end():
    net = drawn(
        lambda: nn.Sequential(nn.Embedding(7, 12), nn.Linear(12, 9), nn.Tanh(), nn.Linear(9, 5))
    )
    found = bounds(net, torch.zeros(2, 3, dtype=torch.int64))
    assert found[-1] is not None
    assert 10 ** found[-1] >= steepest(net[2:], (9,)) * (1 - 1e-6)
    assert 10 ** found[-1] == pytest.approx(torch.linalg.svdvals(net[3].weight)[0].item(), rel=1e-3)


def test_it_is_the_largest_singular_value_where_there_is_one_path():
    net = drawn(lambda: nn.Sequential(nn.Linear(12, 12), nn.ReLU(), nn.Linear(12, 12), nn.Tanh()))
    tops = [np.linalg.svd(net[i].weight.detach().numpy(), compute_uv=False)[0] for i in (0, 2)]
    assert 10 ** sum(bounds(net, torch.zeros(2, 12))) == pytest.approx(np.prod(tops), rel=1e-5)


def test_paths_that_meet_add_their_bounds():
    net = drawn(lambda: Residual(10, post=False, norm=False, gain=1.0, conv=False))
    tops = [np.linalg.svd(m.weight.detach().numpy(), compute_uv=False)[0] for m in (net.a, net.b)]
    assert 10 ** sum(bounds(net, torch.zeros(2, 10))) == pytest.approx(1 + np.prod(tops), rel=1e-5)


def test_a_block_with_attention_has_no_bound():
    net = drawn(lambda: Transformer(16, 2, heads=2))
    found = bounds(net, torch.zeros(2, 6, 16))
    assert found[0] is None
    assert found[-1] is not None  # the head

"""Little models, each of another content."""

import numpy as np

from tests.handmade import made, node


def net(seed):
    """A dense layer and its activation."""
    W = np.random.default_rng(seed).normal(size=(8, 8))
    nodes = [node("MatMul", "x W", "h"), node("Tanh", "h", "y")]
    return made(nodes, {"x": ["N", 8]}, "y", {"W": W})

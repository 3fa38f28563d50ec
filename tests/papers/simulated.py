"""What a finite random network does, drawn with numpy: the outside oracle of the ensemble."""

from functools import cache

import numpy as np


@cache
def relu_jacobians(beta: float, width: int, draws: int) -> tuple[float, float]:
    """Mean and variance over draws of ln |J u|^2 through He layers with sum 1/n = beta."""
    rng = np.random.default_rng(0)
    logs = []
    for _ in range(draws // 100):
        h = rng.standard_normal((100, width))
        u = rng.standard_normal((100, width))
        u /= np.linalg.norm(u, axis=1, keepdims=True)
        for _ in range(round(beta * width)):
            W = rng.standard_normal((100, width, width)) * np.sqrt(2 / width)
            x, v = np.einsum("bij,bj->bi", W, h), np.einsum("bij,bj->bi", W, u)
            h, u = np.maximum(x, 0), v * (x > 0)
        logs.append(np.log((u * u).sum(1)))
    found = np.concatenate(logs)
    return float(found.mean()), float(found.var())


@cache
def radius(*, symmetric: bool, n: int = 400) -> float:
    """Spectral radius of a Gaussian matrix of variance 1 / n, the mean of four."""
    rng = np.random.default_rng(1)
    found = []
    for _ in range(4):
        W = rng.standard_normal((n, n)) / np.sqrt(n)
        if symmetric:
            W = np.triu(W) + np.triu(W, 1).T
        found.append(np.abs(np.linalg.eigvals(W)).max())
    return float(np.mean(found))


@cache
def batch_norm_rate(batch: int, *, rectified: bool, width: int = 512) -> float:
    """Factor of a gradient's squared norm per Dense-BatchNorm(-ReLU) layer, twelve of sixteen."""
    rng = np.random.default_rng(2)
    x = rng.standard_normal((batch, width))
    track = []
    for _ in range(16):
        W = rng.standard_normal((width, width)) / np.sqrt(width)
        y = x @ W
        sd = y.std(0)
        unit = (y - y.mean(0)) / sd
        track.append((W, unit, sd))
        x = np.maximum(unit, 0) if rectified else unit
    g = rng.standard_normal((batch, width))
    norms = []
    for W, unit, sd in reversed(track):
        h = g * (unit > 0) if rectified else g
        h = (h - h.mean(0) - unit * (h * unit).mean(0)) / sd
        g = h @ W.T
        norms.append(np.log((g * g).sum()))
    # the first layer's input has another variance than those behind a ReLU
    return float(np.exp((norms[-2] - norms[2]) / (len(norms) - 4)))

"""Finite networks in plain torch, drawn from the laws of specs: an oracle that knows no engine."""

import math

import torch
from torch import nn
from torch.nn import functional


def drawn(shape, std, rng):
    return torch.randn(shape, generator=rng, dtype=torch.float64) * std


def backward(track, y, rng):
    """log10 RMS of the gradient at every value of `track` for a cotangent of variance one."""
    g = torch.autograd.grad(y, track, drawn(y.shape, 1.0, rng))
    return [0.5 * math.log10(float(g_.square().mean())) for g_ in g]


def averaged(net, draws=6):
    """The mean over draws of what `net(rng)` says layer by layer."""
    told = [torch.tensor(net(torch.Generator().manual_seed(seed))) for seed in range(draws)]
    return torch.stack(told).mean(0).tolist()


def mlp(phi, s_w2, s_b2, depth, n=300, batch=16):
    def run(rng):
        x = drawn((batch, n), 1.0, rng).requires_grad_()
        track = []
        h = x
        for _ in range(depth):
            h = h @ drawn((n, n), math.sqrt(s_w2 / n), rng) + drawn((n,), math.sqrt(s_b2), rng)
            track.append(h)
            h = phi(h)
            track.append(h)
        return backward(track, h, rng)

    return averaged(run)


def cnn(depth, channels=48, size=12, batch=8):
    """conv 3x3 same, batch norm by batch statistics, relu; the mean over places; a matrix."""

    def run(rng):
        h = drawn((batch, channels, size, size), 1.0, rng).requires_grad_()
        track, std = [], math.sqrt(2 / (9 * channels))
        for _ in range(depth):
            h = functional.conv2d(h, drawn((channels, channels, 3, 3), std, rng), padding=1)
            track.append(h)
            h = functional.batch_norm(h, None, None, training=True)
            track.append(h)
            h = functional.relu(h)
            track.append(h)
        h = h.mean((2, 3))
        track.append(h)
        y = h @ drawn((channels, 10), math.sqrt(2 / channels), rng)
        track.append(y)
        return backward(track, y, rng)

    return averaged(run)


def attention(x, d, heads, rng):
    """Softmax attention with LeCun's projections."""
    batch, steps, n = x.shape

    def part():
        y = x @ drawn((n, n), 1 / math.sqrt(n), rng)
        return y.reshape(batch, steps, heads, d).transpose(1, 2)

    Q, K, V = part(), part(), part()
    A = torch.softmax(Q @ K.transpose(2, 3) / math.sqrt(d), -1)
    mixed = (A @ V).transpose(1, 2).reshape(batch, steps, n)
    return mixed @ drawn((n, n), 1 / math.sqrt(n), rng)


def transformer(blocks, n=128, steps=24, heads=4, *, pooled, batch=8):
    """Pre-norm blocks of attention and a GELU layer pair; the blocks' inputs are told."""

    def run(rng):
        h = drawn((batch, steps, n), 1.0, rng).requires_grad_()
        track = [h]
        for _ in range(blocks):
            h = h + attention(functional.layer_norm(h, (n,)), n // heads, heads, rng)
            track.append(h)
            z = functional.layer_norm(h, (n,)) @ drawn((n, 4 * n), 1 / math.sqrt(n), rng)
            h = h + functional.gelu(z) @ drawn((4 * n, n), 1 / math.sqrt(4 * n), rng)
            track.append(h)
        return backward(track, h.mean(1) if pooled else h, rng)

    return averaged(run)


def cells(kind, steps, n=128, features=32, batch=16):
    """An LSTM or GRU of torch's own: log10 RMS of the gradient at the input, of the last state."""

    def run(rng):
        cell = (nn.LSTM if kind == "lstm" else nn.GRU)(features, n, batch_first=True).double()
        for name, held in cell.named_parameters():
            std = 0.0 if "bias" in name else 1 / math.sqrt(n if "hh" in name else features)
            held.data = drawn(held.shape, std, rng)
        x = drawn((batch, steps, features), 1.0, rng).requires_grad_()
        out, _ = cell(x)
        return backward([x], out[:, -1], rng)

    return averaged(run)

"""Networks by family, several seeds each, on which the analytic engine's error is measured."""

import itertools
import math
from collections.abc import Callable, Iterator
from dataclasses import dataclass
from functools import partial

import torch
from torch import nn
from torch.nn import functional


@dataclass(frozen=True, slots=True)
class Net:
    """One network to be drawn from `seed`, and the shape of one of its inputs."""

    family: str
    name: str
    make: Callable[[], nn.Module]
    shape: tuple[int, ...]
    seed: int
    train: bool = False
    tokens: int = 0  # size of the vocabulary, where the inputs are indices
    depth: int = 1

    def module(self) -> nn.Module:
        """The network, whatever was drawn before."""
        with torch.random.fork_rng():
            torch.random.manual_seed(self.seed)
            return self.make()

    def inputs(self, count: int, seed: int) -> torch.Tensor:
        """`count` inputs of the law the engine assumes."""
        generator = torch.Generator().manual_seed(seed)
        if self.tokens:
            return torch.randint(0, self.tokens, (count, *self.shape), generator=generator)
        return torch.randn((count, *self.shape), generator=generator)


def _drawn(layer: nn.Module, gain: float, law: str) -> nn.Module:
    with torch.no_grad():
        weight = layer.weight
        fan_in = weight[0].numel()
        if law == "normal":
            weight.normal_(0, math.sqrt(gain / fan_in))
        elif law == "uniform":
            weight.uniform_(-1, 1).mul_(math.sqrt(3 * gain / fan_in))
        else:
            nn.init.orthogonal_(weight, math.sqrt(gain))
        if layer.bias is not None:
            layer.bias.zero_()
    return layer


def mlp(act, gain, depth, width, *, law="normal", norm=None, sizes=None, head=16):
    """`depth` dense layers of `width` (or of `sizes`) with `act`, and a dense head."""
    widths = sizes or [width] * (depth + 1)
    parts: list[nn.Module] = []
    for before, after in itertools.pairwise(widths):
        parts.append(_drawn(nn.Linear(before, after), gain, law))
        parts += [] if norm is None else [norm(after)]
        parts.append(act())
    return nn.Sequential(*parts, nn.Linear(widths[-1], head))


def cnn(act, gain, depth, width, *, law="normal", norm=False, pool=None, head="gap", strides=()):
    """3x3 convolutions; `pool` after every third; a head over global averages or all pixels."""
    parts: list[nn.Module] = []
    for i in range(depth):
        conv = nn.Conv2d(3 if i == 0 else width, width, 3, 2 if i in strides else 1, 1)
        parts.append(_drawn(conv, gain, law))
        parts += [nn.BatchNorm2d(width)] if norm else []
        parts.append(act())
        if pool is not None and i % 3 == 2:
            parts.append(pool(2))
    if head == "gap":
        parts += [nn.AdaptiveAvgPool2d(1), nn.Flatten(), nn.Linear(width, 10)]
    return nn.Sequential(*parts)


class Residual(nn.Module):
    """x + branch(x), with `act` after the sum (v1) or inside the branch alone (v2)."""

    def __init__(self, width, *, post, norm, gain, conv=True, act=functional.relu):
        super().__init__()
        make = (
            partial(nn.Conv2d, width, width, 3, 1, 1) if conv else partial(nn.Linear, width, width)
        )
        self.a, self.b = (_drawn(make(), gain, "normal") for _ in range(2))
        self.m, self.n = (nn.BatchNorm2d(width) if norm else nn.Identity() for _ in range(2))
        self.post, self.act = post, act

    def forward(self, x):
        if self.post:
            return self.act(x + self.n(self.b(self.act(self.m(self.a(x))))))
        return x + self.b(self.act(self.n(self.a(self.act(self.m(x))))))


def resnet(blocks, width, *, post, norm, gain=2.0, head=True):
    """A stem, residual blocks of one width, and a head over global averages."""
    parts: list[nn.Module] = [_drawn(nn.Conv2d(3, width, 3, 1, 1), 2.0, "normal")]
    parts += [nn.BatchNorm2d(width)] if norm else []
    parts += [nn.ReLU()]
    parts += [Residual(width, post=post, norm=norm, gain=gain) for _ in range(blocks)]
    if head:
        parts += [nn.AdaptiveAvgPool2d(1), nn.Flatten(), nn.Linear(width, 10)]
    return nn.Sequential(*parts)


def residual_mlp(blocks, width, *, post, gain=2.0, act=functional.relu):
    """Dense residual blocks without a norm."""
    parts = [
        Residual(width, post=post, norm=False, gain=gain, conv=False, act=act)
        for _ in range(blocks)
    ]
    return nn.Sequential(
        _drawn(nn.Linear(width, width), 2.0, "normal"), *parts, nn.Linear(width, 10)
    )


class RMSNorm(nn.Module):
    """RMSNorm as transformers write it, so that it is exported op by op."""

    def __init__(self, d):
        super().__init__()
        self.weight = nn.Parameter(torch.ones(d))

    def forward(self, x):
        return self.weight * (x * torch.rsqrt(x.pow(2).mean(-1, keepdim=True) + 1e-6))


class Encoder(nn.Module):
    """Multi-head attention and a feed-forward part, norms before or after."""

    def __init__(self, d, heads, *, pre, causal, act, norm):
        super().__init__()
        self.heads, self.pre, self.causal, self.act = heads, pre, causal, act
        self.q, self.k, self.v, self.o = (nn.Linear(d, d) for _ in range(4))
        self.m, self.n = norm(d), norm(d)
        self.up, self.down = nn.Linear(d, 4 * d), nn.Linear(4 * d, d)

    def attend(self, x):
        b, t, d = x.shape
        q, k, v = (
            f(x).reshape(b, t, self.heads, d // self.heads).transpose(1, 2)
            for f in (self.q, self.k, self.v)
        )
        scores = q @ k.transpose(-1, -2) / math.sqrt(d // self.heads)
        if self.causal:
            seen = torch.ones(t, t, dtype=torch.bool).tril()
            scores = scores.masked_fill(~seen, float("-inf"))
        mixed = torch.softmax(scores, -1) @ v
        return self.o(mixed.transpose(1, 2).reshape(b, t, d))

    def forward(self, x):
        if self.pre:
            x = x + self.attend(self.m(x))
            return x + self.down(self.act(self.up(self.n(x))))
        x = self.m(x + self.attend(x))
        return self.n(x + self.down(self.act(self.up(x))))


class Transformer(nn.Module):
    """Blocks over vectors or over embedded tokens, with one head per token or on their mean."""

    def __init__(
        self,
        d=128,
        depth=6,
        *,
        heads=4,
        pre=True,
        pooled=True,
        causal=False,
        tokens=0,
        act=functional.gelu,
        norm=nn.LayerNorm,
    ):
        super().__init__()
        self.table = nn.Embedding(tokens, d) if tokens else None
        self.place = nn.Parameter(0.02 * torch.randn(16, d)) if tokens else None
        self.blocks = nn.Sequential(
            *(Encoder(d, heads, pre=pre, causal=causal, act=act, norm=norm) for _ in range(depth))
        )
        self.norm, self.head, self.pooled = norm(d), nn.Linear(d, 10), pooled

    def forward(self, x):
        if self.table is not None:
            x = self.table(x) + self.place
        x = self.norm(self.blocks(x))
        return self.head(x.mean(1) if self.pooled else x)


class Recurrent(nn.Module):
    """A stack of recurrent layers, read at the last step or at all."""

    def __init__(self, kind, width, layers, *, last, forget=None, inputs=128):
        super().__init__()
        cells = [
            getattr(nn, kind)(inputs if i == 0 else width, width, batch_first=True)
            for i in range(layers)
        ]
        self.cells, self.head, self.last = nn.ModuleList(cells), nn.Linear(width, 10), last
        if forget is not None:
            with torch.no_grad():
                for cell in cells:
                    cell.bias_ih_l0[width : 2 * width] = forget

    def forward(self, x):
        for cell in self.cells:
            x, _ = cell(x)
        return self.head(x[:, -1] if self.last else x)


def _mlps(draw: int) -> Iterator[Net]:
    rows = [
        ("relu he 24x128", partial(mlp, nn.ReLU, 2.0, 24, 128), 128, 24),
        ("relu he uniform 30x256", partial(mlp, nn.ReLU, 2.0, 30, 256, law="uniform"), 256, 30),
        ("relu orthogonal 24x192", partial(mlp, nn.ReLU, 2.0, 24, 192, law="orthogonal"), 192, 24),
        ("tanh critical 40x256", partial(mlp, nn.Tanh, 1.0, 40, 256), 256, 40),
        ("tanh chaotic 25x192", partial(mlp, nn.Tanh, 2.6, 25, 192), 192, 25),
        ("sigmoid 16x160", partial(mlp, nn.Sigmoid, 1.0, 16, 160), 160, 16),
        ("gelu 20x192", partial(mlp, nn.GELU, 1.8, 20, 192), 192, 20),
        ("silu 20x256", partial(mlp, nn.SiLU, 2.2, 20, 256), 256, 20),
        ("selu 30x192", partial(mlp, nn.SELU, 1.0, 30, 192), 192, 30),
        ("leaky 20x128", partial(mlp, partial(nn.LeakyReLU, 0.2), 1.9, 20, 128), 128, 20),
        ("elu layer norm 16x160", partial(mlp, nn.ELU, 1.5, 16, 160, norm=nn.LayerNorm), 160, 16),
        (
            "tanh bottlenecks",
            partial(mlp, nn.Tanh, 1.3, 8, 0, sizes=[256, 384, 160, 320, 128, 256, 128, 192, 128]),
            256,
            8,
        ),
    ]
    for i, (name, make, width, depth) in enumerate(rows):
        yield Net("MLP", name, make, (width,), 100 + i + draw, depth=depth)


def _cnns(draw: int) -> Iterator[Net]:
    rows = [
        ("relu he 14x128", partial(cnn, nn.ReLU, 2.0, 14, 128), 10),
        ("relu all pixels 12x128", partial(cnn, nn.ReLU, 2.0, 12, 128, head="none"), 8),
        ("tanh 12x128", partial(cnn, nn.Tanh, 1.4, 12, 128), 8),
        ("gelu strided 10x128", partial(cnn, nn.GELU, 1.9, 10, 128, strides=(3, 6)), 16),
        ("relu max pool 9x128", partial(cnn, nn.ReLU, 2.0, 9, 128, pool=nn.MaxPool2d), 16),
        ("relu average pool 9x128", partial(cnn, nn.ReLU, 2.0, 9, 128, pool=nn.AvgPool2d), 16),
        ("silu uniform 10x160", partial(cnn, nn.SiLU, 2.2, 10, 160, law="uniform"), 8),
    ]
    for i, (name, make, size) in enumerate(rows):
        yield Net("CNN", name, make, (3, size, size), 200 + i + draw)


def _batch_norms(draw: int) -> Iterator[Net]:
    image = (3, 8, 8)
    rows = [
        ("relu mlp 20x128", partial(mlp, nn.ReLU, 2.0, 20, 128, norm=nn.BatchNorm1d), (128,)),
        ("tanh mlp 24x192", partial(mlp, nn.Tanh, 1.0, 24, 192, norm=nn.BatchNorm1d), (192,)),
        ("relu cnn 12x128", partial(cnn, nn.ReLU, 2.0, 12, 128, norm=True), image),
        (
            "gelu cnn 10x128, pooled",
            partial(cnn, nn.GELU, 2.0, 10, 128, norm=True, pool=nn.AvgPool2d),
            (3, 16, 16),
        ),
        ("resnet v1, 6 blocks", partial(resnet, 6, 128, post=True, norm=True), image),
        ("resnet v2, 6 blocks", partial(resnet, 6, 128, post=False, norm=True), image),
        ("resnet v1, 10 blocks", partial(resnet, 10, 128, post=True, norm=True), image),
    ]
    for i, (name, make, shape) in enumerate(rows):
        yield Net("BatchNorm", name, make, shape, 300 + i + draw, train=True)


def _transformers(draw: int) -> Iterator[Net]:
    rows = [
        ("pre-LN pooled x6", partial(Transformer), 0),
        ("pre-LN tokens x10", partial(Transformer, depth=10, pooled=False), 0),
        ("pre-LN causal x8", partial(Transformer, depth=8, pooled=False, causal=True), 0),
        ("pre-LN embedded x6", partial(Transformer, tokens=60), 60),
        ("pre-RMS SiLU d192 x6", partial(Transformer, 192, norm=RMSNorm, act=functional.silu), 0),
        ("post-LN pooled x6", partial(Transformer, pre=False), 0),
        ("post-LN tokens x8", partial(Transformer, depth=8, pre=False, pooled=False), 0),
        ("post-LN embedded x12", partial(Transformer, depth=12, pre=False, tokens=60), 60),
        (
            "post-LN causal relu x6",
            partial(Transformer, pre=False, causal=True, act=functional.relu),
            0,
        ),
    ]
    for i, (name, make, tokens) in enumerate(rows):
        d = 192 if "192" in name else 128
        shape = (16,) if tokens else (16, d)
        yield Net("transformer", name, make, shape, 400 + i + draw, tokens=tokens)


def _residuals(draw: int) -> Iterator[Net]:
    image = (3, 8, 8)
    rows = [
        ("conv v1, 8 blocks", partial(resnet, 8, 128, post=True, norm=False), image),
        (
            "conv v1, 12 blocks, gain 1",
            partial(resnet, 12, 128, post=True, norm=False, gain=1.0),
            image,
        ),
        ("conv v2, 8 blocks", partial(resnet, 8, 128, post=False, norm=False), image),
        (
            "conv v2, 12 blocks, no head",
            partial(resnet, 12, 128, post=False, norm=False, head=False),
            image,
        ),
        ("dense v1, 12 blocks", partial(residual_mlp, 12, 128, post=True), (128,)),
        ("dense v2, 12 blocks", partial(residual_mlp, 12, 128, post=False), (128,)),
        (
            "dense v2 tanh, 12 blocks",
            partial(residual_mlp, 12, 160, post=False, gain=1.0, act=torch.tanh),
            (160,),
        ),
    ]
    for i, (name, make, shape) in enumerate(rows):
        yield Net("residual", name, make, shape, 500 + i + draw)


def _recurrents(draw: int) -> Iterator[Net]:
    rows = [
        ("LSTM T=40, last", partial(Recurrent, "LSTM", 128, 1, last=True), 40),
        ("LSTM x2 T=30, all", partial(Recurrent, "LSTM", 128, 2, last=False), 30),
        (
            "LSTM T=60, last, forget 1",
            partial(Recurrent, "LSTM", 160, 1, last=True, forget=1.0),
            60,
        ),
        ("GRU T=40, last", partial(Recurrent, "GRU", 128, 1, last=True), 40),
        ("GRU x2 T=30, all", partial(Recurrent, "GRU", 160, 2, last=False), 30),
        ("GRU x3 T=20, last", partial(Recurrent, "GRU", 128, 3, last=True), 20),
    ]
    for i, (name, make, steps) in enumerate(rows):
        yield Net("LSTM/GRU", name, make, (steps, 128), 600 + i + draw)


def nets(draw: int = 0) -> list[Net]:
    """All of them, by family, each from a seed of its own; another `draw`, other weights."""
    makers = (_mlps, _cnns, _batch_norms, _transformers, _residuals, _recurrents)
    return [net for maker in makers for net in maker(1000 * draw)]

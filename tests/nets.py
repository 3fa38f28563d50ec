"""Small seeded torch networks of the kinds people upload."""

import math
from itertools import pairwise

import torch
from torch import nn
from torch.nn import functional

# an ONNX attribute is a float32: this epsilon is one exactly
EPSILON = 2.0**-17


def _norm(width: int) -> nn.BatchNorm2d:
    return nn.BatchNorm2d(width, eps=EPSILON)


def seeded(net: nn.Module, seed: int = 0) -> nn.Module:
    """Every parameter and float buffer redrawn, so that no two elements are alike by structure."""
    generator = torch.Generator().manual_seed(seed)
    with torch.no_grad():
        for name, value in [*net.named_parameters(), *net.named_buffers()]:
            if not value.is_floating_point():
                continue
            drawn = torch.randn(value.shape, generator=generator, dtype=value.dtype)
            fan = value.shape[1:].numel() if value.dim() > 1 else 16
            value.copy_(drawn / math.sqrt(fan))
            if name.endswith("running_var"):
                value.abs_().add_(0.5)
            elif value.dim() == 1 and name.endswith("weight"):
                value.add_(1.0)
    return net


def mlp(activation: nn.Module | None = None, *, depth: int = 3, width: int = 8) -> nn.Module:
    """Shapes: [n, 6] to [n, 4]."""
    sizes = [6, *[width] * depth]
    layers = [
        part
        for fan_in, fan_out in pairwise(sizes)
        for part in (nn.Linear(fan_in, fan_out), activation or nn.ReLU())
    ]
    return nn.Sequential(*layers, nn.Linear(width, 4))


def cnn() -> nn.Module:
    """Shapes: [n, 3, 12, 12] to [n, 5]."""
    return nn.Sequential(
        nn.Conv2d(3, 6, 3, padding=1),
        _norm(6),
        nn.LeakyReLU(0.125),
        nn.MaxPool2d(2),
        nn.Conv2d(6, 8, 3, stride=2),
        nn.ELU(),
        nn.AvgPool2d(2),
        nn.Flatten(),
        nn.Linear(8, 5),
    )


class BasicBlock(nn.Module):
    """A residual block of two 3x3 convolutions (He et al. 2016)."""

    def __init__(self, fan_in: int, fan_out: int, stride: int) -> None:
        super().__init__()
        self.conv1 = nn.Conv2d(fan_in, fan_out, 3, stride, 1, bias=False)
        self.bn1 = _norm(fan_out)
        self.conv2 = nn.Conv2d(fan_out, fan_out, 3, 1, 1, bias=False)
        self.bn2 = _norm(fan_out)
        self.shortcut = nn.Identity()
        if stride != 1 or fan_in != fan_out:
            self.shortcut = nn.Sequential(
                nn.Conv2d(fan_in, fan_out, 1, stride, bias=False), _norm(fan_out)
            )

    def forward(self, x):
        y = functional.relu(self.bn1(self.conv1(x)))
        return functional.relu(self.bn2(self.conv2(y)) + self.shortcut(x))


def resnet18(width: int = 4) -> nn.Module:
    """Four stages of two blocks. Shapes: [n, 3, 32, 32] to [n, 5]."""
    sizes = [width, width, 2 * width, 4 * width, 8 * width]
    blocks = [
        BasicBlock(fan_in if first else fan_out, fan_out, stride if first else 1)
        for fan_in, fan_out, stride in zip(sizes, sizes[1:], (1, 2, 2, 2), strict=False)
        for first in (True, False)
    ]
    stem = [nn.Conv2d(3, width, 7, 2, 3, bias=False), _norm(width), nn.ReLU()]
    head = [nn.AdaptiveAvgPool2d(1), nn.Flatten(), nn.Linear(8 * width, 5)]
    return nn.Sequential(*stem, nn.MaxPool2d(3, 2, 1), *blocks, *head)


class InvertedResidual(nn.Module):
    """Expand, filter depthwise, squeeze (Sandler et al. 2018), with a gate (Hu et al. 2018)."""

    def __init__(self, width: int) -> None:
        super().__init__()
        wide = 3 * width
        self.expand = nn.Conv2d(width, wide, 1)
        self.depthwise = nn.Conv2d(wide, wide, 3, padding=1, groups=wide)
        self.norm = _norm(wide)
        self.gate = nn.Conv2d(wide, wide, 1)
        self.project = nn.Conv2d(wide, width, 1)

    def forward(self, x):
        y = functional.relu6(self.expand(x))
        y = functional.hardswish(self.norm(self.depthwise(y)))
        y = y * torch.sigmoid(self.gate(functional.adaptive_avg_pool2d(y, 1)))
        return x + self.project(y)


def mobilenet() -> nn.Module:
    """Shapes: [n, 3, 10, 10] to [n, 4]."""
    return nn.Sequential(
        nn.Conv2d(3, 6, 3, stride=2),
        nn.SiLU(),
        InvertedResidual(6),
        InvertedResidual(6),
        nn.AdaptiveAvgPool2d(1),
        nn.Flatten(),
        nn.Linear(6, 4),
    )


class Recurrent(nn.Module):
    """RNN, GRU or LSTM over [n, 5, 3], its outputs read by a linear layer."""

    def __init__(self, kind: str, **options) -> None:
        super().__init__()
        self.net = getattr(nn, kind)(3, 4, batch_first=True, **options)
        self.head = nn.Linear(4 * (2 if options.get("bidirectional") else 1), 2)

    def forward(self, x):
        return self.head(self.net(x)[0])


class SelfAttention(nn.Module):
    """Multi-head attention from one projection, written out with matmuls and a mask."""

    def __init__(self, width: int, heads: int, *, causal: bool) -> None:
        super().__init__()
        self.heads = heads
        self.causal = causal
        self.project = nn.Linear(width, 3 * width)
        self.out = nn.Linear(width, width)

    def forward(self, x):
        batch, length, width = x.shape
        parts = self.project(x).split(width, dim=-1)
        q, k, v = (p.view(batch, length, self.heads, -1).transpose(1, 2) for p in parts)
        scores = q @ k.transpose(-1, -2) / math.sqrt(width // self.heads)
        if self.causal:
            open_ = torch.tril(torch.ones(length, length, dtype=torch.bool))
            scores = torch.where(open_, scores, torch.finfo(scores.dtype).min)
        y = torch.softmax(scores, -1) @ v
        return self.out(y.transpose(1, 2).reshape(batch, length, width))


class Block(nn.Module):
    """A transformer block, its norms before (GPT-2) or after (BERT) the sublayers."""

    def __init__(self, width: int, heads: int, *, decoder: bool) -> None:
        super().__init__()
        self.pre = decoder
        self.attention = SelfAttention(width, heads, causal=decoder)
        self.up, self.down = nn.Linear(width, 2 * width), nn.Linear(2 * width, width)
        self.norm1, self.norm2 = nn.LayerNorm(width), nn.LayerNorm(width)
        self.gelu = nn.GELU(approximate="tanh" if decoder else "none")

    def mlp(self, x):
        return self.down(self.gelu(self.up(x)))

    def forward(self, x):
        if self.pre:
            x = x + self.attention(self.norm1(x))
            return x + self.mlp(self.norm2(x))
        x = self.norm1(x + self.attention(x))
        return self.norm2(x + self.mlp(x))


class Transformer(nn.Module):
    """Token and position embeddings, blocks, a head; GPT-2-like ones tie it to the embedding.

    Shapes: integers in [0, 11) of [n, 6] to logits [n, 6, 11].
    """

    def __init__(self, *, decoder: bool, depth: int = 2, width: int = 16, heads: int = 4) -> None:
        super().__init__()
        self.tokens, self.positions = nn.Embedding(11, width), nn.Embedding(8, width)
        self.blocks = nn.Sequential(*(Block(width, heads, decoder=decoder) for _ in range(depth)))
        self.norm = nn.LayerNorm(width)
        self.head = nn.Linear(width, 11, bias=False)
        if decoder:
            self.head.weight = self.tokens.weight

    def forward(self, ids):
        positions = torch.arange(ids.shape[1]).unsqueeze(0)
        x = self.tokens(ids) + self.positions(positions)
        return self.head(self.norm(self.blocks(x)))


def encoder_layer() -> nn.Module:
    """torch's own pre-norm encoder layer. Shapes: [n, 5, 16] to the same."""
    return nn.TransformerEncoderLayer(16, 4, 32, dropout=0.0, batch_first=True, norm_first=True)

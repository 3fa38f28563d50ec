"""Networks of torch.nn's own modules: dense, convolutional, recurrent, attention."""

import torch
from torch import nn
from torch.nn import functional

from tests import nets
from tests.architectures.architecture import WORDS, Architecture


class UNet(nn.Module):
    """Two levels down, two up, the levels' features beside each other (Ronneberger et al. 2015)."""

    def __init__(self, *, transposed: bool) -> None:
        super().__init__()
        self.down1, self.down2, self.middle = _double(3, 4), _double(4, 8), _double(8, 16)
        self.raise2, self.raise1 = (
            nn.ConvTranspose2d(n, n // 2, 2, stride=2)
            if transposed
            else nn.Sequential(
                nn.Upsample(scale_factor=2, mode="bilinear", align_corners=True),
                nn.Conv2d(n, n // 2, 1),
            )
            for n in (16, 8)
        )
        self.up2, self.up1, self.out = _double(16, 8), _double(8, 4), nn.Conv2d(4, 2, 1)

    def forward(self, x):
        fine = self.down1(x)
        coarse = self.down2(functional.max_pool2d(fine, 2))
        y = self.raise2(self.middle(functional.max_pool2d(coarse, 2)))
        y = self.raise1(self.up2(torch.cat([coarse, y], 1)))
        return self.out(self.up1(torch.cat([fine, y], 1)))


def _double(fan_in: int, fan_out: int) -> nn.Module:
    return nn.Sequential(
        nn.Conv2d(fan_in, fan_out, 3, padding=1),
        nn.BatchNorm2d(fan_out),
        nn.ReLU(),
        nn.Conv2d(fan_out, fan_out, 3, padding=1),
        nn.GroupNorm(2, fan_out),
        nn.SiLU(),
    )


class DenseNet(nn.Module):
    """Each layer reads all before it (Huang et al. 2017)."""

    def __init__(self, depth: int = 4, growth: int = 4) -> None:
        super().__init__()
        self.layers = nn.ModuleList(
            nn.Sequential(
                nn.BatchNorm2d(3 + growth * i),
                nn.ReLU(),
                nn.Conv2d(3 + growth * i, growth, 3, padding=1, bias=False),
            )
            for i in range(depth)
        )
        self.head = nn.Linear(3 + growth * depth, 5)

    def forward(self, x):
        for layer in self.layers:
            x = torch.cat([x, layer(x)], 1)
        return self.head(x.mean((2, 3)))


class Inception(nn.Module):
    """Filters of three sizes and a pool side by side (Szegedy et al. 2015)."""

    def __init__(self) -> None:
        super().__init__()
        self.stem, self.slope = nn.Conv2d(3, 6, 3, stride=2), nn.PReLU()
        self.paths = nn.ModuleList(nn.Conv2d(6, 4, n, padding=n // 2) for n in (1, 3, 5))
        self.pool = nn.Sequential(nn.AvgPool2d(3, 1, 1), nn.Conv2d(6, 4, 1))
        self.head = nn.Linear(16, 5)

    def forward(self, x):
        x = self.slope(self.stem(x))
        x = torch.cat([*(path(x) for path in self.paths), self.pool(x)], 1)
        return self.head(functional.relu(x).amax((2, 3)))


class WaveNet(nn.Module):
    """Gated, dilated, causal convolutions with skips (van den Oord et al. 2016)."""

    def __init__(self, width: int = 6) -> None:
        super().__init__()
        self.stem = nn.Conv1d(2, width, 1)
        self.gates = nn.ModuleList(nn.Conv1d(width, 2 * width, 2, dilation=2**i) for i in range(3))
        self.mix = nn.ModuleList(nn.Conv1d(width, width, 1) for _ in range(3))
        self.head = nn.Conv1d(width, 3, 1)

    def forward(self, x):
        x, skips = self.stem(x), 0
        for i, (gate, mix) in enumerate(zip(self.gates, self.mix, strict=True)):
            y, z = gate(functional.pad(x, (2**i, 0))).chunk(2, 1)
            y = torch.tanh(y) * torch.sigmoid(z)
            skips = skips + y
            x = x + mix(y)
        return self.head(functional.elu(skips))


class Mixer(nn.Module):
    """Linear layers over tokens, then over channels (Tolstikhin et al. 2021)."""

    def __init__(self, tokens: int = 4, width: int = 16, depth: int = 2) -> None:
        super().__init__()
        self.patches = nn.Conv2d(3, width, 8, stride=8)
        self.blocks = nn.ModuleList(
            nn.ModuleList((nn.LayerNorm(width), _mlp(tokens), nn.LayerNorm(width), _mlp(width)))
            for _ in range(depth)
        )
        self.head = nn.Linear(width, 5)

    def forward(self, x):
        x = self.patches(x).flatten(2).transpose(1, 2)
        for norm1, over_tokens, norm2, over_channels in self.blocks:
            x = x + over_tokens(norm1(x).transpose(1, 2)).transpose(1, 2)
            x = x + over_channels(norm2(x))
        return self.head(x.mean(1))


def _mlp(width: int) -> nn.Module:
    return nn.Sequential(nn.Linear(width, 2 * width), nn.GELU(), nn.Linear(2 * width, width))


class Translator(nn.Module):
    """An LSTM reads, another goes on from its state; the embedding is shared by both and tied."""

    def __init__(self, width: int = 8) -> None:
        super().__init__()
        self.words = nn.Embedding(WORDS, width)
        self.reader = nn.LSTM(width, width, batch_first=True)
        self.writer = nn.LSTM(width, width, batch_first=True)
        self.head = nn.Linear(width, WORDS, bias=False)
        self.head.weight = self.words.weight

    def forward(self, ids, decoder_ids):
        _, state = self.reader(self.words(ids))
        return self.head(self.writer(self.words(decoder_ids), state)[0])


class Ears(nn.Module):
    """Convolutions, then a GRU over time, as in speech recognition (Amodei et al. 2016)."""

    def __init__(self) -> None:
        super().__init__()
        self.conv = nn.Sequential(nn.Conv1d(4, 8, 5, stride=2), nn.BatchNorm1d(8), nn.Hardtanh())
        self.gru = nn.GRU(8, 6, bidirectional=True, batch_first=True)
        self.head = nn.Linear(12, 5)

    def forward(self, x):
        return functional.log_softmax(self.head(self.gru(self.conv(x).transpose(1, 2))[0]), -1)


def _attention(kind: type[nn.Module], **config) -> nn.Module:
    size = {"d_model": 16, "nhead": 4, "dim_feedforward": 32, "dropout": 0.0, "batch_first": True}
    return kind(**size, **config)


def _autoencoder() -> nn.Module:
    return nn.Sequential(
        nn.Conv2d(3, 6, 3, stride=2, padding=1),
        nn.InstanceNorm2d(6, affine=True),
        nn.Softplus(),
        nn.Conv2d(6, 8, 3, stride=2, padding=1),
        nn.Mish(),
        nn.ConvTranspose2d(8, 6, 4, stride=2, padding=1),
        nn.CELU(),
        nn.ConvTranspose2d(6, 3, 3, stride=2, padding=1, output_padding=1),
        nn.Sigmoid(),
    )


def _volumes() -> nn.Module:
    return nn.Sequential(
        nn.Conv3d(1, 4, 3, padding=1),
        nn.BatchNorm3d(4),
        nn.ELU(),
        nn.MaxPool3d(2),
        nn.Conv3d(4, 6, 3),
        nn.Softsign(),
        nn.Flatten(),
        nn.Linear(48, 3),
    )


def _super_resolution() -> nn.Module:
    return nn.Sequential(
        nn.Conv2d(3, 8, 5, padding=2, padding_mode="reflect"),
        nn.Tanh(),
        nn.Conv2d(8, 12, 3, padding=1),
        nn.PixelShuffle(2),
    )


_X = {"x": (2, 6)}
_IMAGE = {"x": (2, 3, 16, 16)}
_STEPS = {"x": (2, 5, 3)}
_TOKENS = {"x": (2, 5, 16)}

PLAIN = {
    "MLP": Architecture(nets.mlp, _X),
    "MLP, tanh, 20 layers": Architecture(lambda: nets.mlp(nn.Tanh(), depth=20), _X),
    "MLP-Mixer": Architecture(Mixer, _IMAGE),
    "CNN": Architecture(nets.cnn, {"x": (2, 3, 12, 12)}),
    "CNN, 3d": Architecture(_volumes, {"x": (2, 1, 8, 8, 8)}),
    "Autoencoder": Architecture(_autoencoder, _IMAGE),
    "DenseNet": Architecture(DenseNet, _IMAGE),
    "ESPCN": Architecture(_super_resolution, _IMAGE),
    "Inception": Architecture(Inception, _IMAGE),
    "Inverted residuals": Architecture(nets.mobilenet, {"x": (2, 3, 10, 10)}, since=14),
    "ResNet-18": Architecture(nets.resnet18, {"x": (2, 3, 32, 32)}),
    "U-Net, bilinear": Architecture(lambda: UNet(transposed=False), _IMAGE),
    "U-Net, transposed": Architecture(lambda: UNet(transposed=True), _IMAGE),
    "WaveNet": Architecture(WaveNet, {"x": (2, 2, 12)}),
    "RNN": Architecture(lambda: nets.Recurrent("RNN", nonlinearity="relu"), _STEPS),
    "GRU": Architecture(lambda: nets.Recurrent("GRU", num_layers=2), _STEPS),
    "LSTM": Architecture(lambda: nets.Recurrent("LSTM", num_layers=2, bidirectional=True), _STEPS),
    "LSTM to LSTM, tied": Architecture(Translator, {"ids": (2, 6), "decoder_ids": (2, 5)}),
    "Deep Speech": Architecture(Ears, {"x": (2, 4, 24)}),
    "Transformer encoder layer": Architecture(
        lambda: _attention(nn.TransformerEncoderLayer, norm_first=True),
        _TOKENS,
        refused={"torchscript": "is_causal"},
    ),
    "Transformer": Architecture(
        lambda: _attention(nn.Transformer, num_encoder_layers=1, num_decoder_layers=1),
        {"src": (2, 5, 16), "tgt": (2, 4, 16)},
        refused={"torchscript": "is_causal"},
    ),
}

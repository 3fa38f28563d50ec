"""The networks the executor is timed on: torch modules, their inputs and their exports."""

import contextlib
import io
import logging
import warnings
from collections.abc import Callable, Iterator
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import torch
from torch import Tensor, nn

_EXTERNAL = 1024  # bytes from which a weight goes to the data file


@dataclass(frozen=True)
class Network:
    """How to build the module and its inputs, and the mode it runs in.

    `fold`: the exporter may optimise as it does by default, which folds BatchNormalization away.
    `imports` is what building the module needs besides torch.
    """

    build: Callable[[], nn.Module]
    inputs: Callable[[], tuple[Tensor, ...]]
    training: bool = False
    fold: bool = True
    imports: tuple[str, ...] = ()


class _Bottleneck(nn.Module):
    """He et al. 2016, the stride on the 3x3 convolution."""

    def __init__(self, before: int, width: int, stride: int) -> None:
        super().__init__()
        after = 4 * width
        self.conv1 = nn.Conv2d(before, width, 1, bias=False)
        self.bn1 = nn.BatchNorm2d(width)
        self.conv2 = nn.Conv2d(width, width, 3, stride, 1, bias=False)
        self.bn2 = nn.BatchNorm2d(width)
        self.conv3 = nn.Conv2d(width, after, 1, bias=False)
        self.bn3 = nn.BatchNorm2d(after)
        self.relu = nn.ReLU(inplace=True)
        self.shortcut = nn.Sequential()
        if stride != 1 or before != after:
            self.shortcut = nn.Sequential(
                nn.Conv2d(before, after, 1, stride, bias=False), nn.BatchNorm2d(after)
            )

    def forward(self, x: Tensor) -> Tensor:
        y = self.relu(self.bn1(self.conv1(x)))
        y = self.relu(self.bn2(self.conv2(y)))
        return self.relu(self.bn3(self.conv3(y)) + self.shortcut(x))


def resnet50() -> nn.Module:
    blocks: list[nn.Module] = []
    before = 64
    for stage, count in enumerate((3, 4, 6, 3)):
        for k in range(count):
            width = 64 << stage
            blocks.append(_Bottleneck(before, width, 2 if k == 0 and stage else 1))
            before = 4 * width
    return nn.Sequential(
        nn.Conv2d(3, 64, 7, 2, 3, bias=False),
        nn.BatchNorm2d(64),
        nn.ReLU(inplace=True),
        nn.MaxPool2d(3, 2, 1),
        *blocks,
        nn.AdaptiveAvgPool2d(1),
        nn.Flatten(),
        nn.Linear(before, 1000),
    )


class _First(nn.Module):
    """A transformers model as a function of its token ids with one output."""

    def __init__(self, model: nn.Module, field: str) -> None:
        super().__init__()
        self.model = model
        self.field = field

    def forward(self, ids: Tensor) -> Tensor:
        return getattr(self.model(input_ids=ids), self.field)


def _bert() -> nn.Module:
    from transformers import BertConfig, BertModel

    config = BertConfig(attn_implementation="eager")
    return _First(BertModel(config, add_pooling_layer=False), "last_hidden_state")


def _gpt2() -> nn.Module:
    from transformers import GPT2Config, GPT2LMHeadModel

    config = GPT2Config(attn_implementation="eager", use_cache=False)
    return _First(GPT2LMHeadModel(config), "logits")


class _LSTM(nn.Module):
    def __init__(self) -> None:
        super().__init__()
        self.lstm = nn.LSTM(128, 256, num_layers=2)

    def forward(self, x: Tensor) -> Tensor:
        y: Tensor = self.lstm(x)[0]
        return y


def _mlp() -> nn.Module:
    layers = [m for _ in range(500) for m in (nn.Linear(128, 128), nn.ReLU())]
    net = nn.Sequential(*layers)
    for layer in layers[::2]:
        nn.init.kaiming_normal_(layer.weight, nonlinearity="relu")
    return net


def _images() -> tuple[Tensor, ...]:
    return (torch.randn(8, 3, 224, 224),)


NETWORKS = {
    "ResNet-50 (8x224x224)": Network(resnet50, _images, fold=False),
    "ResNet-50, training": Network(resnet50, _images, training=True, fold=False),
    "BERT-base (8x128)": Network(
        _bert,
        lambda: (torch.randint(0, 30522, (8, 128)),),
        imports=("transformers.models.bert.modeling_bert",),
    ),
    "GPT-2-small (4x128)": Network(
        _gpt2,
        lambda: (torch.randint(0, 50257, (4, 128)),),
        imports=("transformers.models.gpt2.modeling_gpt2",),
    ),
    "LSTM, 2 layers (T=200)": Network(_LSTM, lambda: (torch.randn(200, 16, 128),)),
    "MLP, 500 layers": Network(_mlp, lambda: (torch.randn(32, 128),)),
}


def native(network: Network) -> nn.Module:
    """The module with the same weights in every process.

    No two vectors are equal, as they are in a new network: an exporter would store them as one.
    """
    torch.manual_seed(0)  # noqa: TID251 - initialisers of torch.nn take no generator
    module = network.build().train(network.training)
    with torch.no_grad():
        for parameter in module.parameters():
            if parameter.dim() == 1:
                parameter.add_(torch.randn_like(parameter), alpha=0.02)
    return module


def fed(network: Network) -> tuple[Tensor, ...]:
    torch.manual_seed(1)  # noqa: TID251
    return network.inputs()


def export(network: Network, folder: Path, exporter: str) -> tuple[Path, Path]:
    """Two files of one model: its weights embedded, and beside it.

    In a process of its own where memory or allocations are measured afterwards.
    """
    import onnx

    module = native(network).eval()
    with _quiet():
        model = _EXPORTERS[exporter](module, fed(network), network)
    embedded, external = folder / "embedded.onnx", folder / "external.onnx"
    onnx.save(model, embedded)
    (folder / "external.data").unlink(missing_ok=True)
    onnx.save(
        model,
        external,
        save_as_external_data=True,
        location="external.data",
        size_threshold=_EXTERNAL,
    )
    return embedded, external


def _torchscript(module: nn.Module, inputs: tuple[Tensor, ...], _network: Network) -> Any:
    import onnx

    buffer = io.BytesIO()
    torch.onnx.export(
        module,
        inputs,
        buffer,
        dynamo=False,
        opset_version=17,
        training=torch.onnx.TrainingMode.PRESERVE,
    )
    return onnx.load_from_string(buffer.getvalue())


def _dynamo(module: nn.Module, inputs: tuple[Tensor, ...], network: Network) -> Any:
    return torch.onnx.export(
        module, inputs, dynamo=True, verbose=False, optimize=network.fold
    ).model_proto


_EXPORTERS = {"dynamo": _dynamo, "torchscript": _torchscript}
EXPORTERS = tuple(_EXPORTERS)


@contextlib.contextmanager
def _quiet() -> Iterator[None]:
    """The exporters warn of their own deprecation, and print and log what they do."""
    logging.disable(logging.WARNING)
    try:
        with (
            warnings.catch_warnings(),
            contextlib.redirect_stdout(io.StringIO()),
            contextlib.redirect_stderr(io.StringIO()),
        ):
            warnings.simplefilter("ignore")
            yield
    finally:
        logging.disable(logging.NOTSET)

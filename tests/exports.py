"""torch's two ONNX exporters behind one call, with their chatter and warnings."""

import io
from collections.abc import Iterable, Sized
from dataclasses import dataclass
from typing import Literal

import onnx
import torch
from torch import Tensor, nn

from gradgauge_client._module import quiet

Exporter = Literal["torchscript", "dynamo"]


@dataclass(frozen=True)
class Export:
    """An exported model and what it was exported from; `native` is in evaluation mode."""

    model: onnx.ModelProto
    native: nn.Module
    inputs: tuple[Tensor, ...]
    opset: int

    def feed(self, inputs: Iterable[Tensor]) -> dict[str, Tensor]:
        """By name, without those that no output needs: the TorchScript exporter drops them."""
        kept = {v.name for v in self.model.graph.input}
        return {n: x for n, x in zip(_names(self.inputs), inputs, strict=True) if n in kept}


def export(
    net: nn.Module,
    inputs: tuple[Tensor, ...],
    *,
    exporter: Exporter = "torchscript",
    opset: int = 17,
    dynamic_batch: bool = False,
    optimize: bool = True,
) -> Export:
    """Export `net` at exactly this opset.

    `net` is put in evaluation mode. The TorchScript exporter keeps BatchNormalization unfused
    (TrainingMode.PRESERVE), the dynamo exporter only with `optimize=False`; torch's attention fast
    path, which no exporter can follow, is off meanwhile.
    """
    net.eval()
    was = torch.backends.mha.get_fastpath_enabled()
    torch.backends.mha.set_fastpath_enabled(False)
    try:
        with quiet():
            if exporter == "dynamo":
                model = _dynamo(net, inputs, opset, dynamic_batch=dynamic_batch, optimize=optimize)
            else:
                model = _torchscript(
                    net, inputs, opset, dynamic_batch=dynamic_batch, optimize=optimize
                )
    finally:
        torch.backends.mha.set_fastpath_enabled(was)
    opsets = {o.domain: o.version for o in model.opset_import}
    assert opsets[""] == opset, f"asked for opset {opset}, got {opsets}"
    return Export(model, net, inputs, opsets[""])


def _torchscript(
    net: nn.Module, inputs: tuple[Tensor, ...], opset: int, *, dynamic_batch: bool, optimize: bool
) -> onnx.ModelProto:
    names = _names(inputs)
    buffer = io.BytesIO()
    torch.onnx.export(
        net,
        inputs,
        buffer,
        dynamo=False,
        opset_version=opset,
        training=torch.onnx.TrainingMode.PRESERVE,
        do_constant_folding=optimize,
        input_names=names,
        dynamic_axes={n: {0: "batch"} for n in names} if dynamic_batch else None,
    )
    return onnx.load_from_string(buffer.getvalue())


def _dynamo(
    net: nn.Module, inputs: tuple[Tensor, ...], opset: int, *, dynamic_batch: bool, optimize: bool
) -> onnx.ModelProto:
    shapes = tuple({0: torch.export.Dim.DYNAMIC} for _ in inputs) if dynamic_batch else None
    program = torch.onnx.export(
        net,
        inputs,
        dynamo=True,
        opset_version=opset,
        verbose=False,
        input_names=_names(inputs),
        dynamic_shapes=shapes,
        optimize=optimize,
    )
    return program.model_proto


def _names(inputs: Sized) -> list[str]:
    return [f"input{i}" for i in range(len(inputs))]

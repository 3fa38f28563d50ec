"""One stage of the sampled engine on one model, as the stages are handed it."""

from dataclasses import replace

import torch

from gradgauge.graph.layers import find_layers
from gradgauge.graph.read_onnx import read_onnx
from gradgauge.graph.reading import read
from gradgauge.sampled.case import Found, Measured, compiled
from gradgauge.sampled.executor import Executable
from gradgauge.sampled.frame import Setting, find_frame
from gradgauge.sampled.probes import plan_draws


def staged(
    model: bytes,
    *,
    batch: int = 8,
    dtype: torch.dtype = torch.float64,
    loss: str = "random_cotangent",
    data=None,
    norm_mode: str = "auto",
    device: torch.device | None = None,
) -> tuple[Measured, Executable]:
    graph = read_onnx(model)
    layers, reading = find_layers(graph.model), read(graph.model, data=data, norm_mode=norm_mode)
    draws = plan_draws(reading, "quick", batch)
    setting = Setting(dtype, 0, loss, 0, draws.batch, device or torch.device("cpu"))
    exe = compiled(graph.model, reading, setting)
    frame = find_frame(exe, layers, reading, setting)
    return Measured(graph.model, layers, reading, setting, frame, draws), exe


def staged_on(model: bytes, device: torch.device) -> tuple[Measured, Executable]:
    return staged(model, dtype=torch.float32, device=device)


def narrowed(case: Measured, dtype: torch.dtype) -> Measured:
    return replace(case, setting=replace(case.setting, dtype=dtype))


def named(found: Found) -> dict[str, float]:
    return {m.name: m.value for m in found.measurements}


def by_name(case: Measured, found: Found) -> dict[str, dict]:
    names = {layer.id: layer.name for layer in case.layers}
    return {names[key]: dict(held) for key, held in found.layers.items()}

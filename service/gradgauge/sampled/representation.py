"""What layers make of the inputs: how many directions they use, how sharply attention looks."""

from functools import partial

import torch
from torch import Tensor

from gradgauge.graph.layers import Layer
from gradgauge.sampled.case import Found, Measured, told
from gradgauge.sampled.executor import Executable
from gradgauge.sampled.frame import feed
from gradgauge.sampled.samples import effective_rank
from gradgauge.schema.profile import Measurement

ROWS = 256  # positions and inputs a layer's effective rank is taken of
TOGETHER = 1 << 18  # elements of outputs that are looked at together


def representation(case: Measured, exe: Executable) -> Found:
    """Effective rank of every parameter layer's output, entropy of every attention map."""
    by_output = {layer.output: layer for layer in case.layers}
    ranks = _Ranks()
    found: dict[str, list[Measurement]] = {}
    exe.intercept(by_output, partial(_look, case, by_output, ranks, found))
    with torch.no_grad():
        exe(*feed(exe, case.setting, case.reading, torch.Generator(), 0))
    held = ranks.finish()
    return Found(
        layers={
            key: {"measurements": (*held.get(key, ()), *found.get(key, ()))}
            for key in (layer.id for layer in case.layers)
            if key in held or key in found
        }
    )


def _look(
    case: Measured,
    by_output: dict[str, Layer],
    ranks: "_Ranks",
    found: dict[str, list[Measurement]],
    name: str,
    y: Tensor,
) -> Tensor:
    layer = by_output[name]
    if not y.is_floating_point() or y.ndim < 2 or not y.numel():
        return y
    if layer.kind in {"linear", "embedding", "recurrent", "add"}:
        ranks.add(layer.id, y, case.frame.units.get(name, -1))
    if layer.op == "Softmax" and y.ndim >= 3:
        found.setdefault(layer.id, []).append(_entropy(y))
    return y


class _Ranks:
    """Effective ranks by layer; outputs of one shape wait for each other up to so many elements."""

    def __init__(self) -> None:
        self._found: dict[str, tuple[Measurement, ...]] = {}
        self._waiting: dict[torch.Size, list[tuple[str, Tensor]]] = {}

    def add(self, key: str, y: Tensor, unit: int) -> None:
        """Note up to ROWS outputs of a layer, whose axis of units is `unit`."""
        units = y.movedim(unit if -y.ndim <= unit < y.ndim else -1, -1)
        flat = units.reshape(-1, units.shape[-1])
        flat = flat[:: max(1, flat.shape[0] // ROWS)][:ROWS].double()
        waiting = self._waiting.setdefault(flat.shape, [])
        waiting.append((key, flat))
        if len(waiting) * flat.numel() >= TOGETHER:
            self._reduce(flat.shape)

    def finish(self) -> dict[str, tuple[Measurement, ...]]:
        """All of them."""
        for shape in list(self._waiting):
            self._reduce(shape)
        return self._found

    def _reduce(self, shape: torch.Size) -> None:
        held = self._waiting.pop(shape)
        flat = torch.stack([x for _, x in held])
        top = flat.abs().amax(dim=(1, 2))
        known = (top > 0) & top.isfinite()
        flat = flat[known] / top[known, None, None]
        gram = flat @ flat.mT if shape[0] <= shape[1] else flat.mT @ flat
        values = torch.linalg.eigvalsh(gram).cpu().numpy()
        note = f"of {shape[0]} outputs by {shape[1]} units"
        keys = [key for (key, _), kept in zip(held, known.tolist(), strict=True) if kept]
        for key, each in zip(keys, values, strict=True):
            self._found[key] = (told("effective_rank", effective_rank(each), "1", note),)


def _entropy(y: Tensor) -> Measurement:
    """Mean over queries of the entropy of the weights; 1 looks at all keys alike, 0 at one."""
    p = y.double()
    each = -torch.xlogy(p, p).sum(-1)
    keys = (p > 0).sum(-1).clamp_min(2)  # masked keys do not count
    share = float((each / keys.double().log()).mean())
    low, high = torch.quantile(_some(each), torch.tensor([0.05, 0.95], dtype=each.dtype)).tolist()
    note = f"share of log(keys); in nats 5 % and 95 % of queries: {low:.3g}, {high:.3g}"
    return told("attention_entropy", share, "1", note)


def _some(x: Tensor) -> Tensor:
    flat = x.reshape(-1)
    return flat[:: max(1, flat.numel() // 100_000)].cpu()

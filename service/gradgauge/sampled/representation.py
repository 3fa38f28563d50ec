"""What layers make of the inputs: how many directions they use, how sharply attention looks."""

import math
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


def representation(case: Measured, exe: Executable) -> Found:
    """Effective rank of every parameter layer's output, entropy of every attention map."""
    by_output = {layer.output: layer for layer in case.layers}
    found: dict[str, list[Measurement]] = {}
    exe.intercept(by_output, partial(_look, case, by_output, found))
    with torch.no_grad():
        exe(*feed(exe, case.setting, case.reading, torch.Generator(), 0))
    return Found(layers={key: {"measurements": tuple(held)} for key, held in found.items()})


def _look(
    case: Measured,
    by_output: dict[str, Layer],
    found: dict[str, list[Measurement]],
    name: str,
    y: Tensor,
) -> Tensor:
    layer = by_output[name]
    if not y.is_floating_point() or y.ndim < 2 or not y.numel():
        return y
    if layer.kind in {"linear", "embedding", "recurrent", "add"}:
        held = _rank(y, case.frame.units.get(name, -1))
        if held is not None:
            found.setdefault(layer.id, []).append(held)
    if layer.op == "Softmax" and y.ndim >= 3:
        found.setdefault(layer.id, []).append(_entropy(y))
    return y


def _rank(y: Tensor, unit: int) -> Measurement | None:
    units = y.movedim(unit if -y.ndim <= unit < y.ndim else -1, -1)
    flat = units.reshape(-1, units.shape[-1])
    flat = flat[:: max(1, flat.shape[0] // ROWS)][:ROWS].double()
    top = flat.abs().amax()
    if not 0 < float(top) < math.inf:
        return None
    flat = flat / top
    gram = flat @ flat.T if flat.shape[0] <= flat.shape[1] else flat.T @ flat
    rank = effective_rank(torch.linalg.eigvalsh(gram).cpu().numpy())
    return told("effective_rank", rank, "1", f"of {len(flat)} outputs by {flat.shape[1]} units")


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

"""Six short training runs of a network, stacked; of some a second time in another data order."""

import math
import time
from typing import Any

import numpy as np
import torch
from benchmarks.trainability.data import batches, pool
from benchmarks.trainability.nets import forward
from benchmarks.trainability.specs import STEPS, TRIES, Spec
from benchmarks.trainability.stacked import Stacked, fed
from benchmarks.trainability.weights import weights
from torch import Tensor
from torch.nn import functional

BATCH = 128
TAIL = 10  # steps whose mean loss is a run's end
HOPELESS = 60  # steps after which a network of which no run has learnt a thing is left
MOMENTUM = 0.9


def orders(spec: Spec) -> int:
    """Every seventh network is trained in two data orders."""
    return 2 if spec["number"] % 7 == 3 else 1


def train(spec: Spec) -> dict[str, Any]:
    """Losses of every run by step (coarsely), its end, whether it diverged; sizes at the start."""
    since = time.perf_counter()
    held, frozen = weights(spec)
    count, copies = orders(spec), len(TRIES)
    runs = count * copies
    sizes = [w.size for w in held.values()]
    flat = torch.from_numpy(np.concatenate([w.ravel() for w in held.values()]))
    flat = flat.repeat(runs, 1).requires_grad_()
    move = _mover(count, flat)
    x, y = (torch.from_numpy(v) for v in pool(spec))
    steps = STEPS[spec["family"]]
    plans = [batches(spec, BATCH, steps, order=k) for k in range(count)]
    losses: list[np.ndarray] = []
    first: dict[str, float] = {}
    for step in range(steps):
        taken = torch.from_numpy(np.stack([plan[step] for plan in plans]))
        parts = torch.split(flat, sizes, 1)
        params = {k: p.view(runs, *w.shape) for (k, w), p in zip(held.items(), parts, strict=True)}
        tape = Stacked(params, frozen, runs)
        z = forward(spec, tape, fed(x[taken], spec["family"], runs, copies))
        loss = batch_losses(z, y[taken].repeat_interleave(copies, 0))
        losses.append(loss.detach().numpy())
        (g,) = torch.autograd.grad(loss.sum(), flat)
        if step == 0:
            first = _sizes(held, g[0])
        move(g, step + 1)
        if not np.isfinite(losses[-1]).any() or _hopeless(losses, spec):
            break
    curve = np.array(losses)
    return {
        "id": spec["id"],
        "runs": [_run(curve[:, k], k) for k in range(runs)],
        "gradients": first,
        "seconds": round(time.perf_counter() - since, 2),
    }


def batch_losses(z: Tensor, y: Tensor) -> Tensor:
    """Per run."""
    if z.shape[-1] == 1:
        return (z[..., 0] - y).square().mean(1)
    flat = functional.cross_entropy(z.reshape(-1, z.shape[-1]), y.reshape(-1), reduction="none")
    return flat.view(len(z), -1).mean(1)


def _mover(count: int, flat: Tensor) -> Any:
    """SGD with momentum in the first runs, Adam in the others, as torch.optim does them."""
    rate = torch.tensor([lr for _, lr in TRIES] * count)[:, None]
    adam = torch.tensor([name == "adam" for name, _ in TRIES] * count)
    m, v = torch.zeros_like(flat), torch.zeros(int(adam.sum()), flat.shape[1])
    decay = torch.where(adam, 0.9, MOMENTUM)[:, None]
    share = torch.where(adam, 0.1, 1.0)[:, None]

    def move(g: Tensor, step: int) -> None:
        with torch.no_grad():
            m.mul_(decay).add_(g * share)
            v.mul_(0.999).addcmul_(g[adam], g[adam], value=0.001)
            change = m.clone()
            root = (v / (1 - 0.999**step)).sqrt_().add_(1e-8)
            change[adam] = change[adam] / (1 - 0.9**step) / root
            flat.sub_(change * rate)

    return move


def _hopeless(losses: list[np.ndarray], spec: Spec) -> bool:
    if len(losses) != HOPELESS or spec["family"] == "rnn":
        return False
    ends = np.mean(losses[-TAIL:], 0)
    return not bool((ends < 0.985 * min(float(np.nanmin(losses[0])), math.log(10))).any())


def _sizes(held: dict[str, np.ndarray], g: Tensor) -> dict[str, float]:
    """2-norm of every weight's gradient at the start, log10; -99 for zero."""
    parts = torch.split(g.double(), [w.size for w in held.values()])
    found = {k: float(p.norm()) for k, p in zip(held, parts, strict=True) if k[-1] in "WR"}
    return {k: round(math.log10(v), 3) if v > 0 else -99.0 for k, v in found.items()}


def _run(curve: np.ndarray, k: int) -> dict[str, Any]:
    name, lr = TRIES[k % len(TRIES)]
    finite = bool(np.isfinite(curve).all())
    coarse = [_short(v) for v in curve[:: max(1, len(curve) // 8)]]
    end = _short(float(np.mean(curve[-TAIL:]))) if finite else None
    return {"optimizer": name, "lr": lr, "order": k // len(TRIES), "steps": len(curve),
            "end": end, "curve": coarse}  # fmt: skip


def _short(value: float) -> float | None:
    return float(f"{value:.4g}") if math.isfinite(value) else None

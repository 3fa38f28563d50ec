"""Published detectors at initialisation, on the benchmark's own networks: what ours stands beside.

Their thresholds are those their authors ship; each looks at one batch's true gradients.
"""

import math
from typing import Any

import numpy as np
import torch
from benchmarks.trainability.data import batches, pool
from benchmarks.trainability.nets import forward
from benchmarks.trainability.specs import Spec
from benchmarks.trainability.stacked import Stacked, fed
from benchmarks.trainability.train import BATCH, batch_losses
from benchmarks.trainability.weights import weights

NAMES = {
    "depth": "depth alone",
    "first_to_last": "first / last gradient, |log10|",
    "smd_vanishing": "SageMaker Debugger VanishingGradient",
    "smd_poor_init": "SageMaker Debugger PoorWeightInitialization (variance ratio)",
    "auto_trainer": "AutoTrainer (vanishing, exploding or dying)",
    "deep_diagnosis": "DeepDiagnosis (weight variance)",
    "torchmortem": "torchmortem (last / first > 100)",
    "neuraldbg": "neuraldbg (1e-6, 1e3)",
    "training_doctor": "training-doctor (norm < .01 or > 10)",
    "torchlens": "TorchLens (1e-7, 1e4)",
}


def rules(spec: Spec) -> dict[str, float]:
    """By detector: 1 where it raises an alarm, else 0; depth and the ratio are numbers."""
    held, frozen = weights(spec)
    params = {k: torch.from_numpy(v)[None].requires_grad_() for k, v in held.items()}
    x, y = (torch.from_numpy(v) for v in pool(spec))
    taken = batches(spec, BATCH, 1)[0]
    z = forward(spec, Stacked(params, frozen, 1), fed(x[taken][None], spec["family"], 1, 1))
    loss = batch_losses(z, y[taken][None])[0]
    found = torch.autograd.grad(loss, list(params.values()))
    grads = {k: g[0].double() for k, g in zip(params, found, strict=True)}
    kernels = [k for k in grads if k[-1] in "WR"]
    return _judged(spec, held, grads, kernels, float(loss.detach()))


def _judged(
    spec: Spec,
    held: dict[str, Any],
    grads: dict[str, torch.Tensor],
    kernels: list[str],
    loss: float,
) -> dict[str, float]:
    norms = [float(grads[k].norm()) for k in kernels]
    means = [float(g.abs().mean()) for g in grads.values()]
    first, last = norms[0], norms[-1]
    ratio = first / last if last > 0 else math.inf
    zeros = float(torch.cat([g.reshape(-1) for g in grads.values()]).eq(0).double().mean())
    variances = [float(np.var(held[k])) for k in kernels]
    least, most = min(variances), max(variances)
    broken = not all(map(math.isfinite, (*norms, loss)))
    vanished = ratio < 1e-3 and first < 1e-4
    alarms = {
        "smd_vanishing": min(means) < 1e-7,
        "smd_poor_init": most > 10 * least,
        "auto_trainer": vanished or ratio > 70 or loss >= 1e3 or zeros >= 0.7,
        "deep_diagnosis": least < 1e-5 or most > 10,
        "torchmortem": first == 0 or last / first > 100,
        "neuraldbg": min(norms) < 1e-6 or max(norms) > 1e3,
        "training_doctor": min(norms) < 0.01 or max(norms) > 10,
        "torchlens": min(norms) < 1e-7 or max(norms) > 1e4,
    }
    measured = {
        "depth": float(spec["depth"]),
        "first_to_last": abs(math.log10(max(first, 1e-40)) - math.log10(max(last, 1e-40))),
    }
    return measured | {k: float(v or (broken and k != "deep_diagnosis")) for k, v in alarms.items()}

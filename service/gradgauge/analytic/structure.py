"""Recurrent matrices whose powers grow otherwise than those of a random one of the same size.

Steps taken as independent follow a random matrix, whose spectral radius is its RMS gain
|W|_F / sqrt(n) (Girko's circular law); a symmetric one's is twice that (Wigner).
"""

import math

import torch
from torch import Tensor

from gradgauge.analytic.forward import Record, Trace
from gradgauge.analytic.moments import Known, Signal

POWER = 5  # squarings
RATIO = 1.35  # of growth per step to the RMS gain; a symmetric matrix's is 1.8, a random one's 1.1
RECURRENT = frozenset({"RNN", "LSTM", "GRU"})
NOTE = "structured_recurrence"


def growth(W: Tensor) -> float:
    """(|W^k|_F / sqrt(n))^(1/k) over |W|_F / sqrt(n) for k = 32."""
    n = W.shape[0]
    norm = float(torch.linalg.vector_norm(W))
    if norm == 0 or not math.isfinite(norm):
        return 1.0
    power, log = W * (math.sqrt(n) / norm), 0.0
    for _ in range(POWER):
        power, log = power @ power, 2 * log
        size = float(torch.linalg.vector_norm(power)) / math.sqrt(n)
        if size == 0:
            return 0.0
        power, log = power / size, log + math.log(size)
    return math.exp(log / 2**POWER)


def before(trace: Trace) -> set[str]:
    """Values whose gradient passed a structured recurrent matrix on its way back."""
    held: dict[str, bool] = {}
    found: set[str] = set()
    for record in reversed(trace.records):
        if any(n in found for n in record.outputs) or _structured(record, trace, held):
            found.update(n for n in record.inputs if isinstance(trace.values.get(n), Signal))
    return found


def _structured(record: Record, trace: Trace, held: dict[str, bool]) -> bool:
    call = record.call
    if call is None or record.step is None:
        return False
    names = [n for n, v in zip(call.names, call.inputs, strict=True) if isinstance(v, Known)]
    if call.op in RECURRENT:
        place = call.names[2]
    elif call.op in {"MatMul", "Gemm"} and names and trace.readers[names[0]] > 1:
        place = names[0]
    else:
        return False
    if place not in held:
        held[place] = _any_square(trace, place)
    return held[place]


def _any_square(trace: Trace, name: str) -> bool:
    """Whether a gate's matrix, or the matrix itself, is structured."""
    value = trace.values.get(name)
    if not isinstance(value, Known) or value.varying:
        return False
    n = value.tensor.shape[-1]
    W = value.tensor.to(torch.float64).reshape(-1, n)
    if n < 2 or W.shape[0] % n:
        return False
    return any(growth(part) > RATIO for part in W.reshape(-1, n, n))

"""Singular values of layers' own linear maps, an optional stage of the analytic engine.

A matrix's from the eigenvalues of its Gram matrix in float64; a convolution's largest by Lanczos on
the op and its transpose, exact for padding, stride and groups, where Fourier methods and randomised
projections are per cents off (THEORY section 3).
"""

import math
from collections.abc import Callable, Sequence
from dataclasses import dataclass

import numpy as np
import torch
from torch import Tensor

from gradgauge.analytic.call import Call
from gradgauge.analytic.forward import Trace
from gradgauge.analytic.moments import Known, Signal

DENSE = 2048  # the smaller side up to which all singular values are computed
WHOLE = 1 << 20  # entries of a convolution's matrix up to which it is written out
RESOLVED = 1e-6  # sigma_min / sigma_max below which squares have lost it
TOLERANCE = 1e-6  # of Lanczos, relative
SEED = 13
_Map = Callable[[np.ndarray], np.ndarray]


@dataclass(frozen=True, slots=True)
class Spectrum:
    """Of one linear map: `sigma_min` is the least of its min(rows, columns) singular values.

    `stable_rank` is the squared Frobenius norm over the squared largest singular value.
    """

    sigma_max: float
    sigma_min: float | None
    stable_rank: float | None


def of_trace(trace: Trace) -> dict[str, Spectrum]:
    """By node name; a weight that many nodes apply alike, as an unrolled cell's, is met once."""
    found: dict[str, Spectrum] = {}
    seen: dict[tuple[object, ...], Spectrum | None] = {}
    for record in trace.records:
        call = record.call
        if call is None or record.step is None:
            continue
        shapes = tuple(v.shape[1:] for v in call.inputs if isinstance(v, Signal))
        pairs = zip(call.names, call.inputs, strict=True)
        weights = tuple(name for name, v in pairs if isinstance(v, Known))
        key = (call.op, weights, shapes, repr(call.attributes))
        if key not in seen:
            seen[key] = of_call(call)
        spectrum = seen[key]
        if spectrum is not None:
            found[record.name] = spectrum
    return found


def of_call(call: Call) -> Spectrum | None:
    """The node's map from its activation to its output; None where it has none."""
    if call.op in {"Conv", "ConvTranspose"}:
        x, W = call.signal(0), call.exact(1)
        if x is None or W is None:
            return None
        return of_operator(lambda t, V: call.run(t, V, **call.attributes), x.shape, W)
    if call.op in {"MatMul", "Gemm"} and len(call.signals) == 1:
        W = call.exact(1 - call.signals[0])
        scale = float(call.attributes.get("alpha", 1.0))
        return None if W is None or W.ndim != 2 else of_matrix(W * scale)
    if call.op in {"RNN", "LSTM", "GRU"}:
        R = call.exact(2)
        # All gates of all directions at once: what one step does to the state before it.
        return None if R is None else of_matrix(R.reshape(-1, R.shape[-1]))
    return None


def of_matrix(W: Tensor) -> Spectrum | None:
    """Of a matrix in float64."""
    top = float(W.abs().max()) if W.numel() else 0.0
    if top == 0 or not math.isfinite(top):
        return None
    A = W / top
    square = float(A.square().sum())
    if min(A.shape) > DENSE:
        largest = _lanczos(tuple(A.shape), A.numpy().dot, A.T.numpy().dot)
        return None if largest is None else Spectrum(largest * top, None, square / largest**2)
    gram = A @ A.T if A.shape[0] <= A.shape[1] else A.T @ A
    values = torch.linalg.eigvalsh(gram).clamp_min(0.0).sqrt()
    largest, least = float(values[-1]), float(values[0])
    if least < RESOLVED * largest:
        values = torch.linalg.svdvals(A)
        largest, least = float(values[0]), float(values[-1])
    return Spectrum(largest * top, least * top, square / largest**2)


def of_operator(
    run: Callable[[Tensor, Tensor], Tensor], shape: Sequence[int], W: Tensor
) -> Spectrum | None:
    """Of a convolution, linear in one input of this shape, each of whose entries is one of W."""
    if not float(W.abs().max()) > 0:
        return None
    zero = torch.zeros(tuple(shape), dtype=torch.float64, requires_grad=True)
    with torch.enable_grad():
        y = run(zero, W)
    n_in, n_out = zero.numel(), y.numel()
    if n_in * n_out <= WHOLE:
        eye = torch.eye(n_in, dtype=torch.float64).reshape(n_in, *zero.shape[1:])
        with torch.no_grad():
            return of_matrix(run(eye, W).reshape(n_in, -1))

    def forward(v: np.ndarray) -> np.ndarray:
        with torch.no_grad():
            made = run(torch.from_numpy(v.reshape(zero.shape)), W)
        return np.asarray(made.reshape(-1).numpy())

    def transposed(u: np.ndarray) -> np.ndarray:
        held = torch.from_numpy(u.reshape(y.shape))
        (found,) = torch.autograd.grad(y, zero, held, retain_graph=True)
        return np.asarray(found.reshape(-1).numpy())

    largest = _lanczos((n_out, n_in), forward, transposed)
    with torch.no_grad():
        square = float(run(torch.ones_like(zero), W * W).sum())
    return None if largest is None else Spectrum(largest, None, square / largest**2)


def _lanczos(shape: tuple[int, ...], forward: _Map, transposed: _Map) -> float | None:
    from scipy.sparse.linalg import (  # noqa: PLC0415 - too large a map's alone
        ArpackError,
        LinearOperator,
        svds,
    )

    operator = LinearOperator(shape, matvec=forward, rmatvec=transposed, dtype=np.float64)
    start = np.random.default_rng(SEED).normal(size=min(shape))
    try:
        found = svds(operator, k=1, tol=TOLERANCE, v0=start, return_singular_vectors=False)
    except ArpackError:
        return None
    return float(found[0])

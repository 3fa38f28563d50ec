"""Singular values of what can only be multiplied with: Golub-Kahan bidiagonalisation."""

from collections.abc import Callable

import numpy as np

TINY = 1e-6  # of the largest: float32 tells no smaller one from rounding


def lanczos(
    forward: Callable[[np.ndarray], np.ndarray],
    back: Callable[[np.ndarray], np.ndarray],
    start: np.ndarray,
    rounds: int,
    outputs: int,
    first: np.ndarray | None = None,
    enough: Callable[[int], bool] = lambda _done: False,
) -> tuple[np.ndarray, bool]:
    """Singular values after so many rounds, and whether they are all that differ.

    `first` is what `forward` makes of the start, where that is known already; `enough` is asked
    after each round and ends it before the last.

    The smallest of them bounds the true one from above: J restricted to the rows or columns seen.
    """
    size = np.linalg.norm(start)
    v = start / size
    # one array for all vectors of a side: to stack them anew in every round costs more than a pass
    V, U = np.empty((rounds, len(start))), np.empty((rounds, outputs))
    V[0] = v
    alphas, betas = list[float](), list[float]()
    u = forward(v) if first is None else first / size
    tall = outputs >= len(start)
    while True:
        count = len(alphas)
        u = _without(u, U[:count])
        alphas.append(float(np.linalg.norm(u)))
        if alphas[-1] <= TINY * max(alphas):
            break
        U[count] = u / alphas[-1]
        last = len(alphas) == rounds or enough(len(alphas))
        if tall and last and len(alphas) < len(start):
            break
        w = _without(back(U[count]) - alphas[-1] * v, V[: count + 1])
        betas.append(float(np.linalg.norm(w)))
        if last or betas[-1] <= TINY * max(alphas):
            break
        v = w / betas[-1]
        V[count + 1] = v
        u = forward(v) - betas[-1] * U[count]
    count = len(alphas)
    B = np.zeros((count, count + 1))
    B[range(count), range(count)] = alphas
    B[range(len(betas)), range(1, len(betas) + 1)] = betas
    seen = B[:, :count] if tall else B
    values: np.ndarray = np.linalg.svd(seen, compute_uv=False)
    ended = alphas[-1] if len(betas) < count else betas[-1]
    return values, ended <= TINY * max(alphas)


def _without(x: np.ndarray, Q: np.ndarray) -> np.ndarray:
    """Less its part along the rows of Q, twice, which is enough (Parlett 1980)."""
    if not len(Q):
        return x
    for _ in range(2):
        x = x - Q.T @ (Q @ x)
    return x

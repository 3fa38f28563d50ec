"""The three recurrent cells, RNN, LSTM and GRU, one step forward and one step back."""

from collections.abc import Iterable

import torch
from torch import Tensor

from gradgauge.analytic import cells
from gradgauge.analytic.cells import Back, Gate, State, Weights


def rnn(weights: Weights, x: tuple[Tensor, Tensor], s: State) -> tuple[State, Back]:
    """One tanh, ReLU or sigmoid layer: h' = phi(W x + R h + b)."""
    mean, cov, _ = cells.linear(weights, x, s)
    g = weights.gate(0, mean, cov.diagonal())
    made = cells.widened(torch.diag(g.r.rate), cov, g.r.var)
    back = Back(g.r.rate[None, None], g.r.slope[None, None, None, None])
    return State(g.mean, made), back


def lstm(weights: Weights, x: tuple[Tensor, Tensor], s: State) -> tuple[State, Back]:
    """ONNX's gates are i, o, f, c: c' = f c + i g, h' = o tanh(c')."""
    n = weights.n
    mean, cov, cross = cells.linear(weights, x, s)
    var = cov.diagonal().clamp_min(0.0)
    i, o, f = (weights.gate(0, mean[k * n : k * n + n], var[k * n : k * n + n]) for k in range(3))
    g = weights.gate(1, mean[3 * n :], var[3 * n :])
    mc, vc = s.mean[n:], s.cov.diagonal()[n:].clamp_min(0.0)
    with_c = f.r.rate * cross[2 * n : 3 * n, n:].diagonal()
    with_g = i.r.rate * g.r.rate * cov[:n, 3 * n :].diagonal()
    qc = mc * mc + vc
    new_mean = f.mean * mc + with_c + i.mean * g.mean + with_g
    own = (f.square * qc - (f.mean * mc) ** 2) + (i.square * g.square - (i.mean * g.mean) ** 2)
    zero = torch.zeros_like(mean[:n])
    rows = [i.r.rate * g.mean, zero, f.r.rate * mc, i.mean * g.r.rate, f.mean]
    whole = _join(cov, cross[:, n:], s.cov[n:, n:])
    J = torch.cat([torch.diag(r) for r in rows], 1)
    linear_own = (J @ whole @ J.T).diagonal()
    independent = sum(
        (r * r * v for r, v in zip(rows, [*var.reshape(4, n), vc], strict=True)), start=zero
    )
    var_c = (own + linear_own - independent).clamp_min(1e-6 * own.clamp_min(0.0))
    out = weights.gate(2, new_mean, var_c)
    K = torch.cat(
        [torch.diag(out.r.rate) @ J[:, k * n : k * n + n] * o.mean[:, None] for k in range(5)], 1
    )
    K[:, n : 2 * n] += torch.diag(out.mean * o.r.rate)
    both = torch.cat([K, J], 0)
    var_h = o.square * out.square - (o.mean * out.mean) ** 2
    made = cells.widened(both, whole, torch.cat([var_h, var_c]))
    state = State(torch.cat([o.mean * out.mean, new_mean]), made)
    return state, _lstm_back(i, o, f, g, out, mc, qc)


def _lstm_back(i: Gate, o: Gate, f: Gate, g: Gate, out: Gate, mc: Tensor, qc: Tensor) -> Back:
    """From (g_h', g_c') to the gates i, o, f, c and to c: means and second moments."""
    n = len(mc)
    means, seconds = mc.new_zeros((2, 5, n)), mc.new_zeros((2, 2, 5, 5, n))
    # Through c': its own gradient, and h's times o tanh'(c').
    first = torch.stack([i.r.rate * g.mean, 0 * mc, f.r.rate * mc, i.mean * g.r.rate, f.mean])
    second = first[:, None] * first[None, :]
    second[0, 0], second[3, 3] = i.r.slope * g.square, i.square * g.r.slope
    second[2, 2], second[4, 4] = f.r.slope * qc, f.square
    second[2, 4] = second[4, 2] = f.product * mc
    second[0, 3] = second[3, 0] = i.product * g.product
    into, into2 = o.mean * out.r.rate, o.square * out.r.slope
    means[1], means[0] = first, into * first
    means[0, 1] = out.mean * o.r.rate
    seconds[1, 1] = second
    seconds[0, 0] = into2 * second
    seconds[0, 0, 1, 1] = out.square * o.r.slope
    mixed = o.product * out.product * first
    seconds[0, 0, 1] += mixed
    seconds[0, 0, :, 1] += mixed
    seconds[0, 1], seconds[1, 0] = into * second, into * second
    seconds[0, 1, 1], seconds[1, 0, :, 1] = means[0, 1] * first, means[0, 1] * first
    return Back(means, seconds)


def _join(a: Tensor, cross: Tensor, b: Tensor) -> Tensor:
    return torch.cat([torch.cat([a, cross], 1), torch.cat([cross.T, b], 1)], 0)


def gru(weights: Weights, x: tuple[Tensor, Tensor], s: State) -> tuple[State, Back]:
    """ONNX's gates are z, r, h: h' = (1 - z) m + z h; m = phi(W x + r (R h + b))."""
    n = weights.n
    mean, cov, cross = cells.linear(weights, x, s)
    var = cov.diagonal().clamp_min(0.0)
    z, r = (weights.gate(0, mean[k * n : k * n + n], var[k * n : k * n + n]) for k in range(2))
    mh, vh = s.mean, s.cov.diagonal().clamp_min(0.0)
    W, R = weights.W[2 * n :], weights.R[2 * n :]
    # u = R h + rb, scaled by the reset gate.
    mu = R @ s.mean + weights.rb[2 * n :]
    cov_u = R @ s.cov @ R.T
    qu = mu * mu + cov_u.diagonal()
    through_r = torch.diag(r.mean) @ R
    ma = W @ x[0] + weights.wb[2 * n :] + r.mean * mu
    reset = r.square * qu - (r.mean * mu) ** 2
    va = (W * W) @ x[1] + reset.clamp_min(0.0)
    m = weights.gate(1, ma, va)
    new_mean = (1 - z.mean) * m.mean + z.mean * mh
    away = 1 - 2 * z.mean + z.square
    own = away * m.square - ((1 - z.mean) * m.mean) ** 2
    own = own + z.square * (mh * mh + vh) - (z.mean * mh) ** 2
    own = own + 2 * ((z.mean - z.square) - (1 - z.mean) * z.mean) * m.mean * mh
    # Sources of the linear part: gates z and r, the input of m, the old state.
    sources = _gru_sources(weights, x, cov, cross, s)
    keep = torch.diag((1 - z.mean) * m.r.rate)
    to_r = torch.diag(mu * r.r.rate)
    J = torch.cat(
        [
            torch.diag((mh - m.mean) * z.r.rate),
            keep @ to_r,
            keep,
            keep @ through_r + torch.diag(z.mean),
        ],
        1,
    )
    linear = J @ sources @ J.T
    own = torch.maximum(own, linear.diagonal() * 0.5)
    lag = 2 * (1 - z.mean) * m.r.rate * z.mean * (through_r @ s.cov).diagonal()
    linear.diagonal().copy_((own + lag).clamp_min(1e-12))
    return State(new_mean, linear), _gru_back((z, r, m), (mh, vh), (mu, qu))


def _gru_sources(
    weights: Weights, x: tuple[Tensor, Tensor], cov: Tensor, cross: Tensor, s: State
) -> Tensor:
    """Covariance of (z's and r's arguments, W_m x, h)."""
    n = weights.n
    W = weights.W[2 * n :]
    from_x = (weights.W[: 2 * n] * x[1]) @ W.T
    zero = torch.zeros((n, n), dtype=cov.dtype)
    return torch.cat(
        [
            torch.cat([cov[: 2 * n, : 2 * n], from_x, cross[: 2 * n]], 1),
            torch.cat([from_x.T, (W * x[1]) @ W.T, zero], 1),
            torch.cat([cross[: 2 * n].T, zero, s.cov], 1),
        ],
        0,
    )


def _gru_back(
    gates: tuple[Gate, Gate, Gate],
    state: tuple[Tensor, Tensor],
    u: tuple[Tensor, Tensor],
) -> Back:
    """From g_h' to the channels z, r, W_m x, u = R h before the reset, and h."""
    (z, r, m), (mh, vh), (mu, qu) = gates, state, u
    n = len(mh)
    away = 1 - 2 * z.mean + z.square
    qh = mh * mh + vh
    gap = qh - 2 * mh * m.mean + m.square
    inner, inner2 = (1 - z.mean) * m.r.rate, away * m.r.slope
    # Channels: z, r, W_m x, u (R h before the reset), h.
    to_r, to_r2 = mu * r.r.rate, qu * r.r.slope
    to_u, to_u2 = r.mean, r.square
    means = torch.stack([(mh - m.mean) * z.r.rate, inner * to_r, inner, inner * to_u, z.mean])
    second = means[:, None] * means[None, :]
    second[0, 0], second[4, 4] = gap * z.r.slope, z.square
    second[1, 1], second[2, 2], second[3, 3] = inner2 * to_r2, inner2, inner2 * to_u2
    second[1, 2] = second[2, 1] = inner2 * to_r
    second[2, 3] = second[3, 2] = inner2 * to_u
    second[1, 3] = second[3, 1] = inner2 * mu * r.product
    second[0, 4] = second[4, 0] = z.product * (mh - m.mean)
    held = (z.mean - z.square) * m.r.rate
    for k, factor in ((1, to_r), (2, 1 + 0 * mu), (3, to_u)):
        second[4, k] = second[k, 4] = held * factor
    return Back(means[None], second[None, None].reshape(1, 1, 5, 5, n))


def step_back(
    weights: Weights, back: Back, parts: int, G: Tensor
) -> tuple[tuple[Tensor, Tensor], Tensor]:
    """The gradient at the gates' arguments, and at the state before the step."""
    n = weights.n
    made = cells.pull(G, back, parts, n)
    count = weights.W.shape[0]
    if parts == 2:
        to_state = _lift(weights.R, made, count)
        return (made[:count, :count], made.diagonal()[:count]), to_state
    if count == n:
        return (made, made.diagonal()), weights.R.T @ made @ weights.R
    return _gru_step_back(weights, made, n)


def _lift(R: Tensor, made: Tensor, count: int) -> Tensor:
    """From (gates, c) to (h, c)."""
    hh = R.T @ made[:count, :count] @ R
    hc = R.T @ made[:count, count:]
    return torch.cat([torch.cat([hh, hc], 1), torch.cat([hc.T, made[count:, count:]], 1)], 0)


def _gru_step_back(weights: Weights, made: Tensor, n: int) -> tuple[tuple[Tensor, Tensor], Tensor]:
    """Channels z, r, W_m x, u, h: all but W_m x lead to the old state."""
    R = weights.R
    identity = torch.eye(n, dtype=R.dtype)
    zero = torch.zeros_like(identity)
    to_h = torch.cat([R[:n], R[n : 2 * n], zero, R[2 * n :], identity], 0)
    back = to_h.T @ made @ to_h
    held = made.diagonal().reshape(5, n)
    recurrent = torch.cat([held[0], held[1], held[3]])
    return (made[: 3 * n, : 3 * n], recurrent), back


def to_state(weights: Weights, back: Back) -> Tensor:
    """E of a step's Jacobian with respect to the state before it, [state, state]."""
    n, R, means = weights.n, weights.R, back.means
    if len(means) == 2:
        to_h = torch.cat([_through(m, R, range(4)) for m in means])
        return torch.cat([to_h, torch.cat([torch.diag(m[4]) for m in means])], 1)
    if len(weights.W) == n:
        return _through(means[0], R, range(1))
    return _through(means[0, [0, 1, 3]], R, range(3)) + torch.diag(means[0, 4])


def to_input(weights: Weights, back: Back) -> Tensor:
    """E of a step's Jacobian with respect to its input, [state, features]."""
    each = range(len(weights.W) // weights.n)
    return torch.cat([_through(m, weights.W, each) for m in back.means])


def _through(means: Tensor, matrix: Tensor, gates: Iterable[int]) -> Tensor:
    """Sum over gates of diag(means) times that gate's rows."""
    n = means.shape[1]
    return sum(
        (means[k][:, None] * matrix[k * n : k * n + n] for k in gates),
        start=matrix.new_zeros((n, matrix.shape[1])),
    )

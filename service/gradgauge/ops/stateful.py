"""Attention with a state instead of a past, and what goes with it."""

import math
from collections.abc import Callable

import torch
from torch import Tensor
from torch.nn import functional

from gradgauge.ops.row import Result, op

Modify = Callable[[Tensor], list[Tensor]]
_RULES = {"linear": (False, False), "gated": (True, False), "delta": (False, True)} | {
    "gated_delta": (True, True)
}


def _wide(x: Tensor) -> Tensor:
    return x.to(torch.promote_types(x.dtype, torch.float32))


def _split(x: Tensor, heads: int) -> Tensor:
    """[b, t, heads d] into [t, b, heads, d]."""
    return _wide(x).reshape(*x.shape[:2], heads, -1).transpose(0, 1)


@op("contraction", since=27)
def LinearAttention(
    q: Tensor,
    k: Tensor,
    v: Tensor,
    past_state: Tensor | None = None,
    decay: Tensor | None = None,
    beta: Tensor | None = None,
    *,
    kv_num_heads: int,
    q_num_heads: int,
    chunk_size: int = 64,
    scale: float = 0.0,
    update_rule: str = "gated_delta",
) -> Result:
    """S' = exp(g) S + k (b (v - exp(g) S' k))', o = scale S' q, step by step (ONNX 27).

    Shapes: q, k, v [b, t, heads d]; the state [b, kv heads, d_k, d_v].
    """
    del chunk_size
    gated, delta = _RULES[update_rule]
    if gated != (decay is not None) or delta != (beta is not None):
        raise ValueError(f"update_rule {update_rule!r} does not go with the inputs given")
    queries, keys, values = _split(q, q_num_heads), _split(k, kv_num_heads), _split(v, kv_num_heads)
    factors = None if decay is None else _split(decay, kv_num_heads).exp().unsqueeze(-1)
    rates = None if beta is None else _wide(beta).transpose(0, 1).unsqueeze(-1)
    state = (
        keys.new_zeros(keys.shape[1], kv_num_heads, keys.shape[-1], values.shape[-1])
        if past_state is None
        else _wide(past_state)
    )
    root = scale or 1 / math.sqrt(queries.shape[-1])
    outputs = []
    for t in range(queries.shape[0]):
        new = values[t]
        if factors is not None:
            state = state * factors[t]
        if rates is not None:
            new = rates[t] * (new - torch.einsum("bhdm,bhd->bhm", state, keys[t]))
        state = state + keys[t].unsqueeze(-1) * new.unsqueeze(-2)
        read = state.repeat_interleave(q_num_heads // kv_num_heads, 1)
        outputs.append(root * torch.einsum("bhd,bhdm->bhm", queries[t], read))
    y = torch.stack(outputs, 1).flatten(2).to(q.dtype)
    return y, state.to(q.dtype if past_state is None else past_state.dtype)


@op("linear", since=27)
def CausalConvWithState(
    x: Tensor,
    w: Tensor,
    b: Tensor | None = None,
    past_state: Tensor | None = None,
    *,
    activation: str = "none",
) -> Result:
    """Shapes: x [n, c, t], w [c, 1, k], the state [n, c, k - 1]."""
    kept = w.shape[-1] - 1
    past = x.new_zeros(*x.shape[:2], kept) if past_state is None else past_state
    padded = torch.cat((past, x), 2)
    y = functional.conv1d(padded, w, b, groups=x.shape[1])
    if activation in {"silu", "swish"}:
        y = functional.silu(_wide(y)).to(x.dtype)
    elif activation != "none":
        raise ValueError(f"unknown activation {activation!r}")
    return y, padded[..., padded.shape[-1] - kept :]


@op("contraction", domain="ai.onnx.preview")
def FlexAttention(
    q: Tensor,
    k: Tensor,
    v: Tensor,
    *,
    prob_mod: Modify | None = None,
    scale: float | None = None,
    score_mod: Modify | None = None,
    softmax_precision: torch.dtype | None = None,
) -> Tensor:
    """Subgraphs change the scores and the probabilities [b, heads, l, s].

    Shapes: q [b, heads, l, d], k and v [b, kv heads, s, d].
    """
    wide = torch.promote_types(q.dtype, torch.float32)
    if isinstance(softmax_precision, torch.dtype):
        wide = softmax_precision
    groups = q.shape[1] // k.shape[1]
    keys, values = k.repeat_interleave(groups, 1), v.repeat_interleave(groups, 1)
    scores = (q @ keys.mT).to(wide) * (1 / math.sqrt(q.shape[-1]) if scale is None else scale)
    scores = scores if score_mod is None else score_mod(scores)[0]
    weights = torch.softmax(scores, -1)
    weights = weights if prob_mod is None else prob_mod(weights)[0]
    return weights.to(v.dtype) @ values


@op("binary", since=28)
def SwiGLU(a: Tensor, b: Tensor, *, alpha: float = 1.0) -> Tensor:
    return a * torch.sigmoid(alpha * a) * b


@op("movement", since=24)
def TensorScatter(
    past: Tensor,
    update: Tensor,
    write_indices: Tensor | None = None,
    *,
    axis: int = -2,
    mode: str = "linear",
) -> Tensor:
    """Each batch entry's update goes from its own index on; "circular" wraps around."""
    size, new = past.shape[axis], update.shape[axis]
    starts = torch.zeros(past.shape[0]).long() if write_indices is None else write_indices
    at = starts.to(past.device).unsqueeze(1) + torch.arange(new, device=past.device)
    if mode == "circular":
        at = at.remainder(size)
    elif at.numel() and not 0 <= int(at.min()) <= int(at.max()) < size:
        raise IndexError(f"writing from {starts.tolist()} on exceeds the cache of {size}")
    shape = [1] * past.dim()
    shape[0], shape[axis] = at.shape
    return past.scatter(axis % past.dim(), at.reshape(shape).expand(update.shape), update)

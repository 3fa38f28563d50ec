"""Softmax, einsum and attention: ops whose factors both come from the data."""

import math

import torch
from torch import Tensor

from gradgauge.ops.row import op


def _flattened(x: Tensor, axis: int) -> Tensor:
    """Before opset 13 the axes from `axis` on are one."""
    axis %= max(x.dim(), 1)
    return x.reshape(x.shape[:axis].numel(), x.shape[axis:].numel())


@op("contraction", name="Softmax")
def Softmax_1(x: Tensor, *, axis: int = 1) -> Tensor:
    return torch.softmax(_flattened(x, axis), -1).reshape(x.shape)


@op("contraction", since=13)
def Softmax(x: Tensor, *, axis: int = -1) -> Tensor:
    return torch.softmax(x, axis)


@op("contraction", name="LogSoftmax")
def LogSoftmax_1(x: Tensor, *, axis: int = 1) -> Tensor:
    return torch.log_softmax(_flattened(x, axis), -1).reshape(x.shape)


@op("contraction", since=13)
def LogSoftmax(x: Tensor, *, axis: int = -1) -> Tensor:
    return torch.log_softmax(x, axis)


@op("contraction", name="Hardmax")
def Hardmax_1(x: Tensor, *, axis: int = 1) -> Tensor:
    return Hardmax(_flattened(x, axis)).reshape(x.shape)


@op("contraction", since=13)
def Hardmax(x: Tensor, *, axis: int = -1) -> Tensor:
    return torch.zeros_like(x).scatter(axis, x.argmax(axis, keepdim=True), 1)


@op("contraction", since=12)
def Einsum(*xs: Tensor, equation: str) -> Tensor:
    return torch.einsum(equation, *xs)


def _heads(x: Tensor, count: int | None) -> Tensor:
    """[batch, sequence, heads * size] into [batch, heads, sequence, size]."""
    if x.dim() == 4:
        return x
    if not count:
        raise ValueError("3-D inputs need q_num_heads and kv_num_heads")
    return x.reshape(*x.shape[:2], count, -1).transpose(1, 2)


@op("contraction", since=23)
def Attention(
    q: Tensor,
    k: Tensor,
    v: Tensor,
    attn_mask: Tensor | None = None,
    past_key: Tensor | None = None,
    past_value: Tensor | None = None,
    nonpad_kv_seqlen: Tensor | None = None,
    *,
    is_causal: int = 0,
    kv_num_heads: int | None = None,
    q_num_heads: int | None = None,
    qk_matmul_output_mode: int = 0,
    scale: float | None = None,
    softcap: float = 0.0,
    softmax_precision: int | None = None,
    left_window_size: int = -1,
    right_window_size: int = -1,
) -> tuple[Tensor, ...]:
    """Scaled dot-product attention (ONNX Attention-23 to 25).

    Shapes: q, k, v [batch, heads, sequence, size] or [batch, sequence, heads * size]; the mask
    broadcasts to [batch, heads, queries, keys]. The softmax is never narrower than the scores,
    whatever `softmax_precision` says. Outputs: y, present key and value, and the scores of
    `qk_matmul_output_mode`.
    """
    del softmax_precision
    flat = q.dim() == 3
    q, k, v = _heads(q, q_num_heads), _heads(k, kv_num_heads), _heads(v, kv_num_heads)
    past = 0
    if past_key is not None and past_value is not None:
        past = past_key.shape[2]
        k, v = torch.cat((past_key, k), 2), torch.cat((past_value, v), 2)
    groups = q.shape[1] // k.shape[1]
    keys, values = k.repeat_interleave(groups, 1), v.repeat_interleave(groups, 1)
    root = math.sqrt(1 / math.sqrt(q.shape[-1]) if scale is None else scale)
    scores = (q * root) @ (keys * root).mT
    capped = softcap * torch.tanh(scores / softcap) if softcap else scores
    allowed = _allowed(q, k, past, nonpad_kv_seqlen, is_causal, left_window_size, right_window_size)
    bias = _bias(attn_mask, allowed, capped)
    biased = capped if bias is None else capped + bias
    weights = _softmax(biased, bias)
    y = weights @ values
    y = y.transpose(1, 2).flatten(2) if flat else y
    return y, k, v, (scores, capped, biased, weights)[qk_matmul_output_mode]


def _allowed(
    q: Tensor,
    k: Tensor,
    past: int,
    lengths: Tensor | None,
    is_causal: int,
    left: int,
    right: int,
) -> Tensor | None:
    """[queries, keys] or [batch, 1, queries, keys]: where causality, window and length admit."""
    query = torch.arange(q.shape[2], device=q.device).unsqueeze(1) + past
    key = torch.arange(k.shape[2], device=q.device)
    rules = []
    if lengths is not None:
        ends = lengths.reshape(-1, 1, 1, 1)
        rules.append(key < ends)
        query = query + (ends - q.shape[2])
    if is_causal:
        rules.append(key <= query)
    if left >= 0:
        rules.append(query - key <= left)
    if right >= 0:
        rules.append(key - query <= right)
    if not rules:
        return None
    allowed = rules[0]
    for rule in rules[1:]:
        allowed = allowed & rule
    return allowed


def _bias(mask: Tensor | None, allowed: Tensor | None, scores: Tensor) -> Tensor | None:
    """What is added to the scores: the float mask where given, -inf where not allowed."""
    never = scores.new_full((), -math.inf)
    if mask is not None:
        short = scores.shape[-1] - mask.shape[-1]
        if short > 0:
            fill = False if mask.dtype == torch.bool else -math.inf
            mask = torch.cat((mask, mask.new_full((*mask.shape[:-1], short), fill)), -1)
        if mask.dtype == torch.bool:
            mask = torch.where(mask, torch.zeros_like(never), never)
    if allowed is None:
        return mask
    return torch.where(allowed, torch.zeros_like(never) if mask is None else mask, never)


def _softmax(scores: Tensor, bias: Tensor | None) -> Tensor:
    """A query that may attend to nothing gets zeros instead of NaN."""
    if bias is None:
        return torch.softmax(scores, -1)
    empty = (bias == -math.inf).all(-1, keepdim=True)
    weights = torch.softmax(scores.masked_fill(empty, 0.0), -1)
    return weights.masked_fill(empty, 0.0)


@op("contraction", since=23)
def RotaryEmbedding(
    x: Tensor,
    cos: Tensor,
    sin: Tensor,
    position_ids: Tensor | None = None,
    *,
    interleaved: int = 0,
    num_heads: int = 0,
    rotary_embedding_dim: int = 0,
) -> Tensor:
    """Rotates pairs of features by position (Su et al. 2021); pairs are halves or neighbours.

    Shapes: x [batch, heads, sequence, size] or [batch, sequence, heads * size], cos and sin
    [positions, r / 2] with position_ids, else [batch, sequence, r / 2].
    """
    y = x.transpose(1, 2) if x.dim() == 4 else x.reshape(*x.shape[:2], num_heads, -1)
    width = rotary_embedding_dim or y.shape[-1]
    if position_ids is not None:
        cos, sin = cos[position_ids], sin[position_ids]
    cos, sin = cos.unsqueeze(2), sin.unsqueeze(2)
    turned, rest = y[..., :width], y[..., width:]
    pairs = turned.reshape(*turned.shape[:-1], *((-1, 2) if interleaved else (2, -1)))
    axis = -1 if interleaved else -2
    a, b = pairs.unbind(axis)
    turned = torch.stack((cos * a - sin * b, sin * a + cos * b), axis).flatten(-2)
    y = torch.cat((turned, rest), -1)
    return y.transpose(1, 2) if x.dim() == 4 else y.flatten(2)

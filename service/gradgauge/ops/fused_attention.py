"""Attention as onnxruntime's transformers optimiser writes it."""

import math

import torch
from torch import Tensor

from gradgauge.ops import contraction
from gradgauge.ops.row import op

_DOMAIN = "com.microsoft"


def _split(x: Tensor, heads: int) -> Tensor:
    """[batch, sequence, heads * size] into [batch, heads, sequence, size]."""
    return x.reshape(*x.shape[:2], heads, -1).transpose(1, 2)


def _scores(q: Tensor, k: Tensor, scale: float | None) -> Tensor:
    return (q @ k.mT) * (scale or 1 / math.sqrt(q.shape[-1]))


def _causal(scores: Tensor) -> Tensor:
    """True where a query may see a key: the last query sees all."""
    queries, keys = scores.shape[-2:]
    ones = torch.ones(queries, keys, dtype=torch.bool, device=scores.device)
    return ones.tril(keys - queries)


def _padding(mask: Tensor, queries: int, keys: int, batch: int) -> Tensor:
    """A mask in one of com.microsoft's forms, as booleans that broadcast to the scores.

    1-D: lengths, then (for twice the batch) first positions; 2-D: keys; 3-D: queries and keys;
    4-D: Megatron's square, from which the present queries are cut.
    """
    if mask.dim() == 1:
        at = torch.arange(keys, device=mask.device)
        kept = at < mask[:batch].unsqueeze(1)
        if mask.numel() == 2 * batch:
            kept = kept & (at >= mask[batch:].unsqueeze(1))
        elif mask.numel() != batch:
            raise ValueError(f"a mask of {mask.numel()} numbers for a batch of {batch}")
        return kept.reshape(batch, 1, 1, keys)
    if mask.dim() == 4:
        return mask[:, :, keys - queries : keys, :keys] > 0
    return (mask > 0).unsqueeze(1) if mask.dim() == 3 else (mask > 0)[:, None, None]


def _weights(
    scores: Tensor,
    mask: Tensor | None,
    attention_bias: Tensor | None,
    *,
    causal: int,
    filler: float,
) -> Tensor:
    """Padding is pushed down by `filler`, the future removed."""
    if attention_bias is not None:
        scores = scores + attention_bias
    if mask is not None:
        kept = _padding(mask, scores.shape[-2], scores.shape[-1], scores.shape[0])
        scores = torch.where(kept, scores, scores + filler)
    if causal:
        scores = scores.masked_fill(~_causal(scores), torch.finfo(scores.dtype).min)
    return torch.softmax(scores, -1)


def _joined(weights: Tensor, v: Tensor) -> Tensor:
    return (weights @ v).transpose(1, 2).flatten(2)


@op("contraction", domain=_DOMAIN)
def Attention(
    x: Tensor,
    w: Tensor,
    b: Tensor | None = None,
    mask_index: Tensor | None = None,
    past: Tensor | None = None,
    attention_bias: Tensor | None = None,
    *,
    num_heads: int,
    do_rotary: int = 0,
    mask_filter_value: float = -10000.0,
    past_present_share_buffer: int = 0,
    qkv_hidden_sizes: list[int] | None = None,
    rotary_embedding_dim: int = 0,
    scale: float | None = None,
    unidirectional: int = 0,
) -> tuple[Tensor, ...]:
    """Projection to queries, keys and values included.

    Shapes: x [batch, sequence, n], w [n, q + k + v], past [2, batch, heads, before, size]. Outputs:
    y and the present keys and values.
    """
    if do_rotary or past_present_share_buffer:
        raise ValueError("do_rotary and past_present_share_buffer are not supported")
    del rotary_embedding_dim
    sizes = qkv_hidden_sizes or [w.shape[1] // 3] * 3
    merged = x @ w if b is None else x @ w + b
    q, k, v = (_split(part, num_heads) for part in torch.split(merged, list(sizes), -1))
    if past is not None:
        k, v = torch.cat((past[0], k), 2), torch.cat((past[1], v), 2)
    weights = _weights(
        _scores(q, k, scale),
        mask_index,
        attention_bias,
        causal=unidirectional,
        filler=mask_filter_value,
    )
    y = _joined(weights, v)
    return (y, torch.stack((k, v))) if k.shape == v.shape else (y,)


@op("contraction", domain=_DOMAIN)
def MultiHeadAttention(
    query: Tensor,
    key: Tensor | None = None,
    value: Tensor | None = None,
    bias: Tensor | None = None,
    key_padding_mask: Tensor | None = None,
    attention_bias: Tensor | None = None,
    past_key: Tensor | None = None,
    past_value: Tensor | None = None,
    *,
    num_heads: int,
    mask_filter_value: float = -10000.0,
    scale: float | None = None,
    unidirectional: int = 0,
) -> tuple[Tensor, ...]:
    """Queries, keys and values apart, packed in fives, or keys and values already by heads.

    Outputs: y, present keys and values, the weights.
    """
    q, k, v = _unpacked(query, key, value, num_heads)
    if bias is not None:
        q, k, v = _biased(q, k, v, bias, by_heads=key is not None and key.dim() == 4)
    if past_key is not None and past_value is not None:
        k, v = torch.cat((past_key, k), 2), torch.cat((past_value, v), 2)
    weights = _weights(
        _scores(q, k, scale),
        key_padding_mask,
        attention_bias,
        causal=unidirectional,
        filler=mask_filter_value,
    )
    return _joined(weights, v), k, v, weights


def _unpacked(
    query: Tensor, key: Tensor | None, value: Tensor | None, heads: int
) -> tuple[Tensor, Tensor, Tensor]:
    if query.dim() == 5:
        q, k, v = (part.transpose(1, 2) for part in query.unbind(3))
        return q, k, v
    q = _split(query, heads)
    if key is None:
        raise ValueError("without keys the query must be packed, [batch, sequence, heads, 3, size]")
    if key.dim() == 5:
        k, v = (part.transpose(1, 2) for part in key.unbind(3))
        return q, k, v
    if value is None:
        raise ValueError("keys without values")
    if key.dim() == 4:
        return q, key, value
    return q, _split(key, heads), _split(value, heads)


def _biased(
    q: Tensor, k: Tensor, v: Tensor, bias: Tensor, *, by_heads: bool
) -> tuple[Tensor, Tensor, Tensor]:
    """Keys and values that come by heads have had theirs."""
    sizes = [x.shape[1] * x.shape[3] for x in (q, k, v)]
    first, second, third = (
        part.reshape(x.shape[1], 1, x.shape[3])
        for part, x in zip(torch.split(bias, sizes), (q, k, v), strict=True)
    )
    return q + first, k if by_heads else k + second, v if by_heads else v + third


@op("contraction", domain=_DOMAIN)
def GroupQueryAttention(
    query: Tensor,
    key: Tensor | None,
    value: Tensor | None,
    past_key: Tensor | None,
    past_value: Tensor | None,
    seqlens_k: Tensor,
    total_sequence_length: Tensor,
    cos_cache: Tensor | None = None,
    sin_cache: Tensor | None = None,
    position_ids: Tensor | None = None,
    attention_bias: Tensor | None = None,
    head_sink: Tensor | None = None,
    *,
    num_heads: int,
    kv_num_heads: int,
    causal: int = 1,
    do_rotary: int = 0,
    k_quant_type: str = "NONE",
    kv_cache_bit_width: int = 0,
    local_window_size: int = -1,
    qk_norm_epsilon: float = 1e-6,
    qk_output: int = 0,
    rotary_interleaved: int = 0,
    scale: float | None = None,
    sliding_window_cache: int = 0,
    smooth_softmax: int = 0,
    softcap: float = 0.0,
    v_quant_type: str = "NONE",
) -> tuple[Tensor, ...]:
    """Fewer keys than queries, and a cache of what came before (Ainslie et al. 2023).

    Shapes: query [batch, sequence, heads * size], or with keys and values packed behind; caches
    [batch, key heads, before, size]; `seqlens_k` counts each row's keys, less one. Outputs: y and
    the present caches. A quantised or window-sized cache is not offered.
    """
    if sliding_window_cache or qk_output or {k_quant_type, v_quant_type} != {"NONE"}:
        raise ValueError("qk_output, quantised and window-sized caches are not supported")
    del kv_cache_bit_width, qk_norm_epsilon
    q, k, v = _grouped(query, key, value, num_heads, kv_num_heads)
    total, new = int(total_sequence_length), q.shape[2]
    ends = seqlens_k.reshape(-1).long() + 1
    begins = torch.zeros_like(ends) if total == new else ends - new
    at = begins.unsqueeze(1) + torch.arange(new, device=q.device)
    if do_rotary and cos_cache is not None and sin_cache is not None:
        places = at if position_ids is None else position_ids
        q, k = (_rotated(x, places, cos_cache, sin_cache, rotary_interleaved) for x in (q, k))
    k, v = _appended(past_key, k, at, total), _appended(past_value, v, at, total)
    groups = num_heads // kv_num_heads
    keys, values = (x[:, :, :total].repeat_interleave(groups, 1) for x in (k, v))
    scores = _scores(q, keys, scale)
    if softcap:
        scores = softcap * torch.tanh(scores / softcap)
    if attention_bias is not None:
        scores = scores + attention_bias
    allowed = _window(at, ends, total, causal=causal, size=local_window_size)
    scores = scores.masked_fill(~allowed, -math.inf)
    sink = _sink(head_sink, smooth_softmax, scores)
    weights = torch.softmax(scores if sink is None else torch.cat((scores, sink), -1), -1)
    return _joined(weights[..., :total], values), k, v


def _grouped(
    query: Tensor, key: Tensor | None, value: Tensor | None, heads: int, kv_heads: int
) -> tuple[Tensor, Tensor, Tensor]:
    if key is not None and value is not None:
        return _split(query, heads), _split(key, kv_heads), _split(value, kv_heads)
    packed = _split(query, heads + 2 * kv_heads)
    q, k, v = torch.split(packed, [heads, kv_heads, kv_heads], 1)
    return q, k, v


def _rotated(x: Tensor, at: Tensor, cos: Tensor, sin: Tensor, interleaved: int) -> Tensor:
    return contraction.RotaryEmbedding(
        x, cos, sin, at, interleaved=interleaved, rotary_embedding_dim=2 * cos.shape[-1]
    )


def _appended(past: Tensor | None, x: Tensor, at: Tensor, total: int) -> Tensor:
    """The cache with the new rows at their places, as long as it needs to be."""
    long = max(total, 0 if past is None else past.shape[2])
    cache = x.new_zeros(*x.shape[:2], long, x.shape[3])
    if past is not None:
        cache = torch.cat((past, cache[:, :, past.shape[2] :]), 2)
    index = at.reshape(at.shape[0], 1, -1, 1).expand(-1, x.shape[1], -1, x.shape[3])
    return cache.scatter(2, index, x)


def _window(at: Tensor, ends: Tensor, total: int, *, causal: int, size: int) -> Tensor:
    """[batch, 1, queries, keys]: the row's own keys, none from the future or left of the window."""
    key = torch.arange(total, device=at.device)
    query = at.reshape(at.shape[0], 1, -1, 1)
    if not causal:
        return (key < ends.reshape(-1, 1, 1, 1)).expand(-1, 1, query.shape[2], -1)
    allowed = key <= query
    return allowed & (query - key < size) if size >= 0 else allowed


def _sink(head_sink: Tensor | None, smooth: int, scores: Tensor) -> Tensor | None:
    """One more score that takes weight and gives nothing."""
    if head_sink is not None:
        return head_sink.reshape(1, -1, 1, 1).expand(scores.shape[0], -1, scores.shape[2], 1)
    return scores.new_zeros(*scores.shape[:3], 1) if smooth > 0 else None


@op("contraction", domain=_DOMAIN)
def RotaryEmbedding(
    x: Tensor,
    position_ids: Tensor,
    cos_cache: Tensor,
    sin_cache: Tensor,
    *,
    interleaved: int = 0,
    is_packed_batching: int = 0,
    num_heads: int = 0,
    rotary_embedding_dim: int = 0,
    scale: float = 1.0,
) -> Tensor:
    """As ai.onnx's; a single position is that of the first token."""
    if is_packed_batching or not math.isclose(scale, 1.0):
        raise ValueError("packed batches and a scale are not supported")
    steps = x.shape[2] if x.dim() == 4 else x.shape[1]
    if position_ids.numel() == 1:
        position_ids = position_ids.reshape(1, 1) + torch.arange(steps, device=x.device)
        position_ids = position_ids.expand(x.shape[0], -1)
    if x.dim() == 3 and not rotary_embedding_dim:
        num_heads = x.shape[2] // (2 * cos_cache.shape[1])
    return contraction.RotaryEmbedding(
        x,
        cos_cache,
        sin_cache,
        position_ids,
        interleaved=interleaved,
        num_heads=num_heads,
        rotary_embedding_dim=rotary_embedding_dim,
    )

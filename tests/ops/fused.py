"""Cases of ops/fused.py, ops/fused_attention.py and ops/fused_quantisation.py."""

import numpy as np

from tests.ops.case import Case, ints, normal, uniform

_MS = "com.microsoft"


def _case(op: str, *inputs, outputs: int = 1, tolerance: float = 1e-5, **settings) -> Case:
    extra = {k: settings.pop(k) for k in ("skip", "smooth", "oracle") if k in settings}
    return Case(op, 1, inputs, settings, outputs=outputs, domain=_MS, tolerance=tolerance, **extra)


_X, _SKIP, _GAIN = normal(2, 3, 4), normal(2, 3, 4), np.abs(normal(4)) + 0.5
_BIAS, _BETA = normal(4), normal(4)
_IMAGE, _KERNEL = normal(1, 2, 4, 5), normal(3, 2, 2, 2)
_WORDS, _SEGMENTS = (
    ints([1, 4, 0], [2, 2, 5], dtype=np.int32),
    ints([0, 1, 1], [0, 0, 1], dtype=np.int32),
)
_MASK = ints([1, 1, 0], [1, 1, 1], dtype=np.int32)
_W, _B = normal(4, 24), normal(24)
_Q, _K, _V = normal(2, 3, 8), normal(2, 5, 8), normal(2, 5, 8)
_COS, _SIN = (f(uniform(0, 3, 9, 2)).astype(np.float32) for f in (np.cos, np.sin))
_WIDE_COS, _WIDE_SIN = (f(uniform(0, 3, 9, 8)).astype(np.float32) for f in (np.cos, np.sin))


def _gqa(
    *, lengths=(2, 2), new: int = 3, bias=None, sink=None, rotary=0, outputs: int = 3, **settings
) -> Case:
    """Queries of two heads on one head of keys, no narrower than onnxruntime takes them."""
    size, total, batch = 16 if rotary else 8, max(lengths) + 1, len(lengths)
    past = total - new
    cached = [normal(batch, 1, past, size) if past else None for _ in range(2)]
    inputs = (
        *(normal(batch, new, n * size) for n in (2, 1, 1)),
        *(*cached, ints(*lengths, dtype=np.int32), np.array(total, np.int32)),
        *((_WIDE_COS, _WIDE_SIN) if rotary else (None, None)),
        *(None, bias, sink),
    )
    while inputs[-1] is None:
        inputs = inputs[:-1]
    return _case(
        "GroupQueryAttention",
        *inputs,
        outputs=outputs,
        num_heads=2,
        kv_num_heads=1,
        do_rotary=rotary,
        skip=(7, 8),
        **settings,
    )


def _ragged(q, k, v, past_k, past_v, lengths, _total) -> list[np.ndarray]:
    """One query of two heads, each row with as much past as its length says, by the definition."""
    rows = []
    for b, count in enumerate(lengths):
        keys = np.concatenate((past_k[b, 0, :count], k[b]))
        values = np.concatenate((past_v[b, 0, :count], v[b]))
        scores = np.exp(q[b].reshape(2, 8) @ keys.T / np.sqrt(8))
        rows.append((scores / scores.sum(1, keepdims=True)) @ values)
    return [np.array(rows, np.float32).reshape(2, 1, 16)]


_BYTES, _MORE = (np.random.default_rng(s).integers(0, 255, (2, 3), np.uint8) for s in (1, 2))
_SCALES = [np.array(v, np.float32) for v in (0.02, 0.03, 0.05)]
_ZEROS = [np.array(v, np.uint8) for v in (3, 128, 120)]
_FIRST, _SECOND = (_BYTES, _SCALES[0], _ZEROS[0]), (_MORE, _SCALES[1], _ZEROS[1])
_OUT = (_SCALES[2], _ZEROS[2])
_MAP = np.random.default_rng(3).integers(0, 255, (1, 2, 4, 4), np.uint8)
_COLUMNS = np.array([0.01, 0.02], np.float32)
_FOUR = np.random.default_rng(4).integers(0, 255, (3, 2, 8), np.uint8)
_EIGHT = np.random.default_rng(5).integers(0, 255, (3, 2, 16), np.uint8)


CASES = [
    _case("SkipLayerNormalization", _X, _SKIP, _GAIN, _BETA, epsilon=1e-5),
    _case("SkipLayerNormalization", _X, _SKIP, _GAIN, _BETA, _BIAS),
    _case("SkipLayerNormalization", _X, _SKIP, _GAIN),
    _case("SkipSimplifiedLayerNormalization", _X, _SKIP, _GAIN, epsilon=1e-5),
    _case("SkipSimplifiedLayerNormalization", _X, _SKIP, _GAIN, _BIAS),
    _case(
        "EmbedLayerNormalization",
        *(_WORDS, _SEGMENTS, normal(6, 4), normal(7, 4), normal(2, 4), _GAIN, _BETA, _MASK),
        outputs=2,
        tolerance=1e-4,
    ),
    _case(
        "EmbedLayerNormalization",
        *(_WORDS, None, normal(6, 4), normal(7, 4), None, _GAIN, _BETA),
        outputs=2,
        epsilon=1e-5,
        tolerance=1e-4,
    ),
    *(
        _case("FusedConv", _IMAGE, _KERNEL, normal(3), activation=name, **given)
        for name, given in (
            ("Tanh", {}),
            ("Sigmoid", {}),
            ("LeakyRelu", {"activation_params": [0.2]}),
            ("HardSigmoid", {"activation_params": [0.2, 0.4]}),
            ("Clip", {"activation_params": [-0.7, 0.9]}),
        )
    ),
    _case(
        "FusedConv",
        _IMAGE,
        _KERNEL,
        normal(3),
        normal(1, 3, 3, 4),
        activation="Relu",
        strides=[1, 1],
    ),
    _case("FusedGemm", normal(2, 3), normal(3, 4), normal(4), activation="Relu", alpha=0.5),
    _case(
        *("FusedGemm", normal(2, 3), normal(4, 3), normal(4)),
        activation="LeakyRelu",
        activation_alpha=0.3,
        transB=1,
    ),
    _case("Attention", _X, _W[:, :24], _B, num_heads=2),
    _case("Attention", _X, _W, _B, num_heads=4, unidirectional=1),
    _case("Attention", _X, _W, _B, _MASK, num_heads=2, scale=0.3),
    _case("Attention", _X, _W, _B, ints(2, 3, dtype=np.int32), num_heads=2),
    _case("Attention", _X, _W, _B, ints(3, 3, 1, 0, dtype=np.int32), num_heads=2),
    _case(
        *("Attention", _X, _W, _B, None, normal(2, 2, 2, 5, 4)),
        num_heads=2,
        unidirectional=1,
        outputs=2,
    ),
    _case("Attention", _X, _W, _B, None, None, normal(2, 2, 3, 3), num_heads=2),
    _case("Attention", _X, normal(4, 20), normal(20), num_heads=2, qkv_hidden_sizes=[8, 8, 4]),
    _case("MultiHeadAttention", _Q, _K, _V, num_heads=2),
    _case("MultiHeadAttention", _Q, _K, _V, normal(24), num_heads=4, scale=0.2),
    _case(
        *("MultiHeadAttention", _Q, _Q, _Q, None, _MASK),
        num_heads=2,
        mask_filter_value=-5.0,
    ),
    _case("MultiHeadAttention", _Q, _K, _V, None, None, normal(1, 2, 3, 5), num_heads=2),
    _case(
        *(
            "MultiHeadAttention",
            _Q,
            _Q,
            _Q,
            None,
            None,
            None,
            normal(2, 2, 4, 4),
            normal(2, 2, 4, 4),
        ),
        num_heads=2,
        unidirectional=1,
        outputs=3,
    ),
    _case("MultiHeadAttention", _Q, normal(2, 2, 5, 4), normal(2, 2, 5, 4), num_heads=2),
    _gqa(),
    _gqa(rotary=1),
    _gqa(rotary=1, rotary_interleaved=1),
    _gqa(local_window_size=2),
    _gqa(softcap=1.5),
    _gqa(smooth_softmax=1),
    _gqa(sink=normal(2)),
    _gqa(bias=normal(1, 2, 3, 3)),
    _gqa(rotary=1, new=1, lengths=(4, 4)),
    _gqa(new=2, lengths=(4,)),
    _gqa(new=1, lengths=(4, 2), outputs=1, oracle=_ragged),
    _case(
        "GroupQueryAttention",
        *(normal(1, 3, 32), None, None, None, None, ints(2, dtype=np.int32), np.array(3, np.int32)),
        outputs=3,
        num_heads=2,
        kv_num_heads=1,
    ),
    _case("RotaryEmbedding", normal(2, 3, 8), ints([0, 1, 2], [4, 5, 6]), _COS, _SIN),
    _case("RotaryEmbedding", normal(2, 3, 8), ints(4), _COS, _SIN, interleaved=1),
    _case("RotaryEmbedding", normal(2, 2, 3, 4), ints([0, 1, 2], [4, 5, 6]), _COS, _SIN),
    _case("QuantizeLinear", normal(2, 3), _SCALES[0], _ZEROS[1], smooth=False),
    _case("DequantizeLinear", *_FIRST),
    _case("QLinearAdd", *_FIRST, *_SECOND, *_OUT, smooth=False),
    _case("QLinearMul", *_FIRST, *_SECOND, *_OUT, smooth=False),
    _case("QLinearSigmoid", *_FIRST, np.array(0.004, np.float32), _ZEROS[0], smooth=False),
    _case("QLinearLeakyRelu", *_SECOND, *_OUT, alpha=0.2, smooth=False),
    *(
        _case(
            *("QLinearSoftmax", *_FIRST, np.array(0.01, np.float32), np.array(0, np.uint8)),
            opset=opset,
            axis=1,
            smooth=False,
        )
        for opset in (12, 13)
    ),
    _case("QLinearGlobalAveragePool", _MAP, *_FIRST[1:], *_OUT, smooth=False),
    _case(
        *("QLinearAveragePool", _MAP, *_FIRST[1:], *_OUT),
        kernel_shape=[2, 2],
        strides=[2, 1],
        pads=[0, 1, 0, 0],
        smooth=False,
    ),
    _case("QLinearConcat", *_OUT, *_FIRST, *_SECOND, axis=1, smooth=False),
    _case(
        "QGemm",
        *(*_FIRST, _MORE[:, :3].T.copy(), _SCALES[1], _ZEROS[1], ints(7, -9, dtype=np.int32)),
        *(np.array(0.3, np.float32), _ZEROS[1]),
        smooth=False,
    ),
    _case("QGemm", *_FIRST, _MORE, _SCALES[1], _ZEROS[1], transB=1, smooth=False),
    _case(
        "MatMulIntegerToFloat",
        *(_BYTES, _MORE.T.copy(), _SCALES[0], _COLUMNS, _ZEROS[0], _ZEROS[1:2][0], normal(2)),
        skip=(),
    ),
    _case(
        "DynamicQuantizeMatMul",
        *(normal(2, 3), _MORE.T.copy(), _SCALES[0], _ZEROS[1], normal(2)),
        smooth=False,
    ),
    _case(
        "MatMulNBits", normal(2, 32), _FOUR, normal(3, 2), K=32, N=3, block_size=16, tolerance=1e-4
    ),
    _case(
        *(
            "MatMulNBits",
            normal(2, 30),
            _FOUR,
            normal(3, 2),
            ints([33], [200], [90], dtype=np.uint8),
        ),
        K=30,
        N=3,
        block_size=16,
        bits=4,
        tolerance=1e-4,
    ),
    _case(
        *("MatMulNBits", normal(2, 32), _EIGHT, normal(3, 2), None, None, normal(3)),
        K=32,
        N=3,
        block_size=16,
        bits=8,
        tolerance=1e-4,
    ),
    Case(
        "MaxRoiPool",
        1,
        (normal(2, 2, 5, 6), np.array([[1, 0, 1, 4, 3], [0, 2, 0, 9, 2]], np.float32)),
        {"pooled_shape": [2, 3], "spatial_scale": 0.9},
        skip=(1,),
    ),
    Case(
        "Multinomial",
        7,
        (np.array([[-30, 5, -30], [9, -30, -30]], np.float32),),
        {"sample_size": 4},
        smooth=False,
        oracle=lambda _: [np.array([[1] * 4, [0] * 4], np.int32)],
    ),
]

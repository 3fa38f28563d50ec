"""Cases of ops/contraction.py."""

import numpy as np

from tests.ops.case import Case, bools, ints, normal

_X = normal(2, 3, 4)
_Q, _K, _V = normal(2, 4, 3, 6), normal(2, 4, 5, 6), normal(2, 4, 5, 2)
_FLAT = (normal(2, 3, 8), normal(2, 5, 8), normal(2, 5, 12))
_GROUPED = (normal(2, 4, 3, 6), normal(2, 2, 5, 6), normal(2, 2, 5, 2))
_HEADS = {"q_num_heads": 4, "kv_num_heads": 4}
_SHUT = np.array([[True, False, True], [False, False, False], [True, True, True]])
_PAST = (normal(2, 4, 2, 6), normal(2, 4, 2, 2))


def _attention(inputs: tuple, opset: int = 23, outputs: int = 1, **attributes: object) -> Case:
    return Case("Attention", opset, inputs, attributes, outputs=outputs)


CASES = [
    *(Case(n, 13, (_X,)) for n in ("Softmax", "LogSoftmax")),
    *(Case(n, 13, (_X,), {"axis": 1}) for n in ("Softmax", "LogSoftmax")),
    *(Case(n, 11, (_X,)) for n in ("Softmax", "LogSoftmax")),
    *(Case(n, 11, (_X,), {"axis": -1}) for n in ("Softmax", "LogSoftmax")),
    *(Case(n, 1, (_X,), {"axis": 2}) for n in ("Softmax", "LogSoftmax")),
    Case("Hardmax", 13, (_X,), {"axis": 1}, smooth=False),
    Case("Hardmax", 11, (_X,), smooth=False),
    Case("Einsum", 12, (normal(2, 3), normal(3, 4)), {"equation": "ij,jk->ik"}),
    Case("Einsum", 12, (normal(2, 3, 3),), {"equation": "b i i -> b"}),
    Case("Einsum", 12, (normal(2, 3, 4), normal(2, 5, 4)), {"equation": "...ij,...kj->...ik"}),
    _attention((_Q, _K, _V)),
    _attention((_Q, _K, _V, normal(3, 5)), scale=0.3, softcap=2.0),
    _attention((_Q, _K, _V, bools(2, 1, 3, 5)), outputs=4),
    _attention((_Q, _K[:, :, :3], _V[:, :, :3], _SHUT)),
    # onnxruntime wants the mask whole, the specification fills what is missing with -inf
    Case("Attention", 24, (_Q, _K, _V, normal(3, 3)), oracle="reference"),
    _attention((_Q, _K, _V), is_causal=1),
    _attention(_FLAT, **_HEADS, outputs=3),
    _attention(_GROUPED, outputs=3),
    _attention((_Q, _K, _V, None, *_PAST), is_causal=1, outputs=3),
    _attention((_Q, _K, _V, normal(2, 1, 3, 7), *_PAST), outputs=3),
    *(
        _attention((_Q, _K, _V, normal(3, 5)), softcap=2.0, qk_matmul_output_mode=m, outputs=4)
        for m in (0, 1, 2, 3)
    ),
    _attention((_Q, _K, _V, None, None, None, ints(5, 3)), opset=24),
    _attention((_Q, _K, _V, None, None, None, ints(5, 3)), opset=24, is_causal=1),
    _attention((_Q, _K, _V), opset=25, left_window_size=1, right_window_size=1),
    _attention((_Q, _K, _V), opset=25, left_window_size=1, is_causal=1),
    *(
        Case(
            "RotaryEmbedding",
            23,
            (normal(2, 3, 4, 6), normal(9, 3), normal(9, 3), ints([0, 1, 2, 3], [4, 5, 6, 8])),
            {"interleaved": interleaved},
            oracle="reference",
        )
        for interleaved in (0, 1)
    ),
    Case(
        "RotaryEmbedding",
        23,
        (normal(2, 4, 12), normal(2, 4, 2), normal(2, 4, 2)),
        {"num_heads": 2, "rotary_embedding_dim": 4},
        oracle="reference",
    ),
]

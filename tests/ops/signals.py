"""Cases of ops/spectral.py, ops/loss.py and ops/stateful.py."""

import numpy as np
import onnx
from onnx import helper

from tests.ops.case import Case, ints, normal, scalar

_WINDOW = np.hanning(8).astype(np.float32)
_LOG = np.log(np.array([[0.2, 0.5, 0.3], [0.1, 0.1, 0.8]], np.float32))
_WEIGHTS = np.array([0.5, 1.5, 2.0], np.float32)
_REDUCTIONS = ("none", "sum", "mean")


def _linear(*, decay: bool, beta: bool) -> tuple:
    """Batch 2, 3 steps, 4 query heads on 2 key heads, sizes 2 and 3."""
    return (
        normal(2, 3, 8),
        0.5 * normal(2, 3, 4),
        normal(2, 3, 6),
        normal(2, 2, 2, 3),
        -np.abs(normal(2, 3, 2)) if decay else None,
        np.abs(normal(2, 3, 1)) if beta else None,
    )


def _modifier() -> onnx.GraphProto:
    return helper.make_graph(
        [helper.make_node("Tanh", ["scores"], ["modified"])],
        "modify",
        [onnx.ValueInfoProto(name="scores")],
        [onnx.ValueInfoProto(name="modified")],
    )


def _flex(q: np.ndarray, k: np.ndarray, v: np.ndarray) -> list[np.ndarray]:
    """softmax(tanh(q k' / sqrt(d))) v, keys shared by neighbouring heads."""
    k, v = np.repeat(k, 2, 1), np.repeat(v, 2, 1)
    e = np.exp(np.tanh(q @ k.swapaxes(-1, -2) / np.sqrt(q.shape[-1])))
    return [(e / e.sum(-1, keepdims=True) @ v).astype(np.float32)]


CASES = [
    Case("DFT", 17, (normal(1, 6, 1),), {"axis": 1}),
    Case("DFT", 17, (normal(2, 6, 3, 2),), {"axis": 2, "inverse": 1}),
    Case("DFT", 20, (normal(1, 6, 1),), {"onesided": 1}),
    Case("DFT", 20, (normal(2, 6, 2), scalar(8), scalar(1))),
    Case(
        "DFT",
        20,
        (normal(1, 5, 2),),
        {"inverse": 1, "onesided": 1},
        oracle=lambda x: [
            np.fft.irfft(x[..., 0] + 1j * x[..., 1], 8, 1)[..., None].astype(np.float32)
        ],
    ),
    Case("STFT", 17, (normal(2, 20, 1), scalar(4), _WINDOW), tolerance=1e-4),
    Case(
        "STFT", 17, (normal(1, 20, 1), scalar(5), None, scalar(8)), {"onesided": 0}, tolerance=1e-4
    ),
    *(
        Case(f"{name}Window", 17, (scalar(9),), {"periodic": periodic}, smooth=False)
        for name in ("Hann", "Hamming", "Blackman")
        for periodic in (0, 1)
    ),
    Case(
        "MelWeightMatrix",
        17,
        (scalar(8), scalar(16), scalar(8192), *(np.array(v, np.float32) for v in (0, 4096))),
        smooth=False,
    ),
    *(
        Case("NegativeLogLikelihoodLoss", 13, (_LOG, ints(1, 2)), {"reduction": r})
        for r in _REDUCTIONS
    ),
    *(
        Case(
            "NegativeLogLikelihoodLoss",
            13,
            (normal(2, 3, 4), ints([0, 1, 2, 1], [1, 1, 2, 0]), _WEIGHTS),
            {"reduction": r, "ignore_index": 1},
        )
        for r in _REDUCTIONS
    ),
    *(
        Case("SoftmaxCrossEntropyLoss", 13, (_LOG, ints(1, 2)), {"reduction": r}, outputs=2)
        for r in _REDUCTIONS
    ),
    Case(
        "SoftmaxCrossEntropyLoss",
        13,
        (normal(2, 3, 2), ints([0, 2], [1, -5]), _WEIGHTS),
        {"ignore_index": -5},
    ),
    *(
        Case(
            "LinearAttention",
            27,
            _linear(decay="gated" in rule, beta="delta" in rule),
            {"q_num_heads": 4, "kv_num_heads": 2, "update_rule": rule},
            outputs=2,
            oracle="reference",
        )
        for rule in ("linear", "gated", "delta", "gated_delta")
    ),
    *(
        Case(
            "CausalConvWithState",
            27,
            (normal(2, 3, 5), normal(3, 1, 3), normal(3), past),
            {"activation": activation},
            outputs=2,
            oracle="reference",
        )
        for activation, past in (("none", None), ("silu", normal(2, 3, 2)))
    ),
    Case(
        "FlexAttention",
        1,
        (normal(1, 4, 3, 2), normal(1, 2, 5, 2), normal(1, 2, 5, 3)),
        {"score_mod": _modifier()},
        domain="ai.onnx.preview",
        oracle=_flex,
    ),
    Case("SwiGLU", 28, (normal(2, 3), normal(2, 3)), {"alpha": 0.7}, oracle="reference"),
    Case("TensorScatter", 24, (normal(2, 4, 3), normal(2, 2, 3), ints(0, 2)), oracle="reference"),
    Case(
        "TensorScatter",
        24,
        (normal(2, 4, 3), normal(2, 2, 3), ints(3, 2)),
        {"mode": "circular"},
        oracle="reference",
    ),
]

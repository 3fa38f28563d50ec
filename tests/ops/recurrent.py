"""Cases of ops/recurrent.py."""

from typing import Any

import numpy as np

from tests.ops.case import Case, ints, normal

_T, _N, _I, _H = 4, 3, 2, 3
_GATES = {"RNN": 1, "GRU": 3, "LSTM": 4}
_LENGTHS = ints(4, 1, 3, dtype=np.int32)


def _node(
    name: str,
    *,
    bias: bool = True,
    lengths: np.ndarray | None = None,
    initial: bool = False,
    peephole: bool = False,
    opset: int = 14,
    size: float = 1.0,
    **attributes: Any,
) -> Case:
    ways = 2 if attributes.get("direction") == "bidirectional" else 1
    rows = _GATES[name] * _H
    states = 2 if name == "LSTM" else 1
    first = attributes.get("layout", 0)
    state = (_N, ways, _H) if first else (ways, _N, _H)
    inputs: list[np.ndarray | None] = [
        normal(_N, _T, _I) if first else normal(_T, _N, _I),
        normal(ways, rows, _I),
        (size * normal(ways, rows, _H)).astype(np.float32),
        normal(ways, 2 * rows) if bias else None,
        lengths,
        *(normal(*state) if initial else None for _ in range(states)),
        *([normal(ways, 3 * _H)] if peephole else []),
    ]
    while inputs[-1] is None:
        inputs.pop()
    settings = {"hidden_size": _H, **attributes}
    # onnxruntime has no layout=1
    oracle = "reference" if first else "onnxruntime"
    return Case(name, opset, tuple(inputs), settings, outputs=1 + states, oracle=oracle)


_THREE = ("RNN", "GRU", "LSTM")
CASES = [
    *(_node(n) for n in _THREE),
    *(_node(n, bias=False, opset=7) for n in _THREE),
    *(_node(n, initial=True, direction="reverse") for n in _THREE),
    *(_node(n, initial=True, direction="bidirectional") for n in _THREE),
    *(_node(n, lengths=_LENGTHS, direction="bidirectional") for n in _THREE),
    *(_node(n, lengths=_LENGTHS, initial=True) for n in _THREE),
    *(_node(n, initial=True, layout=1) for n in _THREE),
    *(_node(n, clip=0.5) for n in _THREE),
    _node("RNN", activations=["Relu"]),
    _node("RNN", activations=["Sigmoid"]),
    _node("RNN", activations=["Tanh", "Relu"], direction="bidirectional"),
    _node("RNN", activations=["LeakyRelu"], activation_alpha=[0.2]),
    _node("RNN", activations=["Affine"], activation_alpha=[0.5], activation_beta=[0.1]),
    _node("RNN", activations=["ScaledTanh"], activation_alpha=[0.7], activation_beta=[0.6]),
    _node("RNN", activations=["HardSigmoid"]),
    _node("RNN", activations=["Elu"], activation_alpha=[0.8]),
    _node("RNN", activations=["ThresholdedRelu"], activation_alpha=[0.1]),
    _node("RNN", activations=["Softsign"]),
    # small, since onnxruntime's Softplus overflows beyond 88
    _node("RNN", activations=["Softplus"], size=0.3),
    _node("GRU", linear_before_reset=1),
    _node("GRU", linear_before_reset=1, bias=False, initial=True),
    _node("GRU", linear_before_reset=1, direction="bidirectional", initial=True),
    _node("GRU", linear_before_reset=1, lengths=_LENGTHS),
    _node("GRU", activations=["HardSigmoid", "Softsign"], linear_before_reset=1),
    _node("LSTM", activations=["Sigmoid", "Relu", "Softsign"]),
    _node("LSTM", initial=True, peephole=True),
    _node("LSTM", initial=True, peephole=True, direction="bidirectional"),
    _node("LSTM", input_forget=1),
]

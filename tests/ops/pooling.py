"""Cases of ops/pooling.py."""

from typing import Any

from tests.ops.case import Case, normal

_L = normal(2, 3, 9)
_I = normal(2, 3, 7, 6)
_V = normal(1, 2, 4, 5, 4)
_SETTINGS: list[tuple[Any, dict[str, Any]]] = [
    (_L, {"kernel_shape": [3]}),
    (_L, {"kernel_shape": [2], "strides": [2], "ceil_mode": 1}),
    (_L, {"kernel_shape": [3], "strides": [2], "pads": [1, 0]}),
    (_I, {"kernel_shape": [3, 2], "strides": [2, 1], "pads": [1, 1, 1, 1]}),
    (_I, {"kernel_shape": [3, 3], "strides": [2, 2], "pads": [1, 1, 1, 1], "ceil_mode": 1}),
    (_I, {"kernel_shape": [3, 3], "strides": [2, 2], "auto_pad": "SAME_UPPER"}),
    (_I, {"kernel_shape": [2, 3], "strides": [2, 2], "auto_pad": "SAME_LOWER"}),
    (_I, {"kernel_shape": [2, 2], "auto_pad": "VALID"}),
    (_V, {"kernel_shape": [2, 2, 2], "strides": [1, 2, 2]}),
]
_INCLUDED = {"count_include_pad": 1, "pads": [1, 0, 1, 1], "kernel_shape": [2, 2]}

CASES = [
    *(Case("MaxPool", 12, (x,), settings) for x, settings in _SETTINGS),
    Case("MaxPool", 8, (_I,), {"kernel_shape": [2, 2], "strides": [2, 2]}),
    Case("MaxPool", 12, (_I,), {"kernel_shape": [2, 2], "dilations": [2, 2]}),
    Case("MaxPool", 12, (_I,), {"kernel_shape": [2, 2], "pads": [1, 0, 0, 1]}, outputs=2),
    Case("MaxPool", 12, (_I,), {"kernel_shape": [2, 2], "storage_order": 1}, outputs=2),
    *(Case("AveragePool", 19, (x,), settings) for x, settings in _SETTINGS),
    Case("AveragePool", 7, (_I,), {"kernel_shape": [2, 2], "pads": [1, 1, 0, 0]}),
    Case("AveragePool", 11, (_I,), _INCLUDED),
    Case("AveragePool", 19, (_I,), _INCLUDED | {"strides": [2, 2], "ceil_mode": 1}),
    Case("AveragePool", 19, (_I,), {"kernel_shape": [2, 2], "dilations": [2, 1]}),
    Case("LpPool", 18, (_L,), {"kernel_shape": [3], "strides": [2]}),
    Case("LpPool", 18, (_I,), {"kernel_shape": [2, 2], "p": 3, "pads": [1, 0, 0, 1]}),
    Case("LpPool", 2, (_I,), {"kernel_shape": [2, 2], "p": 1}),
    Case("GlobalAveragePool", 1, (_I,)),
    Case("GlobalMaxPool", 1, (_V,)),
    Case("GlobalLpPool", 2, (_I,), {"p": 2}),
    Case("GlobalLpPool", 2, (_L,), {"p": 3}),
]

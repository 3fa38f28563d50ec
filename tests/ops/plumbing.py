"""Cases of ops/plumbing.py."""

import numpy as np
from onnx import TensorProto, helper

from tests.ops.case import Case, bools, ints, normal, scalar

_A, _B = ints([1, 2, 3], [4, 5, 6]), ints(2, 2, 7)
_BITS = (ints(12, 5, 255), ints(10, 3, 128))
_ODD = np.array([1.0, np.nan, np.inf, -np.inf, 0.0], np.float32)
_SHIFTED = (ints(1, 8, 3, dtype=np.uint8), ints(2, 1, 0, dtype=np.uint8))


def _tensor(value: float, kind: int = TensorProto.FLOAT):
    return helper.make_tensor("value", kind, [1], [value])


CASES = [
    *(
        Case(n, 16, (_A, _B), smooth=False)
        for n in ("Equal", "Greater", "GreaterOrEqual", "Less", "LessOrEqual")
    ),
    *(Case(n, 16, (normal(3, 4), normal(4)), smooth=False) for n in ("Greater", "Less", "Equal")),
    *(Case(n, 7, (bools(2, 3), bools(3)), smooth=False) for n in ("And", "Or", "Xor")),
    Case("Not", 7, (bools(2, 3),), smooth=False),
    *(Case(f"Bitwise{n}", 18, _BITS, smooth=False) for n in ("And", "Or", "Xor")),
    Case("BitwiseNot", 18, (_BITS[0],), smooth=False),
    *(
        Case("BitShift", 11, _SHIFTED, {"direction": direction}, smooth=False)
        for direction in ("LEFT", "RIGHT")
    ),
    Case("IsNaN", 13, (_ODD,), smooth=False),
    Case("IsInf", 10, (_ODD,), smooth=False),
    Case("IsInf", 10, (_ODD,), {"detect_negative": 0}, smooth=False),
    Case("IsInf", 10, (_ODD,), {"detect_positive": 0}, smooth=False),
    Case("Where", 9, (bools(3, 4), normal(4), normal(3, 1))),
    Case("Constant", 13, (), {"value": _tensor(0.5)}, smooth=False),
    Case("Constant", 13, (), {"value_float": 0.25}, smooth=False),
    Case("Constant", 13, (), {"value_floats": [0.25, 2.0]}, smooth=False),
    Case("Constant", 13, (), {"value_int": 3}, smooth=False),
    Case("Constant", 13, (), {"value_ints": [3, 4]}, smooth=False),
    Case("ConstantOfShape", 9, (ints(2, 3),), smooth=False),
    Case("ConstantOfShape", 9, (ints(2, 0),), {"value": _tensor(3, 7)}, smooth=False),
    Case("Shape", 13, (normal(2, 3, 4),), smooth=False),
    Case("Shape", 15, (normal(2, 3, 4),), {"start": 1}, smooth=False),
    Case("Shape", 15, (normal(2, 3, 4),), {"start": -2, "end": -1}, smooth=False),
    Case("Size", 13, (normal(2, 3),), smooth=False),
    Case("Range", 11, (scalar(1), scalar(10), scalar(4)), smooth=False),
    Case("Range", 11, (scalar(10), scalar(1), scalar(-3)), smooth=False),
    Case("Range", 11, (scalar(5), scalar(1), scalar(1)), smooth=False),
    Case("Range", 11, tuple(scalar(v, np.float32) for v in (0.5, 2.6, 0.5)), skip=(1,)),
    *(
        Case("Cast", 13, (3 * normal(3, 4),), {"to": to}, smooth=to == TensorProto.DOUBLE)
        for to in (TensorProto.DOUBLE, TensorProto.INT64, TensorProto.BOOL, TensorProto.FLOAT16)
    ),
    Case("Cast", 13, (ints(0, 3, -4),), {"to": TensorProto.FLOAT}, smooth=False),
    Case("CastLike", 15, (normal(3), scalar(0.0, np.float64)), skip=(1,)),
    Case("CastLike", 15, (normal(3), scalar(0)), smooth=False),
    Case("EyeLike", 9, (normal(3, 4),), {"k": 1}, smooth=False),
    Case("EyeLike", 9, (ints([1, 2], [3, 4]),), {"dtype": 1, "k": -1}, smooth=False),
    Case("NonZero", 13, (np.array([[1.0, 0.0], [0.0, 2.0]], np.float32),), smooth=False),
]

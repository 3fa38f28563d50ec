"""Cases of ops/quantisation.py and ops/legacy.py, of bits and of wide unsigned integers."""

import numpy as np

from tests.ops.case import Case, bools, ints, normal, scalar

_BYTES = np.array([[0, 3, 128], [255, 127, 40]], np.uint8)
_SIGNED = np.array([[-128, 3, 127], [5, -7, 40]], np.int8)
_ZERO, _SIGNED_ZERO = np.array(130, np.uint8), np.array(-3, np.int8)
_SCALE = np.array(0.05, np.float32)
_SCALES = np.array([0.05, 0.1, 0.2], np.float32)
_ZEROS = np.array([128, 3, 250], np.uint8)
_WIDE = (np.uint16, np.uint32, np.uint64)
_LINE = normal(2, 3, 4)


def _q(array: np.ndarray, scale: np.ndarray, zero: np.ndarray) -> tuple:
    return array, scale, zero


def _shift(bits: np.ndarray, by: np.ndarray) -> list[np.ndarray]:
    return [np.array([int(b) >> int(n) for b, n in zip(bits, by, strict=True)], bits.dtype)]


CASES = [
    Case("QuantizeLinear", 13, (3 * normal(2, 3), _SCALE, _ZERO), smooth=False),
    Case("QuantizeLinear", 10, (3 * normal(2, 3), _SCALE), smooth=False),
    Case("QuantizeLinear", 13, (3 * normal(2, 3), _SCALES, _ZEROS), {"axis": -1}, smooth=False),
    Case(
        "QuantizeLinear",
        21,
        (normal(2, 4), np.abs(normal(2, 2))),
        {"axis": 1, "block_size": 2, "output_dtype": 3},
        smooth=False,
    ),
    Case("DequantizeLinear", 13, (_BYTES, _SCALE, _ZERO)),
    Case("DequantizeLinear", 13, (_BYTES, _SCALES, _ZEROS), {"axis": 1}),
    Case(
        "DequantizeLinear",
        21,
        (_BYTES[:, :2], _SCALES[:2].reshape(2, 1)),
        {"axis": 1, "block_size": 2},
    ),
    Case("DynamicQuantizeLinear", 11, (normal(2, 3),), outputs=3, smooth=False),
    Case("MatMulInteger", 10, (_BYTES, _SIGNED.T.copy(), _ZERO, _SIGNED_ZERO), smooth=False),
    Case("MatMulInteger", 10, (_BYTES, _BYTES.T.copy()), smooth=False),
    Case(
        "ConvInteger",
        10,
        (_BYTES.reshape(1, 1, 2, 3), _BYTES[:, :2].reshape(1, 1, 2, 2), _ZERO),
        {"pads": [1, 1, 1, 1]},
        smooth=False,
    ),
    Case(
        "QLinearMatMul",
        10,
        (
            *_q(_BYTES, _SCALE, _ZERO),
            *_q(_BYTES.T.copy(), np.array(2 * _SCALE), _ZERO),
            np.array(20 * _SCALE),
            _ZERO,
        ),
        smooth=False,
    ),
    Case(
        "QLinearConv",
        10,
        (
            *_q(_BYTES.reshape(1, 1, 2, 3), _SCALE, _ZERO),
            *_q(_BYTES[:, :2].reshape(1, 1, 2, 2), np.array(2 * _SCALE), _ZERO),
            *(np.array(10 * _SCALE), _ZERO, ints(40, dtype=np.int32)),
        ),
        smooth=False,
    ),
    *(
        Case(
            op,
            14 if op in {"Add", "Sub", "Mul", "Div"} else 13,
            (np.array([7, 200, 9], kind), np.array([2, 3, 40], kind)),
            smooth=False,
            oracle=lambda a, b, f=function: [f(a, b)],
        )
        for kind in _WIDE
        for op, function in (
            ("Add", np.add),
            ("Sub", np.subtract),
            ("Mul", np.multiply),
            ("Div", np.floor_divide),
            ("Mod", np.remainder),
            ("Max", np.maximum),
            ("Min", np.minimum),
        )
    ),
    Case(
        "BitShift",
        28,
        (ints(-8, 8, -1, dtype=np.int32), ints(1, 31, 5, dtype=np.int32)),
        {"direction": "RIGHT"},
        smooth=False,
        oracle=_shift,
    ),
    Case("BitCast", 26, (normal(3),), {"to": 6}, smooth=False, oracle=lambda x: [x.view(np.int32)]),
    Case("Cast", 13, (normal(3),), {"to": 7}, smooth=False),
    Case("Cast", 13, (np.array(["3", "-4"], dtype=object),), {"to": 7}, smooth=False),
    Case("Equal", 19, (np.array(["a", "b"], dtype=object),) * 2, smooth=False),
    Case("Not", 1, (bools(2, 3),), smooth=False),
    Case("Constant", 13, (), {"value_strings": ["a", "b"]}, smooth=False),
    Case(
        "SpaceToDepth",
        28,
        (normal(1, 2, 4, 4),),
        {"blocksize": 2, "mode": "CRD"},
        oracle="reference",
    ),
    *(
        Case(
            op,
            6,
            (np.abs(_LINE) + 0.5, np.abs(normal(3)) + 0.5),
            {"broadcast": 1, "axis": 1},
            oracle=lambda a, b, f=function: [f(a, b[:, None])],
        )
        for op, function in (
            ("Add", np.add),
            ("Sub", np.subtract),
            ("Mul", np.multiply),
            ("Div", np.divide),
            ("Pow", np.power),
        )
    ),
    *(
        Case(
            op,
            6,
            (a, b),
            {"broadcast": 1, "axis": 0},
            smooth=False,
            oracle=lambda a, b, f=function: [f(a, b[:, None, None])],
        )
        for op, function, a, b in (
            ("And", np.logical_and, bools(2, 3, 4), bools(2)),
            ("Or", np.logical_or, bools(2, 3, 4), bools(2)),
            ("Xor", np.logical_xor, bools(2, 3, 4), bools(2)),
            ("Equal", np.equal, ints([[1, 2], [3, 4]], [[5, 6], [7, 8]]), ints(1, 6)),
            ("Greater", np.greater, _LINE, normal(2)),
            ("Less", np.less, _LINE, normal(2)),
        )
    ),
    *(
        Case(op, 6, (_LINE, normal(2, 3, 4)), oracle=lambda a, b, f=function: [f(a, b)])
        for op, function in (
            ("Max", np.maximum),
            ("Min", np.minimum),
            ("Sum", np.add),
            ("Mean", lambda a, b: (a + b) / 2),
        )
    ),
    Case(
        "PRelu",
        6,
        (_LINE, np.abs(normal(3))),
        oracle=lambda x, s: [np.where(x < 0, s[:, None] * x, x)],
    ),
    Case(
        "Gemm",
        6,
        (normal(2, 3), normal(4, 3), normal(4)),
        {"transB": 1, "broadcast": 1, "alpha": 0.5},
        oracle=lambda a, b, c: [(0.5 * a @ b.T + c).astype(np.float32)],
    ),
    Case(
        "BatchNormalization",
        6,
        (_LINE, normal(3), normal(3), normal(3), np.abs(normal(3)) + 0.5),
        {"is_test": 1},
        oracle=lambda x, s, b, m, v: [
            (s[:, None] * (x - m[:, None]) / np.sqrt(v[:, None] + 1e-5) + b[:, None]).astype(
                np.float32
            )
        ],
    ),
    Case("Dropout", 6, (_LINE,), {"is_test": 1}, oracle=lambda x: [x]),
    Case("Reshape", 1, (_LINE,), {"shape": [0, -1]}, oracle=lambda x: [x.reshape(2, 12)]),
    Case("Concat", 1, (_LINE, _LINE), oracle=lambda a, b: [np.concatenate((a, b), 1)]),
    Case(
        "Pad",
        1,
        (_LINE,),
        {"paddings": [0, 1, 0, 0, 0, 2]},
        oracle=lambda x: [np.pad(x, ((0, 0), (1, 0), (0, 2)))],
    ),
    Case(
        "Split",
        1,
        (_LINE,),
        {"axis": 1, "split": [1, 2]},
        outputs=2,
        oracle=lambda x: [x[:, :1], x[:, 1:]],
    ),
    Case(
        "ReduceMax",
        20,
        (np.zeros((2, 0), np.float32), ints(1)),
        {"keepdims": 0},
        smooth=False,
        oracle=lambda *_: [np.full(2, -np.inf, np.float32)],
    ),
    Case(
        "Dropout",
        13,
        (normal(2, 3), np.array(0.4, np.float32), scalar(1, bool)),
        {"seed": 5},
        skip=(1,),
        oracle=lambda x, *_: [
            (x * (np.random.RandomState(5).uniform(0, 1, x.shape) >= 0.4) / 0.6).astype(np.float32)
        ],
    ),
]

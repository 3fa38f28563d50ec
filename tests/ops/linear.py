"""Cases of ops/linear.py."""

from tests.ops.case import Case, ints, normal

_C1 = (normal(2, 4, 9), normal(6, 4, 3), normal(6))
_C2 = (normal(2, 4, 7, 6), normal(6, 4, 3, 2), normal(6))
_G2 = (normal(2, 4, 7, 6), normal(6, 2, 3, 3))
_C3 = (normal(1, 2, 4, 5, 4), normal(3, 2, 2, 3, 2), normal(3))
_T1 = (normal(2, 4, 5), normal(4, 3, 3), normal(3))
_T2 = (normal(1, 4, 4, 3), normal(4, 3, 3, 2), normal(3))

CASES = [
    Case("MatMul", 13, (normal(3, 4), normal(4, 5))),
    Case("MatMul", 13, (normal(2, 3, 4), normal(4, 5))),
    Case("MatMul", 13, (normal(2, 1, 3, 4), normal(3, 4, 5))),
    Case("MatMul", 13, (normal(4), normal(4, 5))),
    Case("MatMul", 13, (ints([1, 2], [3, 4]), ints([1, -1], [0, 2])), smooth=False),
    Case("Gemm", 13, (normal(3, 4), normal(4, 5), normal(5))),
    Case("Gemm", 13, (normal(3, 4), normal(4, 5))),
    Case("Gemm", 7, (normal(4, 3), normal(4, 5), normal(3, 1)), {"transA": 1, "beta": 0.5}),
    Case("Gemm", 11, (normal(3, 4), normal(5, 4)), {"transB": 1, "alpha": 2.0}),
    Case("Gemm", 13, (normal(3, 4), normal(5, 4), normal()), {"transB": 1, "alpha": 0.3}),
    Case(
        "Gemm",
        13,
        (ints([1, 2], [3, 4]), ints([1, -1], [0, 2]), ints(5, 6)),
        {"transA": 1},
        smooth=False,
        oracle="reference",
    ),
    Case(
        "FusedMatMul",
        1,
        (normal(2, 4, 3), normal(2, 5, 4)),
        {"transA": 1, "transB": 1, "alpha": 0.5},
        domain="com.microsoft",
    ),
    Case("FusedMatMul", 1, (normal(2, 3, 4), normal(4, 5)), domain="com.microsoft"),
    Case(
        "FusedMatMul",
        1,
        (normal(3, 2, 4), normal(2, 4, 5)),
        {"transBatchA": 1},
        domain="com.microsoft",
    ),
    Case(
        "FusedMatMul",
        1,
        (normal(4, 2, 3), normal(4, 2, 5)),
        {"transBatchA": 1, "transA": 1, "transBatchB": 1},
        domain="com.microsoft",
    ),
    Case("Conv", 11, _C1),
    Case("Conv", 11, _C1, {"pads": [2, 1], "strides": [2], "dilations": [2]}),
    Case("Conv", 11, _C1, {"auto_pad": "SAME_UPPER", "strides": [2], "kernel_shape": [3]}),
    Case("Conv", 11, _C2, {"pads": [1, 1, 1, 1]}),
    Case("Conv", 1, _C2, {"pads": [0, 1, 2, 0], "strides": [2, 1]}),
    Case("Conv", 22, _C2, {"auto_pad": "SAME_LOWER", "strides": [2, 2]}),
    Case("Conv", 11, _C2[:2], {"auto_pad": "VALID"}),
    Case("Conv", 11, _G2, {"group": 2, "pads": [1, 1, 1, 1], "dilations": [1, 2]}),
    Case("Conv", 11, (normal(1, 4, 5, 5), normal(4, 1, 3, 3)), {"group": 4}),
    Case("Conv", 11, _C3, {"pads": [1, 0, 1, 1, 0, 1]}),
    Case("ConvTranspose", 11, _T1),
    Case("ConvTranspose", 11, _T1, {"strides": [3], "output_padding": [1], "pads": [1, 0]}),
    Case("ConvTranspose", 11, _T2, {"strides": [2, 2], "pads": [1, 0, 0, 1]}),
    Case("ConvTranspose", 1, _T2, {"strides": [2, 3], "dilations": [2, 1]}),
    Case("ConvTranspose", 11, _T2, {"strides": [2, 2], "output_shape": [8, 7]}),
    Case(
        "ConvTranspose",
        11,
        _T2,
        {"strides": [2, 2], "output_shape": [8, 7], "auto_pad": "SAME_UPPER"},
    ),
    Case("ConvTranspose", 11, _T2, {"strides": [2, 2], "auto_pad": "SAME_UPPER"}),
    Case("ConvTranspose", 11, _T2, {"strides": [2, 2], "auto_pad": "SAME_LOWER"}),
    Case("ConvTranspose", 11, (normal(1, 4, 3, 3), normal(4, 1, 2, 2)), {"group": 4}),
    Case("ConvTranspose", 11, (normal(1, 2, 2, 3, 2), normal(2, 2, 2, 2, 2), normal(2))),
]

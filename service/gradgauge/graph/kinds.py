"""Which ops make a row of the report, and of what kind; onnx_ir's float types."""

from typing import Literal

import onnx_ir

Kind = Literal[
    "linear",
    "activation",
    "normalisation",
    "contraction",
    "recurrent",
    "pooling",
    "add",
    "gate",
    "embedding",
    "other",
]

ACTIVATIONS = frozenset(
    [
        "Relu",
        "LeakyRelu",
        "PRelu",
        "Elu",
        "Selu",
        "Celu",
        "ThresholdedRelu",
        "Sigmoid",
        "HardSigmoid",
        "Tanh",
        "Softplus",
        "Softsign",
        "Gelu",
        "FastGelu",
        "BiasGelu",
        "QuickGelu",
        "HardSwish",
        "Swish",
        "Mish",
        "Erf",
        "Clip",
        "Sin",
        "Cos",
        "Exp",
        "Log",
        "Sqrt",
    ]
)
SATURATING = frozenset({"Sigmoid", "Tanh", "Softsign", "HardSigmoid", "Erf"})
RECTIFIERS = frozenset({"Relu", "ThresholdedRelu", "HardSwish"})
NORMS = frozenset(
    [
        "BatchNormalization",
        "LayerNormalization",
        "SimplifiedLayerNormalization",
        "RMSNormalization",
        "InstanceNormalization",
        "GroupNormalization",
        "LpNormalization",
        "MeanVarianceNormalization",
        "LRN",
        "SkipLayerNormalization",
        "SkipSimplifiedLayerNormalization",
    ]
)
RECURRENT = frozenset({"RNN", "LSTM", "GRU"})
POOLING = frozenset(
    [
        "MaxPool",
        "AveragePool",
        "LpPool",
        "GlobalAveragePool",
        "GlobalMaxPool",
        "GlobalLpPool",
        "ReduceMean",
    ]
)
LINEAR = frozenset(
    ["Gemm", "MatMul", "FusedMatMul", "Conv", "FusedConv", "ConvTranspose", "Einsum"]
)
CONTRACTION = frozenset(["Softmax", "Attention", "MultiHeadAttention", "GroupQueryAttention"])
FLOATS = frozenset(
    {
        onnx_ir.DataType.FLOAT,
        onnx_ir.DataType.DOUBLE,
        onnx_ir.DataType.FLOAT16,
        onnx_ir.DataType.BFLOAT16,
        onnx_ir.DataType.FLOAT8E4M3FN,
        onnx_ir.DataType.FLOAT8E4M3FNUZ,
        onnx_ir.DataType.FLOAT8E5M2,
        onnx_ir.DataType.FLOAT8E5M2FNUZ,
    }
)


BY_OP: tuple[tuple[frozenset[str], Kind], ...] = (
    (ACTIVATIONS, "activation"),
    (NORMS, "normalisation"),
    (RECURRENT, "recurrent"),
    (POOLING, "pooling"),
    (CONTRACTION, "contraction"),
)
PLUMBING = frozenset(
    [
        "Reshape",
        "Transpose",
        "Expand",
        "Tile",
        "Slice",
        "Split",
        "Concat",
        "Squeeze",
        "Unsqueeze",
        "Flatten",
        "Identity",
        "Cast",
        "Pad",
        "Where",
        "Gather",
        "GatherND",
        "GatherElements",
        "ScatterND",
        "ScatterElements",
        "Shape",
        "Constant",
        "Resize",
    ]
)

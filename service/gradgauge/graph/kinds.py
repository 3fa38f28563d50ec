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
SATURATING = frozenset({"Sigmoid", "Tanh", "Softsign", "HardSigmoid"})
# Clip is how ReLU6 is exported
RECTIFIERS = frozenset({"Relu", "ThresholdedRelu", "HardSwish", "Clip"})
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
        "EmbedLayerNormalization",
    ]
)
GATES = {"RNN": 1, "LSTM": 4, "GRU": 3}  # matrices that a cell stacks
RECURRENT = frozenset(GATES)
POOLING = frozenset(
    [
        "MaxPool",
        "AveragePool",
        "LpPool",
        "GlobalAveragePool",
        "GlobalMaxPool",
        "GlobalLpPool",
        "ReduceMean",
        "MaxRoiPool",
        "RoiAlign",
        "QLinearAveragePool",
        "QLinearGlobalAveragePool",
    ]
)
LINEAR = frozenset(
    [
        "Gemm",
        "MatMul",
        "FusedMatMul",
        "FusedGemm",
        "Conv",
        "FusedConv",
        "CausalConvWithState",
        "ConvTranspose",
        "DeformConv",
        "Einsum",
        "MatMulNBits",
        "QLinearConv",
        "QLinearMatMul",
        "QGemm",
        "MatMulInteger",
        "ConvInteger",
        "MatMulIntegerToFloat",
        "DynamicQuantizeMatMul",
    ]
)
RANDOM = frozenset(
    [
        "RandomNormal",
        "RandomNormalLike",
        "RandomUniform",
        "RandomUniformLike",
        "Bernoulli",
        "Multinomial",
    ]
)
# ops whose outputs have their channels at axis 1
CHANNELS_SECOND = frozenset(
    [
        "Conv",
        "FusedConv",
        "ConvTranspose",
        "DeformConv",
        "CausalConvWithState",
        "BatchNormalization",
        "InstanceNormalization",
        "GroupNormalization",
    ]
)
CONTRACTION = frozenset(
    [
        "Softmax",
        "Attention",
        "FlexAttention",
        "LinearAttention",
        "MultiHeadAttention",
        "GroupQueryAttention",
    ]
)
# ops that round, through which gradients pass straight
ROUNDING = frozenset(
    [
        "QuantizeLinear",
        "DynamicQuantizeLinear",
        "QLinearConv",
        "QLinearMatMul",
        "QGemm",
        "QLinearAdd",
        "QLinearMul",
        "QLinearConcat",
        "QLinearSigmoid",
        "QLinearLeakyRelu",
        "QLinearSoftmax",
        "QLinearAveragePool",
        "QLinearGlobalAveragePool",
        "DynamicQuantizeMatMul",
    ]
)
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
INTEGERS = frozenset(
    {
        onnx_ir.DataType.INT8,
        onnx_ir.DataType.INT16,
        onnx_ir.DataType.INT32,
        onnx_ir.DataType.INT64,
        onnx_ir.DataType.UINT8,
        onnx_ir.DataType.UINT16,
        onnx_ir.DataType.UINT32,
        onnx_ir.DataType.UINT64,
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

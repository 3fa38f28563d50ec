"""Which rule carries an op: by its name, else by its kind; where neither has one it is probed."""

from gradgauge.analytic import (
    binary,
    convolution,
    linear,
    movement,
    normalisation,
    pointwise,
    pooling,
    products,
    recurrent,
)
from gradgauge.analytic.call import Call, Rule
from gradgauge.analytic.moments import Step
from gradgauge.analytic.probe import probe


def _matmul(call: Call) -> Step | None:
    return linear.matmul(call) or products.product(call)


BY_OP: dict[str, Rule] = {
    "Add": binary.add,
    "AveragePool": pooling.average_pool,
    "BatchNormalization": normalisation.batch_norm,
    "Cast": movement.identity,
    "Conv": convolution.convolution,
    "ConvTranspose": convolution.convolution,
    "Div": binary.div,
    "Dropout": movement.dropout,
    "GRU": recurrent.gru,
    "Gemm": linear.gemm,
    "GlobalAveragePool": pooling.global_average_pool,
    "GroupNormalization": normalisation.group_norm,
    "Identity": movement.identity,
    "InstanceNormalization": normalisation.instance_norm,
    "LSTM": recurrent.lstm,
    "LayerNormalization": normalisation.layer_norm,
    "MatMul": _matmul,
    "MaxPool": pooling.max_pool,
    "Mul": binary.mul,
    "RMSNormalization": normalisation.rms_norm,
    "RNN": recurrent.rnn,
    "ReduceMean": pooling.reduce_mean,
    "ReduceSum": pooling.reduce_sum,
    "SimplifiedLayerNormalization": normalisation.rms_norm,
    "Softmax": products.softmax,
    "Sub": binary.sub,
    "Sum": binary.add,
    "Where": binary.where,
}
BY_KIND: dict[str, Rule] = {
    "movement": movement.move,
    "pointwise": pointwise.pointwise,
    "binary": pointwise.pointwise,
}


def carry_out(call: Call, kind: str) -> Step:
    """One node's outputs and pullback."""
    rule = BY_OP.get(call.op) or BY_KIND.get(kind)
    if call.attributes.get("broadcast"):  # before opset 7 `axis` says where the second one stands
        rule = None
    return (rule(call) if rule is not None else None) or probe(call)

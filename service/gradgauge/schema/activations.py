"""The activations a spec may name: their ONNX operator and the parameters each takes."""

from collections.abc import Mapping
from dataclasses import dataclass, field
from typing import Literal, get_args

Function = Literal[
    "relu",
    "leaky_relu",
    "prelu",
    "thresholded_relu",
    "clip",
    "elu",
    "selu",
    "celu",
    "gelu",
    "swish",
    "hard_swish",
    "mish",
    "sigmoid",
    "hard_sigmoid",
    "tanh",
    "softplus",
    "softsign",
    "erf",
    "shrink",
    "softmax",
    "log_softmax",
    "hardmax",
    "identity",
    "sin",
    "cos",
    "exp",
]


@dataclass(frozen=True, slots=True)
class Activation:
    """An ONNX operator and the parameters it takes, with the operator's own defaults.

    A default of None has to be given by the spec.
    """

    op: str
    params: Mapping[str, float | int | str | None] = field(default_factory=dict)


ACTIVATIONS: dict[Function, Activation] = {
    "relu": Activation("Relu"),
    "leaky_relu": Activation("LeakyRelu", {"alpha": 0.01}),
    "prelu": Activation("PRelu", {"alpha": 0.25}),  # learnt; torch starts it there
    "thresholded_relu": Activation("ThresholdedRelu", {"alpha": 1.0}),
    "clip": Activation("Clip", {"min": None, "max": None}),
    "elu": Activation("Elu", {"alpha": 1.0}),
    "selu": Activation(
        "Selu", {"alpha": 1.67326319217681884765625, "gamma": 1.05070102214813232421875}
    ),
    "celu": Activation("Celu", {"alpha": 1.0}),
    "gelu": Activation("Gelu", {"approximate": "none"}),
    "swish": Activation("Swish", {"alpha": 1.0}),
    "hard_swish": Activation("HardSwish"),
    "mish": Activation("Mish"),
    "sigmoid": Activation("Sigmoid"),
    "hard_sigmoid": Activation("HardSigmoid", {"alpha": 0.2, "beta": 0.5}),
    "tanh": Activation("Tanh"),
    "softplus": Activation("Softplus"),
    "softsign": Activation("Softsign"),
    "erf": Activation("Erf"),
    "shrink": Activation("Shrink", {"lambd": 0.5, "bias": 0.0}),
    "softmax": Activation("Softmax", {"axis": -1}),
    "log_softmax": Activation("LogSoftmax", {"axis": -1}),
    "hardmax": Activation("Hardmax", {"axis": -1}),
    "identity": Activation("Identity"),
    "sin": Activation("Sin"),
    "cos": Activation("Cos"),
    "exp": Activation("Exp"),
}
assert set(ACTIVATIONS) == set(get_args(Function))  # noqa: S101  # one table, two spellings

"""Gains: what keeps a signal's size through an activation."""

import math
from typing import Literal, get_args

from gradgauge.errors import InvalidSpec

GainName = Literal[
    "linear",
    "identity",
    "sigmoid",
    "tanh",
    "relu",
    "leaky_relu",
    "selu",
    "gelu",
    "gelu_tanh",
    "silu",
    "swish",
    "elu",
    "celu",
    "mish",
    "hard_swish",
    "hard_sigmoid",
    "softplus",
    "softsign",
    "erf",
    "thresholded_relu",
    "sin",
    "cos",
]


def gain_for(activation: str, param: float | None = None) -> float:
    """The gain that keeps a signal's size through `activation`, named as ONNX or torch names it.

    torch.nn.init.calculate_gain where torch has a row; elsewhere 1 / sqrt(E[phi(z)^2]) with
    z ~ N(0, 1), the second-moment condition of He et al. 2015, eq. 10. `param` is the slope of a
    leaky rectifier.

    Raises:
        InvalidSpec: no gain is known for the name.
    """
    name = activation.lower().replace("_", "")
    if name in {"leakyrelu", "prelu"}:
        slope = 0.01 if param is None else param
        return math.sqrt(2 / (1 + slope * slope))
    if name not in _GAINS:
        raise InvalidSpec(
            "unknown_gain",
            f"no gain is known for the activation {activation!r}",
            hint=f"give a number, or one of {', '.join(get_args(GainName))}",
        )
    return _GAINS[name]


# The second half is 1/sqrt(E[phi^2]) by quadrature (tests/schema/test_gains.py repeats it).
_GAINS = {
    "linear": 1.0,
    "identity": 1.0,
    "sigmoid": 1.0,
    "tanh": 5 / 3,
    "relu": math.sqrt(2),
    "selu": 3 / 4,
    "gelu": 1.533530441196,
    "gelutanh": 1.533580521666,
    "silu": 1.676532470331,
    "swish": 1.676532470331,
    "elu": 1.245198300701,
    "celu": 1.245198300701,
    "mish": 1.486847581273,
    "hardswish": 1.736657212767,
    "hardsigmoid": 1.859833867763,
    "softplus": 1.041866835535,
    "softsign": 2.337533363109,
    "erf": 1.467166950489,
    "thresholdedrelu": 1.579903081761,
    "sin": 1.520866623179,
    "cos": 1.327250600285,
}

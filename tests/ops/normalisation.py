"""Cases of ops/normalisation.py."""

import numpy as np

from tests.ops.case import Case, normal, uniform

_X = normal(3, 4, 5)
_BN = (normal(3, 4, 2, 3), normal(4), normal(4), normal(4), uniform(0.5, 2, 4))


def _trained_before_14(x, scale, bias, mean, var):
    """BatchNormalization-9's first case: five outputs, momentum 0.7."""
    now_mean, now_var = x.mean((0, 2, 3)), x.var((0, 2, 3))
    m, v, s, b = (a[:, None, None] for a in (now_mean, now_var, scale, bias))
    y = s * (x - m) / np.sqrt(v + np.float32(1e-5)) + b
    return [y, 0.7 * mean + 0.3 * now_mean, 0.7 * var + 0.3 * now_var, now_mean, now_var]


CASES = [
    Case("BatchNormalization", 15, _BN),
    Case("BatchNormalization", 9, _BN, {"epsilon": 1e-3, "momentum": 0.8}),
    Case("BatchNormalization", 7, (normal(3, 4), *_BN[1:])),
    Case(
        "BatchNormalization",
        15,
        _BN,
        {"training_mode": 1, "momentum": 0.7},
        outputs=3,
        oracle="reference",
        # the running statistics are state, not a path for gradients, as in torch
        smooth=False,
    ),
    Case("BatchNormalization", 15, _BN, {"training_mode": 1}, oracle="reference", skip=(3, 4)),
    Case(
        "BatchNormalization",
        9,
        _BN,
        {"momentum": 0.7},
        outputs=5,
        oracle=_trained_before_14,
        smooth=False,
    ),
    Case("LayerNormalization", 17, (_X, normal(5), normal(5))),
    Case("LayerNormalization", 17, (_X, normal(5)), {"epsilon": 1e-2}),
    Case("LayerNormalization", 17, (_X, normal(4, 5), normal(4, 5)), {"axis": 1}),
    Case("LayerNormalization", 17, (_X, normal(4, 5), normal(4, 5)), {"axis": -2}, outputs=3),
    Case("RMSNormalization", 23, (_X, normal(5)), oracle="reference"),
    Case(
        "RMSNormalization",
        23,
        (_X, normal(4, 5)),
        {"axis": 1, "epsilon": 1e-2},
        oracle="reference",
    ),
    Case("SimplifiedLayerNormalization", 17, (_X, normal(5)), {"axis": -1, "epsilon": 1e-3}),
    Case("InstanceNormalization", 6, (normal(2, 3, 4, 5), normal(3), normal(3))),
    Case("InstanceNormalization", 22, (_X, normal(4), normal(4)), {"epsilon": 1e-2}),
    Case(
        "GroupNormalization",
        18,
        (normal(2, 4, 5), normal(2), normal(2)),
        {"num_groups": 2},
        oracle="reference",
    ),
    Case("GroupNormalization", 21, (normal(2, 4, 3, 3), normal(4), normal(4)), {"num_groups": 2}),
    Case("LpNormalization", 1, (_X,)),
    Case("LpNormalization", 22, (_X,), {"axis": 1, "p": 1}),
    Case("MeanVarianceNormalization", 13, (normal(2, 3, 4, 2),)),
    Case("MeanVarianceNormalization", 9, (_X,), {"axes": [2]}),
    Case("LRN", 13, (normal(2, 6, 3, 2),), {"size": 3}),
    Case(
        "LRN",
        1,
        # as many channels as inputs: onnx.reference loops over the wrong one of the two
        (normal(6, 6, 3, 2),),
        {"size": 4, "alpha": 0.2, "beta": 0.6, "bias": 1.5},
        oracle="reference",
    ),
]

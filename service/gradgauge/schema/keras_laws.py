"""Keras initializers and activations as a spec spells them."""

import math
from typing import Any

from gradgauge.schema.keras_steps import Json, refused

_FANS = {
    "glorotuniform": "glorot_uniform",
    "glorotnormal": "glorot_normal",
    "heuniform": "he_uniform",
    "henormal": "he_normal",
    "lecununiform": "lecun_uniform",
    "lecunnormal": "lecun_normal",
    "zeros": "zeros",
    "ones": "ones",
}
ACTIVATIONS: dict[str, Json] = {
    "relu": {"function": "relu"},
    "relu6": {"function": "clip", "min": 0.0, "max": 6.0},
    "leaky_relu": {"function": "leaky_relu", "alpha": 0.2},
    "elu": {"function": "elu"},
    "selu": {"function": "selu"},
    "celu": {"function": "celu"},
    "gelu": {"function": "gelu"},
    "silu": {"function": "swish"},
    "swish": {"function": "swish"},
    "hard_silu": {"function": "hard_swish"},
    "hard_swish": {"function": "hard_swish"},
    "hard_sigmoid": {"function": "hard_sigmoid", "alpha": 1 / 6},
    "mish": {"function": "mish"},
    "sigmoid": {"function": "sigmoid"},
    "tanh": {"function": "tanh"},
    "softplus": {"function": "softplus"},
    "softsign": {"function": "softsign"},
    "exponential": {"function": "exp"},
    "softmax": {"function": "softmax"},
    "log_softmax": {"function": "log_softmax"},
}


def law(value: Any, where: str) -> Json | None:
    """The initializer as a law; None where none is given.

    Keras cuts its normals at two standard deviations and widens them to the same variance; the
    laws here are not cut.
    """
    if value is None:
        return None
    kind, config = _named(value, where)
    name = kind.replace("_", "").lower()
    if name in _FANS:
        return {"kind": _FANS[name]}
    if name == "variancescaling":
        return _scaled(config, where)
    found = _plain(name, config)
    if found is None:
        raise refused(f"no translation of the initializer {kind[:60]!r}", where)
    return found


def _plain(name: str, config: Json) -> Json | None:
    spread = {"mean": config.get("mean", 0.0), "std": config.get("stddev", 0.05)}
    table: dict[str, Json] = {
        "randomnormal": {"kind": "normal", **spread},
        "truncatednormal": {"kind": "truncated_normal", **spread},
        "randomuniform": {
            "kind": "uniform",
            "low": config.get("minval", -0.05),
            "high": config.get("maxval", 0.05),
        },
        "uniform": {"kind": "uniform", "low": -0.05, "high": 0.05},
        "constant": {"kind": "constant", "value": config.get("value", 0.0)},
        "orthogonal": {"kind": "orthogonal", "gain": config.get("gain", 1.0)},
        "identity": {"kind": "identity", "gain": config.get("gain", 1.0)},
    }
    return table.get(name)


def _scaled(config: Json, where: str) -> Json:
    scale, mode = config.get("scale", 1.0), config.get("mode", "fan_in")
    word = "uniform" if config.get("distribution") == "uniform" else "normal"
    if type(scale) not in (int, float) or not 0 < scale <= 1e9:
        raise refused("a scale of VarianceScaling is above 0", where)
    if mode == "fan_avg":
        return {"kind": f"glorot_{word}", "gain": math.sqrt(scale)}
    if mode not in ("fan_in", "fan_out"):
        raise refused(f"no translation of the mode {str(mode)[:60]!r}", where)
    return {"kind": f"lecun_{word}", "gain": math.sqrt(scale), "mode": mode}


def _named(value: Any, where: str) -> tuple[str, Json]:
    if isinstance(value, str):
        return value, {}
    if isinstance(value, dict) and isinstance(value.get("class_name"), str):
        config = value.get("config")
        return value["class_name"], config if isinstance(config, dict) else {}
    raise refused("an initializer has no name", where)


def activation(value: Any, where: str) -> Json | None:
    """An `activation` setting as a layer; None for the identity."""
    if isinstance(value, dict):
        inner = value.get("config")
        if not isinstance(inner, str):
            return activation_layer(str(value.get("class_name")), inner or {}, where)
        value = inner
    if value in (None, "linear"):
        return None
    if not isinstance(value, str) or value not in ACTIVATIONS:
        raise refused(f"no translation of the activation {str(value)[:60]!r}", where)
    return {"type": "activation"} | ACTIVATIONS[value]


def activation_layer(kind: str, config: Json, where: str) -> Json | None:
    """ReLU, LeakyReLU, ELU and Softmax as layers of their own."""
    if kind == "ReLU":
        return _relu(config, where)
    if kind == "LeakyReLU":
        slope = config.get("negative_slope", config.get("alpha", 0.3))
        return {"type": "activation", "function": "leaky_relu", "alpha": slope}
    if kind == "ELU":
        return {"type": "activation", "function": "elu", "alpha": config.get("alpha", 1.0)}
    if kind == "Softmax" and config.get("axis", -1) in (-1, [-1]):
        return {"type": "activation", "function": "softmax"}
    raise refused(f"no translation of the activation {kind[:60]!r}", where)


def _relu(config: Json, where: str) -> Json:
    slope, top = config.get("negative_slope") or 0.0, config.get("max_value")
    if config.get("threshold"):
        raise refused("no translation of a ReLU with a threshold", where)
    if top is None:
        more = {"function": "leaky_relu", "alpha": slope} if slope else {"function": "relu"}
        return {"type": "activation", **more}
    if slope:
        raise refused("no translation of a leaky ReLU with a top", where)
    return {"type": "activation", "function": "clip", "min": 0.0, "max": top}

"""Specs of the networks papers speak of, and their mean-field profile."""

import math

from gradgauge.analytic.ensemble.profile import Ensemble, profile
from gradgauge.schema.spec import ArchSpec


def normal(second: float, fan: int) -> dict:
    """The law with n Var W = second."""
    return {"kind": "normal", "std": math.sqrt(second / fan)} if second else {"kind": "zeros"}


def dense(units: int, **more) -> dict:
    return {"type": "dense", "units": units, **more}


def phi(function: str, **more) -> dict:
    return {"type": "activation", "function": function, **more}


def repeat(times: int, *layers: dict) -> dict:
    return {"type": "repeat", "times": times, "layers": list(layers)}


def residual(*layers: dict, **more) -> dict:
    return {"type": "residual", "layers": list(layers), **more}


def ensemble(shape: list[int], *layers: dict, batch=None, given=None, **defaults) -> Ensemble:
    told = {"gradgauge": 1, "input": {"shape": shape, **(given or {})}, "layers": list(layers)}
    if "scheme" in defaults:
        told["defaults"] = {"scheme": defaults.pop("scheme"), "init": defaults}
    elif defaults:
        told["defaults"] = {"init": defaults}
    return profile(ArchSpec.model_validate(told), batch=batch)


def chain(function: str, s_w2: float, s_b2: float, *, times=200, n=256, kind="normal") -> Ensemble:
    """A plain network of one activation and dense layers, cut where papers cut: behind the sum."""
    matrix = {"kind": kind, "gain": math.sqrt(s_w2)}
    weight = normal(s_w2, n) if kind == "normal" else matrix
    layers = repeat(times, phi(function), dense(n))
    return ensemble([n], layers, weight=weight, bias=normal(s_b2, 1))


def block(found: Ensemble):
    """The one repeated block."""
    (only,) = found.blocks
    return only


def critical(found: Ensemble, s_w2: float) -> float:
    """The weights' variance that brings the block to the edge of chaos."""
    gain = found.critical_gain(block(found).scope)
    assert gain is not None
    return s_w2 * gain**2

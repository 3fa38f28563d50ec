"""Which networks there are: every one a plain record drawn from its number."""

import math
from typing import Any

import numpy as np

Spec = dict[str, Any]

# one of these for every number in turn, so that any run of numbers holds all families
ORDER = (
    "mlp", "rnn", "cnn", "resmlp", "tfm", "mlp", "rnn", "cnn", "rescnn", "tfm", "rnn", "resmlp",
)  # fmt: skip
GROUP = {"resmlp": "residual", "rescnn": "residual", "tfm": "transformer"}
SEED = 20261
INITS = ("he", "lecun", "glorot", "torch", "orthogonal", "n001", "n03", "gain")
INIT_ODDS = (0.27, 0.12, 0.14, 0.12, 0.1, 0.05, 0.05, 0.15)
ACTS = {"relu": 0.32, "tanh": 0.16, "sigmoid": 0.12, "gelu": 0.12, "leaky": 0.08, "swish": 0.12,
        "selu": 0.06, "linear": 0.02}  # fmt: skip
SCALES = {"std": 0.72, "unit": 0.09, "raw": 0.07, "offset": 0.04, "x1000": 0.05, "x1e-3": 0.03}
FAULTS = ("dead", "saturated", "huge", "tiny", "symmetric", "rank1")
FAULTY = {"rnn": 0.18}  # share of networks with a planted fault, in one that would train without
FAULTY_ELSE = 0.3
HARDER = 480  # the number from which on networks are drawn harder
HARDER_SHARE = 0.45
STEPS = {"mlp": 110, "cnn": 90, "resmlp": 90, "rescnn": 90, "tfm": 80, "rnn": 140}
TRIES = (("sgd", 0.1), ("sgd", 0.01), ("sgd", 0.001),
         ("adam", 0.01), ("adam", 0.002), ("adam", 0.0003))  # fmt: skip


def group(family: str) -> str:
    """The five families figures are told for."""
    return GROUP.get(family, family)


def spec(number: int) -> Spec:
    """The network of one number; the same in every process."""
    rng = np.random.default_rng([SEED, number])
    family = ORDER[number % len(ORDER)]
    faulty = bool(rng.random() < FAULTY.get(family, FAULTY_ELSE))
    drawn = _DRAW[family](rng, faulty=faulty)
    base: Spec = {"id": f"t{number:04d}", "number": number, "family": family, "fault": None}
    base |= {"width": 24, "bias": 0.0, "gain": 1.0, "norm": "none", "zero_head": False} | drawn
    if base["init"] == "gain":
        base["gain"] = round(float(math.exp(rng.normal(0.0, 0.55))) * 1.2, 3)
    if number >= HARDER and not faulty and rng.random() < HARDER_SHARE:
        base |= _harder(base, rng)
    if faulty:
        base["fault"] = _fault(base, rng)
        if base["fault"]["kind"] == "input_scale":
            base["scale"] = base["fault"]["scale"]
    return base


def _harder(base: Spec, rng: np.random.Generator) -> Spec:
    """One thing more that tends to go wrong, as too few of the first networks explode."""
    kind = _pick(rng, {"gain": 0.6, "deep": 0.2, "scale": 0.2})
    if kind == "gain":
        return {"init": "gain", "gain": round(float(math.exp(rng.normal(1.0, 0.4))), 3)}
    if base["family"] == "rnn":
        return {"T": 40} if kind == "deep" else {"scale": "x30"}
    if kind == "scale":
        return {"scale": str(rng.choice(("x1000", "raw", "x1e-3")))}
    deep = {"mlp": 48, "cnn": 16, "resmlp": 24, "rescnn": 10, "tfm": 6}
    return {"depth": deep[base["family"]], "norm": "none"}


def _pick(rng: np.random.Generator, odds: dict[Any, float]) -> Any:
    total = sum(odds.values())
    keys = list(odds)
    return keys[int(rng.choice(len(keys), p=[v / total for v in odds.values()]))]


def _common(rng: np.random.Generator, *, faulty: bool) -> Spec:
    """What all feed-forward families share; a network with a fault is healthy otherwise."""
    data = _pick(rng, {"digits": 0.7, "clusters": 0.15, "teacher": 0.15})
    if faulty:
        act = _pick(rng, {"relu": 0.45, "gelu": 0.2, "tanh": 0.25, "leaky": 0.1})
        return {"data": data, "act": act, "init": "glorot" if act == "tanh" else "he",
                "scale": "std"}  # fmt: skip
    return {
        "data": data,
        "act": _pick(rng, ACTS),
        "init": str(rng.choice(INITS, p=INIT_ODDS)),
        "bias": _pick(rng, {0.0: 0.8, 0.05: 0.08, 0.5: 0.07, 2.0: 0.05}),
        "scale": _pick(rng, SCALES),
        "zero_head": bool(rng.random() < 0.04),
    }


def _depth(rng: np.random.Generator, choices: tuple[int, ...], *, faulty: bool) -> int:
    kept = choices[: max(3, len(choices) // 2)] if faulty else choices
    return int(rng.choice(kept))


def _mlp(rng: np.random.Generator, *, faulty: bool) -> Spec:
    return _common(rng, faulty=faulty) | {
        "depth": _depth(rng, (2, 3, 4, 6, 8, 12, 16, 24, 32, 48, 64), faulty=faulty),
        "width": int(rng.choice((24, 32, 48, 64, 128), p=(0.15, 0.3, 0.15, 0.3, 0.1))),
        "norm": _pick(rng, {"none": 0.72, "ln": 0.14, "bn": 0.14}),
    }


def _cnn(rng: np.random.Generator, *, faulty: bool) -> Spec:
    return _common(rng, faulty=faulty) | {
        "depth": _depth(rng, (3, 4, 6, 8, 12, 16, 24, 32), faulty=faulty),
        "width": 8,
        "norm": _pick(rng, {"none": 0.55, "bn": 0.45}),
        "pool": _pick(rng, {"gap": 0.5, "flat": 0.5}),
    }


def _residual(rng: np.random.Generator, *, faulty: bool) -> Spec:
    return _common(rng, faulty=faulty) | {
        "place": str(rng.choice(("pre", "post"))),
        "branch": _pick(rng, {"plain": 0.56, "sqrtL": 0.22, "zerolast": 0.11, "rezero": 0.11}),
    }


def _resmlp(rng: np.random.Generator, *, faulty: bool) -> Spec:
    return _residual(rng, faulty=faulty) | {
        "depth": _depth(rng, (2, 4, 8, 12, 16, 24), faulty=faulty),
        "width": int(rng.choice((32, 48, 64))),
        "norm": _pick(rng, {"none": 0.42, "ln": 0.34, "bn": 0.24}),
    }


def _rescnn(rng: np.random.Generator, *, faulty: bool) -> Spec:
    return _residual(rng, faulty=faulty) | {
        "depth": _depth(rng, (2, 4, 6, 10, 14), faulty=faulty),
        "width": 8,
        "norm": _pick(rng, {"none": 0.5, "bn": 0.5}),
        "pool": "gap",
    }


def _tfm(rng: np.random.Generator, *, faulty: bool) -> Spec:
    found = _residual(rng, faulty=faulty) | {
        "depth": _depth(rng, (1, 2, 3, 4, 6, 8, 10), faulty=faulty),
        "width": 16,
        "norm": _pick(rng, {"none": 0.25, "ln": 0.75}),
        "bias": 0.0,
    }
    return found | {"act": str(rng.choice(("relu", "gelu")))}


def _rnn(rng: np.random.Generator, *, faulty: bool) -> Spec:
    cell = str(rng.choice(("rnn_tanh", "rnn_relu", "gru", "lstm")))
    return {
        "cell": cell,
        "depth": 1,
        "data": str(rng.choice(("recall", "sign", "adding"))),
        "T": int(rng.choice((5, 10) if faulty else (5, 10, 20, 40, 60, 80),
                            p=None if faulty else (0.08, 0.26, 0.24, 0.26, 0.06, 0.1))),
        "init": "orthogonal" if faulty else _pick(rng, {
            "torch": 0.26, "glorot": 0.14, "orthogonal": 0.24, "identity": 0.12, "gain": 0.24}),
        "forget": _pick(rng, {0.0: 0.4, 1.0: 0.3, 3.0: 0.2, 6.0: 0.1}) if cell == "lstm" else 0.0,
        "update": _pick(rng, {0.0: 0.5, 1.0: 0.25, 3.0: 0.25}) if cell == "gru" else 0.0,
        "act": "relu" if cell == "rnn_relu" else "tanh",
        "scale": "std" if faulty else _pick(rng, {"std": 0.86, "x0.01": 0.07, "x30": 0.07}),
    }  # fmt: skip


def _fault(base: Spec, rng: np.random.Generator) -> Spec:
    """Where the fault is, by the layer's name, and how bad."""
    kinds = dict.fromkeys(FAULTS, 1.0) | {"zero_head": 0.6, "input_scale": 0.8}
    kinds |= {"frozen_norm": 2.0} if base["norm"] == "bn" else {}
    kinds |= {"zero_branch": 1.0} if "branch" in base else {}
    kind = _pick(rng, kinds)
    if kind == "zero_head":
        return {"kind": kind, "layer": "out"}
    if kind == "input_scale":
        scales = ("x30", "x0.01", "x1000") if base["family"] == "rnn" else ("x1000", "x1e-3", "raw")
        return {"kind": kind, "layer": "", "scale": str(rng.choice(scales))}
    if kind == "frozen_norm":
        return {"kind": kind, "layer": "n*", "size": float(rng.choice((3.0, 30.0, 1000.0))),
                "seed": int(rng.integers(1 << 31))}  # fmt: skip
    places = hidden(base)
    layer = places[int(rng.integers(len(places)))]
    size = float(rng.choice((30.0, 100.0, 1000.0)))
    return {"kind": kind, "layer": layer, "size": size, "seed": int(rng.integers(1 << 31))}


def hidden(base: Spec) -> list[str]:
    """Names of the weight layers a fault may be planted in."""
    family, depth = base["family"], base["depth"]
    if family in {"mlp", "cnn"}:
        return [f"h{k}" for k in range(depth)]
    if family == "tfm":
        return [f"b{k}{part}" for k in range(depth) for part in "vom"]
    if family == "rnn":
        return ["rec"]
    return [f"b{k}{part}" for k in range(depth) for part in "ab"]


_DRAW = {
    "mlp": _mlp,
    "cnn": _cnn,
    "resmlp": _resmlp,
    "rescnn": _rescnn,
    "tfm": _tfm,
    "rnn": _rnn,
}

"""The networks' weights at initialisation, and the faults planted into them."""

import numpy as np
from benchmarks.trainability.nets import shapes
from benchmarks.trainability.specs import Spec

Array = np.ndarray
Weights = dict[str, Array]


def weights(spec: Spec) -> tuple[Weights, Weights]:
    """Parameters, and statistics of frozen norms (`name.mean`, `name.var`; empty without)."""
    rng = np.random.default_rng([spec["number"], 1])
    found = {name: _initial(name, shape, spec, rng) for name, shape in shapes(spec).items()}
    if spec["zero_head"]:
        found["out.W"][:] = 0.0
    if spec.get("branch") == "zerolast":
        for name, w in found.items():
            if name[0] == "b" and name.endswith(("b.W", "o.W", "p.W")):
                w[:] = 0.0
    frozen: Weights = {}
    if spec["fault"] is not None:
        _plant(spec, found, frozen)
    return {k: v.astype(np.float32) for k, v in found.items()}, frozen


def _initial(name: str, shape: tuple[int, ...], spec: Spec, rng: np.random.Generator) -> Array:
    layer, kind = name.split(".")
    if kind in "ga":
        return np.ones(shape) if kind == "g" else np.zeros(shape)
    if kind == "P":
        return 0.1 * rng.standard_normal(shape)
    if kind == "W":
        return _matrix(shape, _law(layer, spec), spec["gain"], rng)
    if kind == "R":
        n = shape[1]
        return np.concatenate([_recurrent((n, n), spec, rng) for _ in range(shape[0] // n)])
    return _gates(kind, shape, spec, rng) if layer == "rec" else _bias(layer, shape, spec, rng)


def _bias(layer: str, shape: tuple[int, ...], spec: Spec, rng: np.random.Generator) -> Array:
    if spec["init"] == "torch" and layer[0] != "n":
        bound = 1 / np.sqrt(_fan_in(layer, spec))
        return rng.uniform(-bound, bound, shape)
    return spec["bias"] * rng.standard_normal(shape) if layer[0] in "hb" else np.zeros(shape)


def _law(layer: str, spec: Spec) -> str:
    """A head keeps its scale whatever the hidden layers' law is, save where all share a sigma."""
    if spec["family"] == "rnn":
        return "torch" if spec["init"] == "torch" else "glorot"
    if layer in {"out", "emb", "stem"} and spec["init"] == "gain":
        return "lecun"
    return str(spec["init"])


def _fan_in(layer: str, spec: Spec) -> int:
    shape = shapes(spec)[f"{layer}.W"]
    return int(np.prod(shape[1:]))


def _matrix(shape: tuple[int, ...], law: str, gain: float, rng: np.random.Generator) -> Array:
    fan_in, field = int(np.prod(shape[1:])), int(np.prod(shape[2:]))
    fan_out = shape[0] * field
    if law == "orthogonal":
        return _orthogonal(shape[0], fan_in, rng).reshape(shape)
    if law == "torch":
        return rng.uniform(-1, 1, shape) / np.sqrt(fan_in)
    deviation = {
        "he": np.sqrt(2 / fan_in),
        "lecun": np.sqrt(1 / fan_in),
        "glorot": np.sqrt(2 / (fan_in + fan_out)),
        "n001": 0.01,
        "n03": 0.3,
        "gain": gain / np.sqrt(fan_in),
    }[law]
    return deviation * rng.standard_normal(shape)


def _orthogonal(rows: int, columns: int, rng: np.random.Generator) -> Array:
    q, r = np.linalg.qr(rng.standard_normal((max(rows, columns), min(rows, columns))))
    q = q * np.sign(np.diag(r))
    return q if rows >= columns else q.T


def _recurrent(shape: tuple[int, int], spec: Spec, rng: np.random.Generator) -> Array:
    n = shape[0]
    if spec["init"] == "identity":
        return np.eye(n)
    if spec["init"] == "orthogonal":
        return _orthogonal(n, n, rng)
    if spec["init"] == "torch":
        return rng.uniform(-1, 1, shape) / np.sqrt(n)
    return (
        (spec["gain"] if spec["init"] == "gain" else 1.0) * rng.standard_normal(shape) / np.sqrt(n)
    )


def _gates(kind: str, shape: tuple[int, ...], spec: Spec, rng: np.random.Generator) -> Array:
    """Gates in torch's order: LSTM i f g o, GRU r z n; `c` is the recurrent bias."""
    n = spec["width"]
    found = rng.uniform(-1, 1, shape) / np.sqrt(n) if spec["init"] == "torch" else np.zeros(shape)
    if kind == "b" and (spec["forget"] or spec["update"]):
        found[n : 2 * n] += spec["forget"] + spec["update"]
    return found


def _plant(spec: Spec, found: Weights, frozen: Weights) -> None:
    fault = spec["fault"]
    kind, layer = fault["kind"], fault["layer"]
    if kind == "zero_head":
        found["out.W"][:] = 0.0
        return
    if kind == "input_scale":
        return
    rng = np.random.default_rng(fault["seed"])
    if kind == "frozen_norm":
        _freeze(found, frozen, fault["size"], rng)
        return
    names = [f"{layer}.R", f"{layer}.W"] if spec["family"] == "rnn" else [f"{layer}.W"]
    for name in names:
        found[name] = _faulty(kind, found[name], fault["size"], rng)
    if kind in {"dead", "saturated"}:
        sign = -1.0 if kind == "dead" else 1.0
        found[f"{layer}.b"] += sign * fault["size"]


def _faulty(kind: str, w: Array, size: float, rng: np.random.Generator) -> Array:
    if kind == "huge":
        return w * size
    if kind == "tiny":
        return w / size
    if kind == "symmetric":
        return np.broadcast_to(w.mean(0, keepdims=True) + w.std(), w.shape).copy()
    if kind == "rank1":
        flat = w.reshape(len(w), -1)
        u, v = rng.standard_normal(len(w)), rng.standard_normal(flat.shape[1])
        return (np.outer(u, v) * flat.std()).reshape(w.shape)
    if kind == "zero_branch":
        return np.zeros_like(w)
    return w  # dead, saturated: the bias does it


def _freeze(found: Weights, frozen: Weights, size: float, rng: np.random.Generator) -> None:
    """Every norm answers by statistics that are not its input's: as left by another data set."""
    spread = np.log10(size)
    for name in [k for k in found if k.endswith(".g")]:
        layer, n = name.removesuffix(".g"), len(found[name])
        frozen[f"{layer}.mean"] = (0.3 * spread * rng.standard_normal(n)).astype(np.float32)
        frozen[f"{layer}.var"] = (10 ** (spread * rng.normal(0.5, 0.5, n))).astype(np.float32)

"""What the networks learn: 8x8 digits, two synthetic classifications, three long-lag tasks."""

from functools import lru_cache

import numpy as np
from benchmarks.trainability.specs import Spec

Array = np.ndarray
CLASSES = 10
POOL = 2048  # examples of a task that is drawn
FEATURES = {"recall": 4, "sign": 1, "adding": 2}
OUTPUTS = {"recall": 4, "sign": 2, "adding": 1}
CHANCE = {"recall": float(np.log(4)), "sign": float(np.log(2)), "adding": 1 / 6}


def outputs(spec: Spec) -> int:
    return OUTPUTS.get(spec["data"], CLASSES)


def chance(spec: Spec) -> float:
    """The loss of an answer that does not look at its input."""
    return CHANCE.get(spec["data"], float(np.log(CLASSES)))


def pool(spec: Spec) -> tuple[Array, Array]:
    """All examples of a network's task, in the shape and at the scale it is fed."""
    if spec["family"] == "rnn":
        x, y = _sequences(spec["data"], spec["T"])
        return (x * _factor(spec["scale"])).astype(np.float32), y
    x, y = _DRAWN[spec["data"]]()
    x = _scaled(x, spec["scale"]).astype(np.float32)
    shape = {"mlp": (64,), "resmlp": (64,), "tfm": (8, 8)}.get(spec["family"], (1, 8, 8))
    return x.reshape(-1, *shape), y


def batches(spec: Spec, size: int, count: int, *, order: int = 0) -> list[Array]:
    """Indices into the pool, epoch by epoch in one of several orders."""
    total = len(pool(spec)[1])
    rng = np.random.default_rng([spec["number"], 7, order])
    epochs = -(-count * size // total)
    run = np.concatenate([rng.permutation(total) for _ in range(epochs)])
    return [run[k * size : (k + 1) * size] for k in range(count)]


def _factor(scale: str) -> float:
    return float(scale.removeprefix("x")) if scale.startswith("x") else 1.0


def _scaled(x: Array, scale: str) -> Array:
    """`x` is raw, from 0 to 16."""
    if scale == "raw":
        return x
    if scale == "unit":
        return x / 16
    standard = (x - x.mean()) / x.std()
    return standard + 10 if scale == "offset" else standard * _factor(scale)


@lru_cache(maxsize=1)
def _digits() -> tuple[Array, Array]:
    from sklearn.datasets import load_digits

    held = load_digits()
    return held.data, held.target.astype(np.int64)


@lru_cache(maxsize=1)
def _clusters() -> tuple[Array, Array]:
    """Three Gaussian clouds per class, at the range of the digits."""
    rng = np.random.default_rng(5)
    centres = rng.normal(0, 1.0, (3 * CLASSES, 64))
    which = rng.integers(0, 3 * CLASSES, POOL)
    x = centres[which] + 0.8 * rng.standard_normal((POOL, 64))
    return 16 * (x - x.min()) / (x.max() - x.min()), (which % CLASSES).astype(np.int64)


@lru_cache(maxsize=1)
def _teacher() -> tuple[Array, Array]:
    """The largest of ten smooth functions of images with a smooth spectrum."""
    rng = np.random.default_rng(6)
    low = rng.standard_normal((POOL, 10)) @ rng.standard_normal((10, 64))
    x = low / 3 + 0.3 * rng.standard_normal((POOL, 64))
    y = np.tanh(low @ rng.standard_normal((64, 24)) / 12) @ rng.standard_normal((24, CLASSES))
    return 16 * (x - x.min()) / (x.max() - x.min()), y.argmax(1).astype(np.int64)


_DRAWN = {"digits": _digits, "clusters": _clusters, "teacher": _teacher}


@lru_cache(maxsize=24)
def _sequences(task: str, steps: int) -> tuple[Array, Array]:
    """recall: the class told at step 0 at the end; sign: of the sum of the first three; adding."""
    rng = np.random.default_rng([8, steps])
    if task == "recall":
        y = rng.integers(0, 4, POOL)
        x = 0.3 * rng.standard_normal((POOL, steps, 4))
        x[:, 0] = 2 * np.eye(4)[y]
        return x, y
    if task == "sign":
        x = 0.3 * rng.standard_normal((POOL, steps, 1))
        x[:, :3] = rng.standard_normal((POOL, 3, 1))
        return x, (x[:, :3, 0].sum(1) > 0).astype(np.int64)
    x = np.stack([rng.random((POOL, steps)), np.zeros((POOL, steps))], 2)
    half = steps // 2
    first, second = rng.integers(0, half, POOL), rng.integers(half, steps, POOL)
    rows = np.arange(POOL)
    x[rows, first, 1] = x[rows, second, 1] = 1.0
    return x, (x[rows, first, 0] + x[rows, second, 0]).astype(np.float32)

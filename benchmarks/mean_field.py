"""What the ensemble of a spec costs: specs per second, and 1,000 layers, beside drawing one.

`python -m benchmarks.mean_field [--rounds N]`. Per spec and round: read and profile the text with
every cache cold, the same warm, and, as the reference, read the same text and draw and propagate
one set of weights with plain numpy (forward and backward, one input) where it is an MLP.
"""

import argparse
import json
import statistics
import time
from collections.abc import Callable

import numpy as np

from gradgauge.analytic.ensemble import kernels, maps, softmax
from gradgauge.analytic.ensemble.profile import profile
from gradgauge.schema.spec import parse_spec


def dense(n: int) -> dict:
    return {"type": "dense", "units": n}


def phi(name: str) -> dict:
    return {"type": "activation", "function": name}


def conv(n: int, **more) -> dict:
    return {"type": "conv2d", "filters": n, "kernel": 3, "padding": "same", **more}


def residual(*layers: dict, **more) -> dict:
    return {"type": "residual", "layers": list(layers), **more}


BN, RELU, NORM = {"type": "batch_norm"}, phi("relu"), {"type": "layer_norm"}


def stage(filters: int, stride: int) -> list[dict]:
    short = "projection" if stride > 1 else "identity"
    first = residual(conv(filters, stride=stride), BN, RELU, conv(filters), BN, shortcut=short)
    return [first, RELU, residual(conv(filters), BN, RELU, conv(filters), BN), RELU]


def network(name: str, shape: list[int], *layers: dict, **more) -> tuple[str, str]:
    init = more.pop("init", {"weight": "he_normal"})
    told = {"gradgauge": 1, "input": {"shape": shape, **more}, "defaults": {"init": init}}
    return name, json.dumps(told | {"layers": list(layers)})


def repeat(times: int, *layers: dict) -> dict:
    return {"type": "repeat", "times": times, "layers": list(layers)}


POOL = {"type": "max_pool", "kernel": 2}
VGG = [x for f in (64, 128, 256) for x in (conv(f), RELU, conv(f), RELU, POOL)]
HEAD = [{"type": "global_avg_pool"}, dense(10)]
STAGES = ((64, 1), (128, 2), (256, 2), (512, 2))
RESNET = [conv(64), BN, RELU, *(x for f, s in STAGES for x in stage(f, s))]
BLOCK = [
    residual(NORM, {"type": "attention", "heads": 8}),
    residual(NORM, dense(1024), phi("gelu"), dense(256)),
]
TYPICAL = dict(
    [
        network("MLP 8, relu", [64], *([dense(128), RELU] * 8), dense(10)),
        network("MLP 20, tanh", [64], *([dense(128), phi("tanh")] * 20), dense(10)),
        network("MLP 20, gelu", [64], *([dense(128), phi("gelu")] * 20), dense(10)),
        network("VGG-like", [3, 32, 32], *VGG, *HEAD),
        network("ResNet-18", [3, 64, 64], *RESNET, *HEAD),
        network("pre-LN transformer 12", [128, 256], repeat(12, *BLOCK), NORM, dense(1000)),
        network("LSTM", [50, 32], {"type": "lstm", "units": 128}, dense(10)),
        network("GRU", [50, 32], {"type": "gru", "units": 128}, dense(10)),
    ]
)
CRITICAL = {"weight": {"kind": "normal", "std": (1 / 256) ** 0.5}}
ORDERED = {
    "weight": {"kind": "normal", "std": (1.5 / 256) ** 0.5},
    "bias": {"kind": "normal", "std": 0.05**0.5},
}
TANH = repeat(500, dense(256), phi("tanh"))
DEEP = dict(
    [
        network("1,000 layers, relu, He", [256], repeat(500, dense(256), RELU)),
        network("1,000 layers, tanh, ordered", [256], TANH, init=ORDERED),
        network("1,000 layers, tanh, s_w = 1", [256], TANH, init=CRITICAL),
        network("1,000 layers, written out", [256], *([dense(256), RELU] * 500)),
        network("1,000 layers, pre-LN residual", [256], repeat(333, residual(NORM, dense(256)))),
    ]
)


def cold() -> None:
    """Forget what earlier specs had worked out."""
    kernels.kernel.cache_clear()
    for cached in (softmax.concentration, maps.coverage, maps.extreme):
        cached.cache_clear()


def seconds(run: Callable[[], object]) -> float:
    start = time.process_time()
    run()
    return time.process_time() - start


def drawn(depth: int, n: int) -> None:
    """The reference: one input through drawn weights and back, in numpy."""
    rng = np.random.default_rng(0)
    track, h = [], rng.standard_normal(n)
    for _ in range(depth):
        W = rng.standard_normal((n, n)) * (2 / n) ** 0.5
        z = W @ h
        track.append((W, z > 0))
        h = np.maximum(z, 0)
    g = rng.standard_normal(n)
    for W, is_open in reversed(track):
        g = W.T @ (g * is_open)


def row(name: str, text: str, rounds: int) -> tuple[float, float]:
    first, again, read = [], [], []
    for _ in range(rounds):
        cold()
        first.append(seconds(lambda: profile(text)))
        again.append(seconds(lambda: profile(text)))
        read.append(seconds(lambda: parse_spec(text)))
    a, b, c = (1000 * statistics.median(held) for held in (first, again, read))
    print(f"| {name} | {a:.2f} | {b:.2f} | {c:.2f} | {1000 / a:.0f} | {1000 / b:.0f} |")
    return a, b


def main() -> None:
    parser = argparse.ArgumentParser()
    parser.add_argument("--rounds", type=int, default=21)
    rounds = parser.parse_args().rounds
    profile(TYPICAL["GRU"])
    print("| spec | cold, ms | warm, ms | of it reading the text, ms | per second, cold | warm |")
    print("|---|---|---|---|---|---|")
    costs = [row(name, text, rounds) for name, text in TYPICAL.items()]
    mean = [sum(column) / len(costs) for column in zip(*costs, strict=True)]
    rates = " | ".join(f"{1000 / held:.0f}" for held in mean)
    print(f"| mean of these | {mean[0]:.2f} | {mean[1]:.2f} | | {rates} |")
    for name, text in DEEP.items():
        row(name, text, rounds)
    took = statistics.median(seconds(lambda: drawn(500, 256)) for _ in range(5))
    print(f"reference: one draw of 500 x 256 in numpy, forward and back: {1000 * took:.0f} ms")


if __name__ == "__main__":
    main()

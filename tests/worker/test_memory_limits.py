"""A model that fits at one input a pass always completes, whatever is asked of it."""

import math

import numpy as np
import pytest
import yaml

from gradgauge.worker import forks, landlock
from gradgauge.worker.frames import Request

MIB = 1 << 20
SLACK = 8 * MIB  # what two runs of one analysis may differ by
KINDS = ("mlp", "conv", "residual", "rnn", "transformer")
WALL_S = 600.0  # which the child knows of, as a worker's does
MANY = {"quick": 8, "standard": 4, "deep": 3}  # seeds of the long test


@pytest.fixture(scope="module")
def zygote():
    zygote = forks.Zygote()
    yield zygote
    zygote.close()


def net(kind, rng, *, small):
    """The input's shape and the layers of a random network."""
    most = 2 if small else 4  # doublings of the smallest sizes
    deep, act = int(rng.integers(2, 3 * most)), str(rng.choice(["relu", "tanh", "gelu"]))
    wide = int(2 ** rng.integers(4, 5 + most))
    on = {"type": "activation", "function": act}
    if kind in {"mlp", "residual"}:
        block = [{"type": "dense", "units": wide}, on]
        if kind == "residual":
            block = [{"type": "residual", "layers": [{"type": "layer_norm"}, *block]}]
        return [wide], [{"type": "repeat", "times": deep, "layers": block}, head(10)]
    if kind == "conv":
        size, some = int(2 ** rng.integers(3, 3 + most)), int(2 ** rng.integers(2, 2 + most))
        one = {"type": "conv2d", "filters": some, "kernel": 3, "padding": 1}
        block = {"type": "repeat", "times": deep, "layers": [one, on]}
        return [3, size, size], [block, {"type": "global_avg_pool"}, head(10)]
    steps = int(2 ** rng.integers(3, 3 + most))
    if kind == "rnn":
        cell = {"type": str(rng.choice(["rnn", "lstm", "gru"])), "units": wide // 2}
        return [steps, wide], [{**cell, "return_sequences": True}, cell, head(4)]
    half = {
        "type": "residual",
        "layers": [{"type": "layer_norm"}, {"type": "dense", "units": wide}],
    }
    seen = {"type": "attention", "heads": 4}
    block = [{"type": "residual", "layers": [{"type": "layer_norm"}, seen]}, half]
    return [steps, wide], [{"type": "repeat", "times": min(deep, 6), "layers": block}, head(10)]


def head(units):
    return {"type": "dense", "units": units}


def asked(zygote, folder, kind, seed, profile, *, samples=None, memory=None):
    """The outcome of a random network's analysis."""
    rng = np.random.default_rng([seed, KINDS.index(kind)])
    shape, layers = net(kind, rng, small=seed == 0)
    path = folder / f"{kind}{seed}.yaml"
    spec = {"gradgauge": 1, "name": kind, "input": {"shape": shape}, "layers": layers}
    path.write_text(yaml.safe_dump(spec))
    options = {"profile": profile, "seed": seed, "samples": samples}
    request = Request(
        task="analyze",
        source=str(path),
        options={k: v for k, v in options.items() if v is not None},
        read_only=(str(folder),),
        memory_bytes=memory,
        wall_s=WALL_S,
        **({"require": ()} if landlock.version() == 0 else {}),
    )
    return zygote.run(request, wall_s=WALL_S)


def completes(zygote, folder, kind, seed, profile):
    """Just above what one input a pass took, an analysis of as many as usual ends with a report."""
    alone = asked(zygote, folder, kind, seed, profile, samples=1)
    assert alone.problem is None, alone.problem
    limit = math.ceil(1.05 * alone.peak_bytes) + SLACK
    outcome = asked(zygote, folder, kind, seed, profile, memory=limit)
    assert outcome.problem is None, (limit / MIB, outcome.peak_bytes / MIB, outcome.problem)


@pytest.mark.parametrize("kind", KINDS)
def test_what_fits_at_one_input_completes(zygote, tmp_path, kind):
    """Of seed 0 the networks are small."""
    completes(zygote, tmp_path, kind, 0, "quick")


@pytest.mark.slow
@pytest.mark.timeout(1800)
@pytest.mark.parametrize("profile", MANY)
@pytest.mark.parametrize("kind", KINDS)
def test_what_fits_at_one_input_completes_at_every_profile(zygote, tmp_path, kind, profile):
    for seed in range(1, 1 + MANY[profile]):
        completes(zygote, tmp_path, kind, seed, profile)

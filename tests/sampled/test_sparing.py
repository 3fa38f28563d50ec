"""Weight gradients measured as they come: the same numbers, and none of them is kept."""

import numpy as np
import pytest
import torch
from torch.multiprocessing.reductions import StorageWeakRef

from gradgauge.sampled import memory, tally
from gradgauge.sampled.budget import Budget
from gradgauge.sampled.memory import RESERVE, must_spare, room
from tests.handmade import made, node, profiled

WIDTH, LAYERS = 32, 12


def chain(*, tied: bool = False) -> bytes:
    """x W_i + b_i, Tanh; with `tied` all layers have the first one's weight."""
    rng = np.random.default_rng(0)
    count = 1 if tied else LAYERS
    stored = {f"W{i}": rng.normal(size=(WIDTH, WIDTH)) / 5 for i in range(count)}
    stored |= {f"b{i}": rng.normal(size=WIDTH) for i in range(LAYERS)}
    nodes = []
    for i in range(LAYERS):
        nodes += [
            node("MatMul", f"{f'h{i}' if i else 'x'} W{0 if tied else i}", f"m{i}"),
            node("Add", f"m{i} b{i}", f"a{i}"),
            node("Tanh", f"a{i}", f"h{i + 1}"),
        ]
    return made(nodes, {"x": ["N", WIDTH]}, f"h{LAYERS}", stored)


@pytest.mark.parametrize("scale", [1.0, 1e-25])
@pytest.mark.parametrize("tied", [False, True])
def test_sizes_are_the_same_bits_whether_gradients_are_kept_or_not(tied, scale, monkeypatch):
    """Cotangents of 1e-25 leave float32 and are measured in float64."""
    monkeypatch.setattr("gradgauge.sampled.passes.cotangents", scaled(scale))
    plain = profiled(chain(tied=tied), samples=4)
    monkeypatch.setattr(memory, "GRADIENTS", 0)
    assert profiled(chain(tied=tied), samples=4)[0] == plain[0]
    assert any(layer.log10_grad_param is not None for layer in plain[0].values())


def scaled(factor: float):
    from gradgauge.sampled.probes import cotangents

    return lambda *args, **named: [factor * c for c in cotangents(*args, **named)]


@pytest.mark.parametrize("sparing", [False, True])
def test_only_the_gradient_that_is_measured_is_alive(sparing, monkeypatch):
    seen: list[StorageWeakRef] = []
    alive: list[int] = []

    class Watching(tally.Plain):
        def many(self, tensors):
            seen.extend(StorageWeakRef(x.untyped_storage()) for x in tensors)
            alive.append(sum(not held.expired() for held in seen))
            return super().many(tensors)

    monkeypatch.setattr("gradgauge.sampled.measure.Plain", Watching)
    monkeypatch.setattr(memory, "GRADIENTS", 0 if sparing else 1 << 29)
    profiled(chain(), samples=1)
    assert max(alive) <= 3 if sparing else max(alive) >= 2 * LAYERS


def test_gradients_that_take_more_than_their_part_of_the_memory_are_not_kept() -> None:
    """1,000,000 float32 weights have gradients of 4 MB, a quarter of 16."""
    weights = {"a": torch.zeros(750_000), "b": torch.zeros(250_000)}
    assert must_spare(Budget(live_bytes=RESERVE + 15_900_000), weights, torch.float32)
    assert not must_spare(Budget(live_bytes=RESERVE + 16_100_000), weights, torch.float32)
    assert must_spare(Budget(live_bytes=RESERVE + 16_100_000), weights, torch.float64)
    assert not must_spare(Budget(), weights, torch.float32)
    limit = Budget(live_bytes=RESERVE + 10_000_000)
    held = room(limit, weights, torch.float32, sparing=True)
    assert held == int(memory.SHARE * (10_000_000 - 4_000_000 - 3_000_000))

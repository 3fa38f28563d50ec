"""The memorisation probe against torch's own optimisers on the same net."""

import math

import numpy as np
import pytest
import torch
from torch import nn
from torch.nn import functional

from gradgauge.sampled import memorisation as probe
from gradgauge.sampled.frame import feed
from gradgauge.sampled.memorisation import LONGER, PROBE_BATCHES, PROBE_STEPS, memorisation
from tests.acceptance.fixtures import export, glorot, mlp, seeded
from tests.sampled.staged import named, staged


def _small() -> nn.Module:
    return seeded(nn.Sequential(nn.Linear(6, 20), nn.Tanh(), nn.Linear(20, 4)), 2)


def _sgd(parameters, lr):
    return torch.optim.SGD(parameters, lr=lr, momentum=0.9)


def _trained(kind, lr, batches, steps):
    """Losses of torch's own optimiser, before each step and after the last."""
    copy = _small().double()
    taken, losses = kind(copy.parameters(), lr=lr), []
    for count in range(steps + 1):
        x, labels = batches[count % len(batches)]
        loss = functional.cross_entropy(copy(x), labels)
        losses.append(loss.item())
        taken.zero_grad()
        loss.backward()
        taken.step()
    return losses


def _constant(labels):
    shares = torch.bincount(labels, minlength=4) / len(labels)
    return -(shares * shares.clamp_min(1e-9).log()).sum().item()


def test_random_labels_are_learnt_as_torchs_own_optimisers_do():
    case, exe = staged(export(_small(), torch.zeros(2, 6)))
    before = {k: v.detach().clone() for k, v in exe.initializers.items()}
    found = memorisation(case, exe, 0.05, always=False)
    generator = torch.Generator()
    (x,) = feed(exe, case.setting, case.reading, generator, 0)
    batches = [(x.detach(), torch.randint(0, 4, (8,), generator=generator))]
    constant = _constant(batches[0][1])
    for series, kind in zip(found.series, (_sgd, torch.optim.Adam), strict=True):
        name = series.name.split(":")[1]
        short = _trained(kind, 0.05, batches, PROBE_STEPS)
        told = named(found)
        assert told[f"memorisation:{name}"] == pytest.approx(1 - short[-1] / constant, rel=1e-6)
        steps = PROBE_STEPS if told[f"memorisation:{name}"] >= probe.LEARNT else LONGER
        longer = _trained(kind, 0.05, batches, steps)
        assert series.y == pytest.approx(longer, rel=1e-6)
        assert told[f"memorisation:{name}:longer"] == pytest.approx(
            1 - longer[-1] / constant, rel=1e-6
        )
    assert all(torch.equal(v, before[k]) for k, v in exe.initializers.items())


@pytest.mark.parametrize(("rows", "batches"), [(5, 1), (8, 1), (16, 2), (70, PROBE_BATCHES)])
def test_batches_of_the_users_data_take_turns(rows, batches, tmp_path):
    rng = np.random.default_rng(3)
    x, y = rng.standard_normal((rows, 6)), rng.integers(0, 4, rows)
    np.savez(tmp_path / "batch.npz", x=x, y=y)
    case, exe = staged(export(_small(), torch.zeros(2, 6)), data=tmp_path / "batch.npz")
    size = min(rows, 8)
    parts = [slice(size * k, size * k + size) for k in range(batches)]
    # inputs are drawn in float32
    held = [(torch.from_numpy(x[k]).float().double(), torch.from_numpy(y[k])) for k in parts]
    constant = _constant(torch.cat([labels for _, labels in held]))
    told = named(memorisation(case, exe, 0.02, always=False))
    for name, kind in (("sgd", _sgd), ("adam", torch.optim.Adam)):
        short = _trained(kind, 0.02, held, PROBE_STEPS)[-batches:]
        expected = 1 - np.mean(short) / constant
        assert told[f"memorisation:{name}"] == pytest.approx(expected, rel=1e-5)
        steps = PROBE_STEPS if expected >= probe.LEARNT else LONGER
        longer = _trained(kind, 0.02, held, steps)[-batches:]
        assert told[f"memorisation:{name}:longer"] == pytest.approx(
            1 - np.mean(longer) / constant, rel=1e-5
        )


def test_only_the_best_rate_goes_on_and_only_where_it_has_not_learnt(monkeypatch):
    ran = []

    def counted(problem, exe, leaves, optimizer, rate, clip=None, steps=PROBE_STEPS, **how):
        ran.append((optimizer, rate, steps))
        return train(problem, exe, leaves, optimizer, rate, clip, steps, **how)

    train = probe.train
    monkeypatch.setattr(probe, "train", counted)
    stuck, exe = staged(export(mlp(nn.Sigmoid, glorot, depth=30), torch.zeros(2, 64)))
    memorisation(stuck, exe, None, always=False)
    assert sum(steps == LONGER for *_, steps in ran) == 2
    ran.clear()
    good, exe = staged(export(mlp(nn.ReLU, _he, depth=2), torch.zeros(2, 64)))
    told = named(memorisation(good, exe, None, always=False))
    assert told["memorisation:sgd:longer"] == told["memorisation:sgd"] > probe.LEARNT
    assert not any(steps == LONGER for *_, steps in ran)


def test_a_net_that_trains_learns_its_labels_and_one_whose_gradient_vanished_does_not():
    good, exe_good = staged(
        export(
            mlp(nn.ReLU, _he, depth=4),
            torch.zeros(2, 64),
        )
    )
    bad, exe_bad = staged(export(mlp(nn.Sigmoid, glorot, depth=30), torch.zeros(2, 64)))
    learnt = named(memorisation(good, exe_good, None, always=False))
    stuck = named(memorisation(bad, exe_bad, None, always=False))
    assert learnt["memorisation:sgd"] > 0.5
    assert learnt["memorisation:adam"] > 0.9
    # the head's bias alone learns how often each label comes
    assert stuck["memorisation:sgd"] < 0.5


def _he(W, generator):
    nn.init.normal_(W, std=math.sqrt(2 / W.shape[1]), generator=generator)


def test_a_large_net_is_left_to_profile_deep(monkeypatch):
    monkeypatch.setattr(probe, "PROBE_COST", 10)
    case, exe = staged(export(nn.Linear(6, 4), torch.zeros(2, 6)))
    (said,) = memorisation(case, exe, None, always=False).measurements
    assert said.value is None
    assert "deep" in said.note
    assert len(memorisation(case, exe, None, always=True).series) == 2

"""A node run on draws: made again for the way back, not kept."""

import weakref
from dataclasses import replace

import torch

from gradgauge.analytic.moments import flow
from gradgauge.analytic.probe import probe
from tests.analytic.test_rules import call, law


def probed(run):
    """A node that runs so, of one input of 40 features at 6 positions."""
    return probe(replace(call("Erf", [law((1, 6, 40), "bpf")]), run=run))


def back(step):
    return step.pull([flow(torch.ones(1, 6, 40, dtype=torch.float64))])[0].g


def test_no_draw_outlives_its_use():
    made, most = [], []

    def run(x):
        y = x.square()
        made.append(weakref.ref(y))
        most.append(sum(one() is not None for one in made))
        return y

    step = probed(run)
    assert max(most) <= 2
    assert not [one for one in made if one() is not None]
    back(step)
    assert max(most) <= 2
    assert not [one for one in made if one() is not None]


def test_the_way_back_goes_through_what_was_drawn_on_the_way_there():
    masks = []

    def run(x):
        masks.append(torch.rand(x.shape, dtype=torch.float64) < 0.5)
        return x * masks[-1]

    step = probed(run)
    there = list(masks)
    before = torch.get_rng_state()
    masks.clear()
    first = back(step)
    assert all(a.equal(b) for a, b in zip(there, masks, strict=True))
    assert before.equal(torch.get_rng_state())
    assert back(step).equal(first)
    kept = torch.stack(there).double().mean(0)
    assert abs(float(first.mean() / kept.mean()) - 1.0) < 0.05  # E c^2 = 1 where it is let through

"""What opens after one step, and the logits' scale."""

import numpy as np
import pytest
import torch
from torch import nn
from torch.nn import functional

from gradgauge.sampled.dynamics import first_step, restored
from gradgauge.sampled.frame import feed
from tests.acceptance.fixtures import export, seeded
from tests.sampled.staged import by_name, named, staged


def test_training_never_writes_to_the_stored_weights_however_it_ends():
    stored = {"w": torch.zeros(5, requires_grad=True)}
    before, at = stored["w"].detach(), stored["w"].data_ptr()

    def trained():
        with restored(stored):
            assert stored["w"].data_ptr() != at
            with torch.no_grad():
                stored["w"].add_(1.0)
            assert stored["w"].tolist() == [1.0] * 5
            assert before.tolist() == [0.0] * 5
            raise ArithmeticError

    with pytest.raises(ArithmeticError):
        trained()
    assert stored["w"].data_ptr() == at
    assert stored["w"].tolist() == [0.0] * 5


class Branched(nn.Module):
    """A residual branch whose last layer starts at zero, and a part nothing will ever reach."""

    def __init__(self) -> None:
        super().__init__()
        self.a, self.b, self.c = nn.Linear(6, 6), nn.Linear(6, 6), nn.Linear(6, 6)
        self.dead = nn.Linear(6, 6)
        nn.init.zeros_(self.b.weight)
        nn.init.zeros_(self.b.bias)
        nn.init.constant_(self.c.bias, -1e4)

    def forward(self, x):
        blocked = torch.relu(self.c(self.dead(x)))
        return x + self.b(torch.tanh(self.a(x))) + blocked


def test_a_zero_branch_opens_after_one_step_and_a_dead_unit_does_not():
    case, exe = staged(export(Branched(), torch.zeros(2, 6)))
    before = {k: v.clone() for k, v in exe.initializers.items()}
    zero = {la.id: la.name in {"/a/Gemm", "/c/Gemm", "/dead/Gemm"} for la in case.layers}
    found = by_name(case, first_step(case, exe, zero))
    after = {name: held["measurements"][0].value for name, held in found.items()}
    assert after["/c/Gemm"] is None
    assert after["/dead/Gemm"] is None
    # every weight of b has moved by a thousandth: the gradient through it is of that order
    assert -4 < after["/a/Gemm"] < -2
    assert all(torch.equal(v, before[k]) for k, v in exe.initializers.items())


def test_where_nothing_is_zero_no_step_is_made():
    case, exe = staged(export(nn.Linear(6, 4), torch.zeros(2, 6)))
    found = first_step(case, exe, {la.id: False for la in case.layers})
    assert not found.layers
    assert set(named(found)) == {"logit_scale", "initial_cross_entropy"}


@pytest.mark.parametrize("scale", [1.0, 30.0])
def test_logits_and_their_loss_are_torchs(scale):
    net = seeded(nn.Linear(6, 4), 1)
    with torch.no_grad():
        net.weight.mul_(scale)
    case, exe = staged(export(net, torch.zeros(2, 6)))
    found = named(first_step(case, exe, {}))
    (x,) = feed(exe, case.setting, case.reading, torch.Generator(), 0)
    y = net.double()(x.detach())
    each = [functional.cross_entropy(y, torch.full((8,), k)).item() for k in range(4)]
    assert found["initial_cross_entropy"] == pytest.approx(np.mean(each), rel=1e-6)
    assert found["logit_scale"] == pytest.approx(y.std(1).square().mean().sqrt().item(), rel=1e-6)

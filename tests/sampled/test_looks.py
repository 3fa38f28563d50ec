"""Which gradients a pass asks for: inputs' own only where something is seen on the way there."""

import numpy as np
import pytest
import torch
from torch import nn

from gradgauge.sampled.frame import feed
from gradgauge.sampled.looks import CAUGHT, TOGETHER, Looks
from gradgauge.sampled.passes import run_pass
from gradgauge.sampled.seen import Seen
from gradgauge.sampled.tally import Guarded, Tally
from gradgauge.sampled.watch import watch_plan
from tests.acceptance.fixtures import export, seeded
from tests.sampled.staged import staged


class Sliced(nn.Module):
    """A matrix reads one of the input's slices."""

    def __init__(self, width: int) -> None:
        super().__init__()
        self.head = nn.Linear(width, 3)

    def forward(self, x):
        return self.head(torch.tanh(x[:, 1]))


@pytest.mark.parametrize(("width", "asked"), [(16, False), (CAUGHT, True)])
def test_gradients_between_an_input_and_the_first_parameter_are_seen(width, asked):
    net = seeded(Sliced(width), 3)
    case, exe = staged(export(net, torch.zeros(2, 2, width)))
    watch = watch_plan(case.model, case.layers)
    seen = {layer.id: Seen() for layer in case.layers}
    looks = Looks(case.frame, Guarded(), Tally(), seen, watch)
    run_pass(exe, case.layers, looks, case.reading, case.setting, 0)
    assert (looks.sourced or watch.sourced) is asked

    generator = torch.Generator()
    (x,) = feed(exe, case.setting, case.reading, generator, 0)
    h = torch.tanh(x[:, 1])
    sent = torch.randn((8, 3), generator=generator).double()
    g = sent @ net.double().head.weight
    through = g * (1 - h**2)
    tanh = next(layer for layer in case.layers if layer.op == "Tanh")
    sizes = 0.5 * torch.log10(g.square().mean(1))
    assert seen[tanh.id].grads[0] == pytest.approx(sizes.detach().numpy(), abs=1e-9)
    gain = torch.log10(through.norm(dim=1) / g.norm(dim=1)).detach().numpy()
    assert seen[tanh.id].gains[0] == pytest.approx(gain, abs=1e-9)
    assert np.isfinite(gain).all()


class Residual(nn.Module):
    """A branch of several values whose sum hands its gradient on as it is."""

    def __init__(self, width: int) -> None:
        super().__init__()
        self.first, self.branch = nn.Linear(width, width), nn.Linear(width, width)
        self.head = nn.Linear(width, 3)

    def forward(self, x):
        h = torch.relu(self.first(x))
        return self.head(torch.tanh(h + self.branch(h)))


def test_a_gradient_handed_on_by_an_addition_is_reduced_once_and_told_of_all(monkeypatch):
    for bound in ("CAUGHT", "SMALL"):  # each value alone, by a hook
        monkeypatch.setattr("gradgauge.sampled.looks." + bound, 0)
    net = seeded(Residual(16), 3)
    case, exe = staged(export(net, torch.zeros(2, 16)))
    seen = {layer.id: Seen() for layer in case.layers}
    taken = []
    gauge = Guarded()
    sizes = gauge.sizes
    monkeypatch.setattr(gauge, "sizes", lambda rows: taken.append(rows) or sizes(rows))
    looks = Looks(case.frame, gauge, Tally(), seen, watch_plan(case.model, case.layers))
    run_pass(exe, case.layers, looks, case.reading, case.setting, 0)
    told = len(looks.gradients.values) + len(looks.gradients.edges)
    assert len(taken) < told + sum(len(one.forward) for one in seen.values())

    generator = torch.Generator()
    (x,) = feed(exe, case.setting, case.reading, generator, 0)
    net = net.double()
    before = net.first(x)
    h = torch.relu(before)
    branch = net.branch(h)
    y = h + branch
    z = torch.tanh(y)
    sent = torch.randn((8, 3), generator=generator).double()
    grads = torch.autograd.grad(net.head(z), [before, h, branch, y, z], sent)
    for layer, g in zip(case.layers, grads, strict=False):
        expected = (0.5 * torch.log10(g.square().mean(1))).numpy()
        assert seen[layer.id].grads[0] == pytest.approx(expected, abs=1e-9)


class Waiting(Looks):
    """Notes the elements of values that wait at the end of the forward pass."""

    def wanted(self):
        held = [x for values in self.forward.values() for _, x in values]
        self.waiting = sum(x.numel() for x in held)
        return super().wanted()


def looked(case, exe, **kwargs):
    seen = {layer.id: Seen() for layer in case.layers}
    watch = watch_plan(case.model, case.layers)
    looks = Waiting(case.frame, Guarded(), Tally(), seen, watch, **kwargs)
    run_pass(exe, case.layers, looks, case.reading, case.setting, 0)
    return looks


def test_what_is_kept_to_the_end_of_a_pass_are_small_gradients_and_none_where_memory_is_scarce():
    net = nn.Sequential(nn.Linear(128, 128), *(nn.Tanh() for _ in range(300)))
    case, exe = staged(export(seeded(net, 3), torch.zeros(2, 128)))
    size = 128 * case.frame.rows
    plain, scarce = looked(case, exe), looked(case, exe, scarce=True)
    assert plain.kept == 301 * size > TOGETHER
    assert plain.waiting < TOGETHER
    assert scarce.kept == 0
    for key, held in plain.seen.items():
        assert scarce.seen[key].grads[0] == pytest.approx(held.grads[0], abs=1e-9)
        assert scarce.seen[key].forward[0] == pytest.approx(held.forward[0], abs=1e-9)


class Sums(nn.Module):
    """A sum summed on, and one that spreads an addend over what it is added to."""

    def __init__(self) -> None:
        super().__init__()
        self.parts = nn.ModuleList(nn.Linear(5, width) for width in (4, 4, 4, 1))
        self.head = nn.Linear(4, 3)

    def forward(self, x):
        a, b, c, d = (part(x) for part in self.parts)
        return self.head(torch.tanh(((a + b) - c) + d))


def test_addends_have_the_gradient_of_their_sum_but_where_it_spreads_them():
    net = seeded(Sums(), 3)
    case, exe = staged(export(net, torch.zeros(2, 5)))
    seen = {layer.id: Seen() for layer in case.layers}
    looks = Looks(case.frame, Guarded(), Tally(), seen, watch_plan(case.model, case.layers))
    run_pass(exe, case.layers, looks, case.reading, case.setting, 0)

    generator = torch.Generator()
    (x,) = feed(exe, case.setting, case.reading, generator, 0)
    net, made = net.double(), []
    for part in net.parts:
        part.register_forward_hook(lambda _part, _x, y: made.append(y))
    y = net(x)
    grads = torch.autograd.grad(y, made, torch.randn(y.shape, generator=generator).double())
    linear = [layer for layer in case.layers if layer.kind == "linear"][:4]
    for layer, g in zip(linear, grads, strict=True):
        sizes = 0.5 * torch.log10(g.square().mean(1))
        assert seen[layer.id].grads[0] == pytest.approx(sizes.numpy(), abs=1e-6)
    sums = [layer.output for layer in case.layers if layer.op in {"Add", "Sub"}]
    assert looks.same.keys() == {*sums[:2], *(layer.output for layer in linear[:3])}

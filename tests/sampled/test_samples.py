"""Weight gradients input by input, against a loop of autograd and torch.func's kernel."""

import numpy as np
import pytest
import torch
from torch import nn
from torch.func import functional_call, jacrev
from torch.nn import functional

from gradgauge.sampled.frame import feed
from gradgauge.sampled.samples import effective_rank, per_input
from tests.acceptance.fixtures import export, seeded
from tests.sampled.staged import by_name, named, staged

RNG = np.random.default_rng(21)


class Net(nn.Module):
    """A convolution, a recurrent layer and a head: nothing a ghost norm would know."""

    def __init__(self) -> None:
        super().__init__()
        self.conv, self.net = nn.Conv1d(3, 4, 3), nn.GRU(4, 5, batch_first=True)
        self.head = nn.Linear(5, 3)

    def forward(self, x):
        return self.head(self.net(torch.tanh(self.conv(x)).transpose(1, 2))[0][:, -1])


@pytest.fixture
def case(tmp_path):
    net = seeded(Net(), 5)
    x = RNG.normal(size=(8, 3, 9)).astype(np.float32)
    path = tmp_path / "batch.npz"
    np.savez(path, x=x, y=RNG.integers(0, 3, 8))
    return net, path


def test_sizes_and_cosines_are_those_of_a_loop_of_single_inputs(case):
    net, path = case
    held = np.load(path)
    model = export(net, torch.zeros(2, 3, 9))
    measured, exe = staged(model, loss="cross_entropy", data=path)
    found = by_name(measured, per_input(measured, exe, "standard", None))

    net = net.double()
    rows = []
    for x, y in zip(held["x"], held["y"], strict=True):
        net.zero_grad()
        functional.cross_entropy(net(torch.tensor(x[None]).double()), torch.tensor([y])).backward()
        rows.append(net.conv.weight.grad.flatten().numpy().copy())
    rows = np.stack(rows)
    sizes = np.log10(np.sqrt((rows**2).mean(axis=1)))
    got = found["/conv/Conv"]["log10_grad_param"]
    wanted = np.quantile(sizes, [0.05, 0.25, 0.5, 0.75, 0.95], method="nearest")
    assert [got.q05, got.q25, got.q50, got.q75, got.q95] == pytest.approx(wanted, abs=1e-9)
    unit = rows / np.linalg.norm(rows, axis=1, keepdims=True)
    cosines = (unit @ unit.T)[np.triu_indices(8, 1)]
    assert found["/conv/Conv"]["cosine_between_samples"] == pytest.approx(cosines.mean(), abs=1e-9)


def test_the_kernel_is_torch_funcs(case):
    net, path = case
    model = export(net, torch.zeros(2, 3, 9))
    measured, exe = staged(model, data=path)
    found = named(per_input(measured, exe, "standard", 0.1))

    x = torch.tensor(np.load(path)["x"]).double()
    net = net.double()
    params = dict(net.named_parameters())
    generator = torch.Generator()
    feed(exe, measured.setting, measured.reading, generator, 0)
    u = torch.randn(3, generator=generator).double()
    u = u / u.norm()
    rows = []
    for row in x:
        each = jacrev(lambda p, row=row: functional_call(net, p, (row[None],))[0] @ u)(params)
        rows.append(torch.cat([g.flatten() for g in each.values()]))
    J = torch.stack(rows).detach().numpy()
    kernel = J @ J.T
    values = np.linalg.eigvalsh(kernel / 8)
    centre = np.eye(8) - 1 / 8
    assert found["ntk_largest_eigenvalue"] == pytest.approx(values[-1], rel=1e-6)
    assert found["ntk_edge_of_stability_lr"] == pytest.approx(2 / values[-1], rel=1e-6)
    assert found["ntk_mean"] == pytest.approx(kernel.mean(), rel=1e-6)
    centred = np.linalg.eigvalsh(centre @ kernel @ centre / 8)
    assert found["ntk_centred_largest_eigenvalue"] == pytest.approx(centred[-1], rel=1e-6)


def test_beyond_the_edge_gradient_descent_diverges_and_below_it_does_not():
    """A linear model in its parameters: the edge of the kernel is exact there."""
    x = torch.randn(8, 4, generator=torch.Generator().manual_seed(1)).double()
    kernel = x @ x.T
    edge = 2 / float(torch.linalg.eigvalsh(kernel / 8)[-1])
    for lr, stays in ((0.98 * edge, True), (1.02 * edge, False)):
        w = torch.ones(4, dtype=torch.float64)
        for _ in range(2000):
            w = w - lr * (x.T @ (x @ w)) / 8
        assert bool(w.norm() < 2.1) is stays


def test_equal_inputs_agree_fully_and_the_kernel_has_rank_one(tmp_path):
    path = tmp_path / "batch.npz"
    np.savez(path, x=np.tile(RNG.normal(size=6).astype(np.float32), (8, 1)))
    net = seeded(nn.Sequential(nn.Linear(6, 5), nn.Tanh(), nn.Linear(5, 2)), 3)
    measured, exe = staged(export(net, torch.zeros(2, 6)), data=path)
    found = per_input(measured, exe, "standard", None)
    assert by_name(measured, found)["/0/Gemm"]["cosine_between_samples"] == pytest.approx(1.0)
    assert named(found)["ntk_effective_rank"] == pytest.approx(1.0, abs=1e-3)
    assert named(found)["ntk_centred_largest_eigenvalue"] == pytest.approx(0.0, abs=1e-9)


def test_the_effective_rank_of_equal_shares_is_their_number():
    assert effective_rank(np.array([2.0, 2.0, 2.0, 0.0])) == pytest.approx(3.0)
    assert effective_rank(np.zeros(4)) is None

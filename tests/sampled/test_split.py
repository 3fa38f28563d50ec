"""Weight gradients of all inputs from one backward pass, against a float64 loop of autograd."""

import numpy as np
import onnx
import pytest
import torch
from onnx import helper
from torch import nn
from torch.nn import functional

from gradgauge.sampled.frame import feed
from gradgauge.sampled.samples import per_input
from gradgauge.sampled.split import by_each, split_pass
from tests.acceptance.fixtures import export, seeded
from tests.handmade import made, node
from tests.sampled.staged import staged

ROWS = 8
RNG = np.random.default_rng(61)


class Convolutions(nn.Module):
    """Strides, groups, dilation, padding on one side, a transposed one, and a slope per channel."""

    def __init__(self) -> None:
        super().__init__()
        self.a = nn.Conv2d(2, 4, 3, stride=2, padding=1)
        self.b = nn.Conv2d(4, 6, 3, padding=2, dilation=2, groups=2, bias=False)
        self.pad, self.c = nn.ZeroPad2d((1, 0, 0, 1)), nn.Conv2d(6, 3, (2, 3))
        self.up, self.act = nn.ConvTranspose2d(3, 2, 2, stride=2), nn.PReLU(4)
        self.head = nn.Linear(2, 3)

    def forward(self, x):
        x = torch.tanh(self.b(self.act(self.a(x))))
        return self.head(self.up(torch.tanh(self.c(self.pad(x)))).mean((2, 3)))


class Tokens(nn.Module):
    """A table, positions of their own, a norm, matrices over a sequence; the head is the table."""

    def __init__(self) -> None:
        super().__init__()
        self.table, self.places = nn.Embedding(11, 6), nn.Embedding(7, 6)
        self.norm, self.mix = nn.LayerNorm(6), nn.Linear(6, 6)
        self.scale = nn.Parameter(torch.ones(7, 6))

    def forward(self, ids):
        h = self.table(ids) + self.places(torch.arange(7)).unsqueeze(0)
        h = self.norm(h) * self.scale
        return functional.linear(torch.tanh(self.mix(h)), self.table.weight)


class Cell(nn.Module):
    """One matrix used at every step, and one made of two parameters."""

    def __init__(self) -> None:
        super().__init__()
        self.w, self.u = nn.Linear(5, 5), nn.Linear(3, 5, bias=False)
        self.g, self.v = nn.Parameter(torch.rand(2, 1)), nn.Parameter(torch.randn(2, 5))

    def forward(self, x):
        h = torch.tanh(self.u(x[:, 0]))
        for t in range(1, 6):
            h = torch.tanh(self.w(h) - self.u(x[:, t]))
        return functional.linear(h, self.g * self.v / self.v.norm(dim=1, keepdim=True))


class Recurrent(nn.Module):
    def __init__(self) -> None:
        super().__init__()
        self.net, self.head = nn.LSTM(3, 4, 2, batch_first=True), nn.Linear(4, 2)

    def forward(self, x):
        return self.head(self.net(x)[0][:, -1])


class Mixing(nn.Module):
    """Every input is centred by the batch's mean."""

    def __init__(self) -> None:
        super().__init__()
        self.a, self.b = nn.Linear(3, 4), nn.Linear(4, 2)

    def forward(self, x):
        h = torch.tanh(self.a(x))
        return self.b(h - h.mean(0, keepdim=True))


def images(generator):
    return torch.randn(ROWS, 2, 9, 9, generator=generator)


def tokens(generator):
    return torch.randint(0, 11, (ROWS, 7), generator=generator)


def series(generator):
    return torch.randn(ROWS, 6, 3, generator=generator)


def rows(generator):
    return torch.randn(ROWS, 3, generator=generator)


def by_loop(net: nn.Module, x: torch.Tensor, classes: np.ndarray) -> dict[str, np.ndarray]:
    """Products of every two inputs' gradients, by parameter, of each input's own loss."""
    net = net.double().eval()
    x = x.double() if x.is_floating_point() else x
    grads = []
    for k in range(len(x)):
        y = net(x)[k].reshape(-1, net(x).shape[-1])
        loss = functional.cross_entropy(y, torch.tensor(classes[k]).reshape(-1))
        grads.append(torch.autograd.grad(loss, list(net.parameters())))
    return {
        name: (stacked := torch.stack([g[i].flatten() for g in grads])) @ stacked.T
        for i, (name, _) in enumerate(net.named_parameters())
    }


@pytest.mark.parametrize(
    ("build", "draw", "looped"),
    [
        (Convolutions, images, 0),
        (Tokens, tokens, 0),
        (Cell, series, 0),
        (Recurrent, series, 0),
    ],
)
@pytest.mark.parametrize("dtype", [torch.float64, torch.float32])
def test_products_are_those_of_a_loop_of_single_inputs(tmp_path, build, draw, looped, dtype):
    net, x = seeded(build(), 4), draw(torch.Generator().manual_seed(2))
    y = net(x)
    classes = np.random.default_rng(3).integers(0, y.shape[-1], y.shape[:-1])
    path = tmp_path / "batch.npz"
    np.savez(path, x=x.numpy(), y=classes)
    case, exe = staged(
        export(net, x[:2], folding=False), loss="cross_entropy", data=path, dtype=dtype
    )
    leaves = dict(exe.initializers)
    split = split_pass(case, exe, leaves, shared=False)
    assert len(split.looped) == looped

    near = 1e-9 if dtype == torch.float64 else 1e-3
    wanted = by_loop(net, x, classes)
    total = sum(g.numpy() for g in wanted.values())
    size = np.abs(total).max()
    assert sum(split.grams.values()) == pytest.approx(total, rel=near, abs=near * size)
    for name, gram in split.grams.items():
        if name in wanted:
            top = float(wanted[name].abs().max())
            assert gram == pytest.approx(wanted[name].numpy(), rel=near, abs=near * top), name


def test_a_graph_of_a_fixed_batch_measures_all_its_inputs_but_the_silent_one(tmp_path):
    net, x = seeded(Convolutions(), 4), images(torch.Generator().manual_seed(2))[:4]
    classes = np.random.default_rng(3).integers(0, 3, 4)
    path = tmp_path / "batch.npz"
    np.savez(path, x=x.numpy(), y=classes)
    case, exe = staged(export(net, x, axes={}), loss="cross_entropy", data=path)
    split = split_pass(case, exe, dict(exe.initializers), shared=False)
    wanted = by_loop(net, x[[0, 1, 3]], classes[[0, 1, 3]])
    assert not split.looped
    assert sum(split.grams.values()) == pytest.approx(sum(wanted.values()).numpy(), rel=1e-9)
    for name in ("a.weight", "b.weight", "up.bias", "head.weight"):
        assert split.grams[name] == pytest.approx(wanted[name].numpy(), rel=1e-9), name


def test_a_parameter_in_a_subgraph_takes_a_pass_for_each_input_and_others_do_not():
    """W on the left of x and T by number stand outside the branch that holds V."""
    W, V, T = (RNG.normal(size=size).astype(np.float32) for size in ((4, 5), (3, 2), (6,)))
    end = helper.make_tensor_value_info("v", onnx.TensorProto.FLOAT, None)
    body = helper.make_graph([node("MatMul", "t V", "v")], "b", [], [end])
    nodes = [
        node("MatMul", "W x", "h"),
        node("Gather", "T ids", "g"),
        node("Add", "h g", "s"),
        node("Tanh", "s", "t"),
        node("ReduceMax", "t", "m", keepdims=0),
        node("Greater", "m low", "c"),
        helper.make_node("If", ["c"], ["y"], name="y", then_branch=body, else_branch=body),
    ]
    ids = (onnx.TensorProto.INT64, ["N", 4, 1])
    stored = {"W": W, "V": V, "T": T, "low": np.full((), -9.0)}
    model = made(nodes, {"x": ["N", 5, 3], "ids": ids}, "y", stored)
    case, exe = staged(model)
    split = split_pass(case, exe, dict(exe.initializers), shared=True)
    assert split.looped == {"V"}

    generator = torch.Generator()
    x, at = feed(exe, case.setting, case.reading, generator, 0)
    sent = torch.randn((4, 2), generator=generator).double()
    w, v, t = (torch.tensor(a).double().requires_grad_() for a in (W, V, T))
    grads = [
        torch.autograd.grad((torch.tanh(w @ x[k] + t[at[k]]) @ v * sent).sum(), (w, v, t))
        for k in range(ROWS)
    ]
    for i, name in enumerate("WVT"):
        rows = torch.stack([g[i].flatten() for g in grads])
        assert split.grams[name] == pytest.approx((rows @ rows.T).numpy(), rel=1e-9), name


def test_inputs_that_reach_into_each_others_loss_take_a_pass_each(tmp_path):
    net, x = seeded(Mixing(), 4), rows(torch.Generator().manual_seed(2))
    classes = np.random.default_rng(3).integers(0, 2, ROWS)
    path = tmp_path / "batch.npz"
    np.savez(path, x=x.numpy(), y=classes)
    case, exe = staged(export(net, x), loss="cross_entropy", data=path)
    leaves = dict(exe.initializers)
    assert split_pass(case, exe, leaves, shared=False) is None
    split = by_each(case, exe, leaves, shared=False)
    wanted = by_loop(net, x, classes)
    assert split.grams["a.weight"] == pytest.approx(wanted["a.weight"].numpy(), rel=1e-9)
    notes = [m.note for m in per_input(case, exe, "standard", None).measurements]
    assert "4 of 4 parameters by a backward pass for each input" in notes[0]

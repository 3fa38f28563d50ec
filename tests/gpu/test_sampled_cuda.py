"""The sampled engine on a GPU: the CPU's numbers, no waiting within a pass, narrow formats run."""

from contextlib import contextmanager

import numpy as np
import onnx
import pytest
import torch
from torch import nn

from gradgauge.ops.chance import drawn_from
from gradgauge.sampled.executor import compile_graph
from gradgauge.sampled.looks import Looks
from gradgauge.sampled.passes import run_pass
from gradgauge.sampled.seen import Seen
from gradgauge.sampled.stages import Wish
from gradgauge.sampled.tally import Plain, Tally
from gradgauge.sampled.watch import watch_plan
from tests.acceptance.fixtures import export, seeded
from tests.handmade import made, node, profiled
from tests.nets import Transformer, cnn
from tests.sampled.staged import staged_on

pytestmark = [
    pytest.mark.gpu,
    pytest.mark.skipif(not torch.cuda.is_available(), reason="no CUDA device on this machine"),
]
MODELS = {
    "cnn": lambda: export(seeded(cnn(), 1), torch.zeros(2, 3, 12, 12)),
    "transformer": lambda: export(
        seeded(Transformer(decoder=True), 2), torch.zeros(2, 6, dtype=torch.long)
    ),
    "mlp": lambda: export(
        seeded(nn.Sequential(nn.Linear(6, 50), nn.Tanh(), nn.Linear(50, 3)), 3), torch.zeros(2, 6)
    ),
}


@pytest.mark.parametrize("name", MODELS)
def test_a_gpu_measures_what_the_cpu_does(name):
    model = MODELS[name]()
    here, _ = profiled(model, samples=64, device="cpu")
    there, found = profiled(model, samples=64, device="cuda")
    assert found.device.startswith("cuda")
    for key, layer in here.items():
        if layer.log10_grad_act is None or layer.log10_grad_act.q50 is None:
            continue
        assert there[key].log10_grad_act.q50 == pytest.approx(layer.log10_grad_act.q50, abs=5e-3)
        assert there[key].forward_rms == pytest.approx(layer.forward_rms, rel=5e-3)


def test_the_statistics_never_wait_for_the_device():
    """torch raises at any synchronisation inside them; the one fetch comes after."""
    case, exe = staged_on(MODELS["mlp"](), torch.device("cuda"))
    seen = {layer.id: Seen() for layer in case.layers}
    watch = watch_plan(case.model, case.layers)
    looks = _Quiet(case.frame, Plain(), _Fetching(), seen, watch)
    run_pass(exe, case.layers, looks, case.reading, case.setting, 0)
    assert seen[case.layers[0].id].grads


@contextmanager
def quiet():
    torch.cuda.set_sync_debug_mode("error")
    try:
        yield
    finally:
        torch.cuda.set_sync_debug_mode("default")


class _Quiet(Looks):
    """Allows synchronisation outside the looks and in their fetch alone."""

    def value(self, name, y):
        with quiet():
            return super().value(name, y)

    def finish(self, caught):
        with quiet():
            super().finish(caught)

    def _gradient(self, name, g):
        with quiet():
            super()._gradient(name, g)


class _Fetching(Tally):
    def fetch(self) -> None:
        torch.cuda.set_sync_debug_mode("default")
        super().fetch()


@pytest.mark.parametrize("name", MODELS)
def test_every_stage_runs_there_too(name):
    _, found = profiled(
        MODELS[name](), depth="standard", samples=64, device="cuda", wish=Wish(("fp16", "bf16"))
    )
    names = {m.name for m in found.measurements}
    assert {"jacobian_sigma_max", "ntk_largest_eigenvalue"} <= names
    assert {"layers_not_finite_in_fp16", "layers_not_finite_in_bf16"} <= names


def test_tf32_stays_off():
    assert not torch.backends.cuda.matmul.allow_tf32
    profiled(MODELS["mlp"](), samples=32, device="cuda")
    assert not torch.backends.cuda.matmul.allow_tf32
    assert not torch.backends.cudnn.allow_tf32


def test_a_piece_that_is_run_again_draws_the_same_numbers():
    """Dropout in training mode draws its mask on the GPU, by the GPU's own generator."""
    stored = {
        "W": np.random.default_rng(0).normal(size=(6, 6)),
        "half": np.array(0.5, dtype=np.float32),
        "on": np.array(1).astype(bool),
    }
    nodes = [
        node("MatMul", "x W", "m"),
        node("Dropout", "m half on", "k"),
        node("Tanh", "k", "t"),
        node("Dropout", "t half on", "y"),
    ]
    model = onnx.load_from_string(made(nodes, {"x": ["N", 6]}, "y", stored))
    exe = compile_graph(model, device=torch.device("cuda"))
    x = torch.ones(64, 6, device="cuda", requires_grad=True)
    found = []
    for cuts in ((), (1, 3)):
        exe.recompute(cuts)
        with drawn_from(5):
            (y,) = exe(x)
            found.append((y, *torch.autograd.grad(y.sum(), [x, exe.initializers["W"]])))
    assert all(torch.equal(a, b) for a, b in zip(*found, strict=True))

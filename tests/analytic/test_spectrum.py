"""Singular values of layers against full decompositions of the maps torch's own modules make."""

import numpy as np
import pytest
import torch
from torch import nn
from torch.func import jacrev

from gradgauge.analytic import spectrum
from gradgauge.pipeline import analyze
from gradgauge.schema.options import AnalysisOptions
from tests.analytic.autograd import analyse, export


def singular_values(module, shape):
    """Of the module's Jacobian on one input, written out."""
    J = jacrev(module.double())(torch.zeros(1, *shape, dtype=torch.float64))
    return np.linalg.svd(J.detach().reshape(-1, int(np.prod(shape))).numpy(), compute_uv=False)


def spectra_of(module, shape):
    torch.manual_seed(5)  # noqa: TID251 - initialisers of torch.nn take no generator
    module = module()
    model = export(module, torch.zeros(2, *shape))
    layers, profile = analyse(model, spectra=True)
    return profile.layers[layers[0].id], singular_values(module, shape)


@pytest.mark.parametrize("whole", [True, False], ids=["written out", "Lanczos"])
@pytest.mark.parametrize(
    ("make", "shape"),
    [
        (lambda: nn.Conv2d(4, 6, 3, padding=1), (4, 7, 6)),
        (lambda: nn.Conv2d(4, 6, 3, stride=2, padding=1, groups=2), (4, 9, 8)),
        (lambda: nn.Conv2d(3, 5, 3, dilation=2), (3, 8, 8)),
        (lambda: nn.Conv1d(4, 4, 5, padding=2), (4, 30)),
        (lambda: nn.ConvTranspose2d(4, 3, 4, stride=2, padding=1), (4, 5, 5)),
    ],
    ids=["padded", "strided groups", "dilated", "1d", "transposed"],
)
def test_a_convolution_has_the_singular_values_of_its_matrix(make, shape, whole, monkeypatch):
    monkeypatch.setattr(spectrum, "WHOLE", spectrum.WHOLE if whole else 0)
    row, want = spectra_of(make, shape)
    assert row.sigma_max == pytest.approx(want[0], rel=1e-6)
    assert row.stable_rank == pytest.approx((want**2).sum() / want[0] ** 2, rel=1e-5)
    if whole:
        assert row.sigma_min == pytest.approx(want[-1], rel=1e-5)
    else:
        assert row.sigma_min is None


@pytest.mark.parametrize("dense", [2048, 8], ids=["Gram matrix", "Lanczos"])
@pytest.mark.parametrize("sizes", [(40, 24), (24, 40), (32, 32)])
def test_a_matrix_has_its_singular_values(sizes, dense, monkeypatch):
    monkeypatch.setattr(spectrum, "DENSE", dense)
    row, want = spectra_of(lambda: nn.Linear(*sizes), sizes[:1])
    assert row.sigma_max == pytest.approx(want[0], rel=1e-6)
    assert row.stable_rank == pytest.approx((want**2).sum() / want[0] ** 2, rel=1e-5)
    assert row.sigma_min == (None if dense == 8 else pytest.approx(want[-1], rel=1e-5))


def test_the_least_singular_value_is_not_lost_in_its_square():
    rng = np.random.default_rng(0)
    u, v = (np.linalg.qr(rng.normal(size=(12, 12)))[0] for _ in range(2))
    W = u @ np.diag(np.geomspace(1, 1e-11, 12)) @ v
    found = spectrum.of_matrix(torch.from_numpy(W * 1e30))
    assert found.sigma_max == pytest.approx(1e30, rel=1e-9)
    assert found.sigma_min == pytest.approx(1e19, rel=1e-3)


def test_a_matrix_of_zeros_has_no_spectrum():
    assert spectrum.of_matrix(torch.zeros(4, 4, dtype=torch.float64)) is None


def test_a_recurrent_layer_tells_of_the_matrix_it_repeats():
    torch.manual_seed(2)  # noqa: TID251
    net = nn.LSTM(6, 10, batch_first=True)
    model = export(net, torch.zeros(2, 5, 6))
    layers, profile = analyse(model, spectra=True)
    want = np.linalg.svd(net.weight_hh_l0.detach().double().numpy(), compute_uv=False)
    row = next(profile.layers[x.id] for x in layers if x.kind == "recurrent")
    assert row.sigma_max == pytest.approx(want[0], rel=1e-6)
    assert row.sigma_min == pytest.approx(want[-1], rel=1e-5)


def test_spectra_are_a_stage_of_profile_deep_alone():
    model = export(nn.Sequential(nn.Linear(8, 8), nn.Tanh(), nn.Linear(8, 2)), torch.zeros(2, 8))
    for depth, told in (("standard", False), ("deep", True)):
        asked = AnalysisOptions(profile=depth, engines=("analytic",), remediate=False)
        report = analyze(model.SerializeToString(), asked)
        assert (report.layers[0].analytic.sigma_max is not None) is told
        names = [s.name for s in report.series]
        assert ("log10_lipschitz_bound_by_block" in names) is told

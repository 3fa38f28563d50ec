"""What narrow formats lose: shares against real runs in fp16, counts by ml_dtypes, the scale."""

import ml_dtypes
import numpy as np
import pytest
import torch

from gradgauge.ops import chance
from gradgauge.sampled.frame import feed
from gradgauge.sampled.passes import differentiable
from gradgauge.sampled.precision import (
    ELEMENTS,
    FORMATS,
    LIMITS,
    LOST,
    _overflowing,
    _vanishing,
    precision,
)
from gradgauge.sampled.probes import cotangents
from tests.handmade import made, node, orthogonal
from tests.sampled.staged import by_name, named, narrowed, staged

RNG = np.random.default_rng(41)
NUMPY = {
    "fp16": np.float16,
    "bf16": ml_dtypes.bfloat16,
    "fp8_e4m3": ml_dtypes.float8_e4m3fn,
    "fp8_e5m2": ml_dtypes.float8_e5m2,
}


def chain(scales, width=16):
    stored = {f"W{i}": orthogonal(width, i, s) for i, s in enumerate(scales)}
    nodes = [
        node("MatMul", f"{f'h{i - 1}' if i else 'x'} W{i}", f"h{i}") for i in range(len(scales))
    ]
    return made(nodes, {"x": ["N", width]}, f"h{len(scales) - 1}", stored)


def run(case, exe, names):
    """Values and gradients in the executable's own number type."""
    generator = torch.Generator()
    exe.watch(names)
    outputs = differentiable(exe(*feed(exe, case.setting, case.reading, generator, 0)))
    values = {name: exe.watched[name] for name in names}
    sent = cotangents(outputs, "random_cotangent", target=None, generator=generator)
    grads = torch.autograd.grad(outputs, list(values.values()), sent)
    return values, dict(zip(names, grads, strict=True))


@pytest.mark.parametrize("name", FORMATS)
def test_shares_are_what_another_librarys_conversion_loses(name):
    case, exe = staged(chain([300.0, 40.0, 1e-5, 1e-4]), dtype=torch.float32)
    found = by_name(case, precision(case, exe, ()))
    values, grads = run(case, exe, ["h0", "h1", "h2", "h3"])
    for key in values:
        y, g = values[key].detach().numpy(), grads[key].numpy()
        with np.errstate(over="ignore", invalid="ignore"):
            over = ~np.isfinite(y.astype(NUMPY[name]).astype(np.float32))
            under = (g.astype(NUMPY[name]).astype(np.float32) == 0) & (g != 0)
        assert found[key]["overflow"][name] == pytest.approx(over.mean(), abs=1e-9)
        assert found[key]["underflow"][name] == pytest.approx(
            under.sum() / (g != 0).sum(), abs=1e-9
        )


@pytest.mark.parametrize("name", FORMATS)
def test_at_the_very_limits_numbers_are_lost_where_another_library_loses_them(name):
    """One float32 below, at and above, one row each."""
    place, limits = list(FORMATS).index(name), [LOST[name], LIMITS[name][1]]
    with np.errstate(over="ignore"):
        near = [np.nextafter(np.float32(x), np.float32(to)) for x in limits for to in (0, np.inf)]
        x = np.array([*near, *limits], dtype=np.float32)
        rounded = x.astype(NUMPY[name]).astype(np.float32)
    rows = torch.from_numpy(x).reshape(-1, 1)
    past = ~np.isfinite(rounded) & np.isfinite(x)
    assert (_overflowing(rows)[:, place].numpy() == past).all()
    assert (_vanishing(rows)[:, place].numpy() == (rounded == 0)).all()


def test_in_fp16_a_real_run_overflows_and_vanishes_where_it_is_foretold():
    """One layer apart: what overflows is infinite in the run, what vanishes is zero there."""
    model = chain([7e4, 1e-5, 2e-3])
    case, exe = staged(model, dtype=torch.float32)
    found = by_name(case, precision(case, exe, ()))
    half, run_half = staged(model, dtype=torch.float16)
    values, grads = run(half, run_half, ["h0", "h1", "h2"])
    over = float((~values["h0"].isfinite()).double().mean())
    assert over > 0.1
    assert found["h0"]["overflow"]["fp16"] == pytest.approx(over, abs=0.02)
    under = float((grads["h0"] == 0).double().mean())
    assert under > 0.3
    assert found["h0"]["underflow"]["fp16"] == pytest.approx(under, abs=0.03)


def test_the_loss_scale_saves_the_gradients_of_a_real_run_and_twice_its_double_overflows():
    model = chain([1.0, 1e-4, 1e-3])
    case, exe = staged(model, dtype=torch.float32)
    scale = named(precision(case, exe, ()))["loss_scale_fp16"]
    half = narrowed(case, torch.float16)
    _, run_half = staged(model, dtype=torch.float16)
    generator = torch.Generator()

    def lost(by):
        run_half.watch(["h0", "h2"])
        y = run_half(*feed(run_half, half.setting, half.reading, generator, 0))[0]
        sent = cotangents([y], "random_cotangent", target=None, generator=generator)[0]
        grads = torch.autograd.grad(y, list(run_half.watched.values()), sent * by)
        zeros = max(float((g == 0).double().mean()) for g in grads)
        return zeros, any(bool((~g.isfinite()).any()) for g in grads)

    assert lost(1.0)[0] > 0.1
    zeros, broken = lost(scale)
    assert (zeros < 0.02, broken) == (True, False)
    assert lost(4 * scale)[1]


def test_formats_asked_for_are_really_run():
    case, exe = staged(chain([7e4, 1e-5]), dtype=torch.float32)
    found = precision(case, exe, ("fp16", "bf16", "fp8_e4m3"))
    broken = {m.name: m.value for m in found.measurements if "not_finite" in m.name}
    assert broken == {"layers_not_finite_in_fp16": 2, "layers_not_finite_in_bf16": 0}


def test_of_large_tensors_the_largest_element_is_never_missed():
    from gradgauge.sampled.precision import _some

    x = torch.ones(3 * ELEMENTS + 7)
    x[3 * ELEMENTS + 5] = -1e6
    assert _some(x).max() == 1e6
    assert len(_some(x)) <= ELEMENTS + 1


def test_a_run_in_a_format_draws_the_masks_of_the_first_run(monkeypatch):
    """Of 4,000 elements, half dropped: two draws of masks would agree in half of them."""
    stored = {"W": orthogonal(20, 0), "half": np.array(0.5), "on": np.array(1).astype(bool)}
    nodes = [node("MatMul", "x W", "h"), node("Dropout", "h half on", "y")]
    case, exe = staged(made(nodes, {"x": ["N", 20]}, "y", stored), batch=200, dtype=torch.float32)
    drawn, uniform = [], chance.uniform
    monkeypatch.setattr(chance, "uniform", lambda *a: drawn.append(uniform(*a)) or drawn[-1])
    before = torch.get_rng_state()
    precision(case, exe, ["fp16", "bf16"])
    assert len(drawn) == 3
    assert torch.equal(drawn[0], drawn[1])
    assert torch.equal(drawn[0], drawn[2])
    assert torch.equal(torch.get_rng_state(), before)

"""Inputs, cotangents and losses: laws by their moments, gradients by their formulas."""

import math

import numpy as np
import onnx_ir
import pytest
import torch

from gradgauge.errors import InvalidOptions
from gradgauge.graph.reading import InputPlan, Reading
from gradgauge.sampled.probes import (
    BATCH,
    cotangents,
    draw_inputs,
    plan_draws,
    reseed,
    take_rows,
)

FLOAT, INT64 = onnx_ir.DataType.FLOAT, onnx_ir.DataType.INT64


def plan(kind="normal", shape=(None, 3), dtype=FLOAT, axis=0, **held):
    return InputPlan("x", kind, shape, dtype, axis, **held)


def reading(*plans):
    return Reading({f"x{i}": held for i, held in enumerate(plans)}, batch_statistics=False)


def draw(held, batch=BATCH, draw=0, seed=0, dtype=torch.float64):
    generator = torch.Generator().manual_seed(seed)
    fed = draw_inputs({"x": held}, batch, draw=draw, generator=generator, dtype=dtype)
    return fed["x"]


def generator(seed=0):
    return torch.Generator().manual_seed(seed)


FIXED, TEN = plan(shape=(4, 3), axis=None), plan("data", data=np.zeros((10, 3)))


@pytest.mark.parametrize(
    ("plans", "samples", "batch", "count"),
    [
        ([plan()], None, 32, 2),
        ([plan()], 7, 7, 1),
        ([plan()], 100, 32, 4),
        ([TEN], None, 10, 2),
        ([plan(), TEN], 100, 10, 10),
        ([FIXED], None, None, 16),
        ([FIXED], 5, None, 5),
        ([plan(), FIXED], None, None, 16),
    ],
)
def test_batches_are_as_many_as_the_profile_or_the_user_asks(plans, samples, batch, count):
    draws = plan_draws(reading(*plans), "quick", samples)
    assert (draws.batch, draws.count) == (batch, count)
    assert draws.most >= draws.count


def test_normal_and_uniform_inputs_have_the_mean_and_deviation_asked_for():
    for kind in ("normal", "uniform"):
        x = draw(plan(kind, (None, 5000), mean=2.0, scale=3.0)).detach()
        assert x.mean().item() == pytest.approx(2.0, abs=0.05)
        assert x.std().item() == pytest.approx(3.0, abs=0.05)
        if kind == "uniform":
            assert (x - 2.0).abs().max().item() <= 3.0 * 3**0.5


@pytest.mark.parametrize("kind", ["normal", "uniform"])
@pytest.mark.parametrize(("mean", "scale"), [(0.0, 1.0), (0.3, 7.0), (0.0, 1e-44)])
def test_a_pass_in_float32_is_fed_what_one_in_float64_is(kind, mean, scale):
    held = plan(kind, mean=mean, scale=scale)
    double = draw(held)
    assert double.dtype == torch.float64
    assert torch.equal(draw(held, dtype=torch.float32), double.float())
    assert torch.equal(draw(held), double)


def test_normal_inputs_follow_the_normal_law_out_to_its_tails():
    x = draw(plan(shape=(None, 20_000))).detach().numpy().ravel()
    for at in (-4.0, -2.0, -1.0, 0.0, 1.0, 2.0, 4.0):
        share = 0.5 * math.erfc(-at / math.sqrt(2.0))
        error = math.sqrt(share * (1.0 - share) / x.size)
        assert (x < at).mean() == pytest.approx(share, abs=4.0 * error)


@pytest.mark.parametrize("seed", range(4))
def test_a_network_drawn_from_the_same_seed_is_not_fed_its_own_weights(seed):
    W = torch.randn(96, 96, generator=generator(seed))
    assert torch.equal(torch.randn(32, 96, generator=generator(seed)), W[:32])
    fed = draw_inputs(
        {"x": plan(shape=(None, 96))},
        32,
        draw=0,
        generator=reseed(torch.Generator(), seed),
        dtype=torch.float32,
    )
    outputs = fed["x"].detach() @ W.T / 96**0.5
    assert outputs.std().item() == pytest.approx(1.0, abs=0.06)


def test_integers_fill_their_range_and_masks_are_open():
    x = draw(plan("integers", (None, 500), INT64, low=-2, high=3))
    assert sorted(set(x.flatten().tolist())) == [-2, -1, 0, 1, 2]
    assert draw(plan("ones", (None, 4), onnx_ir.DataType.BOOL)).all()


def test_positions_count_up_and_wrap_at_their_table_and_lengths_are_whole():
    assert (
        draw(plan("positions", (None, 7), INT64, high=5), batch=2).tolist()
        == [[0, 1, 2, 3, 4, 0, 1]] * 2
    )
    assert draw(plan("lengths", (None,), INT64, high=7), batch=3).tolist() == [7, 7, 7]


def test_floats_ask_for_a_gradient_also_where_the_users_array_holds_whole_numbers():
    pixels = np.arange(30, dtype=np.uint8).reshape(10, 3)
    x = draw(plan("data", data=pixels), batch=4, draw=1)
    assert x.requires_grad
    assert torch.equal(x.detach(), torch.tensor(pixels[4:8]).double())


def test_rows_go_round_at_the_arrays_end_and_stay_beside_their_targets():
    x, y = np.arange(10) * 1.0, np.arange(10)
    for number in range(4):
        assert (take_rows(x, 4, number) == take_rows(y, 4, number)).all()
    assert take_rows(y, 4, 2).tolist() == [8, 9, 0, 1]


def test_a_single_number_is_fed_as_it_is():
    assert draw(plan("data", (), axis=None, data=np.array(0.5))).item() == 0.5


def test_random_cotangents_are_normal_for_every_output():
    outputs = [torch.zeros(64, 50), torch.zeros(64, 2, 25)]
    for sent, y in zip(
        cotangents(outputs, "random_cotangent", target=None, generator=generator()),
        outputs,
        strict=True,
    ):
        assert sent.shape == y.shape
        assert sent.std().item() == pytest.approx(1.0, abs=0.05)


def test_cross_entropy_sends_softmax_less_one_hot():
    logits, labels = torch.randn(5, 4, generator=generator()), torch.tensor([0, 3, 1, 1, 2])
    outputs = [logits, torch.ones(5, 2)]
    sent, other = cotangents(outputs, "cross_entropy", target=labels, generator=generator())
    assert torch.allclose(sent, logits.softmax(1) - torch.eye(4)[labels])
    assert not other.any()


def test_cross_entropy_over_positions_is_each_inputs_mean():
    logits = torch.randn(3, 6, 4, generator=generator())
    labels = torch.randint(0, 4, (3, 6), generator=generator())
    labels[0, 0] = -100
    (sent,) = cotangents([logits], "cross_entropy", target=labels, generator=generator())
    expected = (logits.softmax(-1) - torch.eye(4)[labels.clamp_min(0)]) / 6
    expected[0, 0] = 0.0
    assert torch.allclose(sent, expected, atol=1e-7)


def test_cross_entropy_of_an_image_has_its_classes_second():
    logits = torch.randn(2, 4, 3, 5, generator=generator())
    labels = torch.randint(0, 4, (2, 3, 5), generator=generator())
    (sent,) = cotangents([logits], "cross_entropy", target=labels, generator=generator())
    fed = logits.clone().requires_grad_()
    each = torch.nn.functional.cross_entropy(fed, labels, reduction="none").flatten(1).mean(1)
    (expected,) = torch.autograd.grad(each.sum(), fed)
    assert torch.allclose(sent, expected, atol=1e-7)
    (drawn,) = cotangents([logits], "cross_entropy", target=None, generator=generator())
    assert torch.allclose(drawn.sum(1), torch.zeros(2, 3, 5), atol=1e-6)


@pytest.mark.parametrize(
    ("output", "target"), [((6,), (6,)), ((6,), (6, 1)), ((6, 1), (6,)), ((6, 2, 3), (6, 6))]
)
def test_mse_is_each_inputs_own_mean_whatever_the_targets_shape(output, target):
    y, wanted = (
        torch.randn(shape, generator=generator(i)) for i, shape in enumerate((output, target))
    )
    (sent,) = cotangents([y], "mse", target=wanted, generator=generator())
    each = y.numel() / 6
    assert torch.allclose(sent, 2 * (y - wanted.reshape(output)) / each)


@pytest.mark.parametrize(
    ("loss", "output", "target"),
    [
        ("mse", (6, 2), torch.zeros(6, 3)),
        ("cross_entropy", (6, 4), torch.zeros(5, dtype=torch.long)),
        ("cross_entropy", (6, 4), torch.full((6,), 4)),
        ("cross_entropy", (6, 4), torch.full((6,), -1)),
        ("cross_entropy", (6, 1), torch.ones(6, dtype=torch.long)),
        ("cross_entropy", (), torch.ones(1, dtype=torch.long)),
    ],
)
def test_targets_that_do_not_fit_are_refused(loss, output, target):
    with pytest.raises(InvalidOptions) as fault:
        cotangents([torch.zeros(output)], loss, target=target, generator=generator())
    assert fault.value.code == "target_mismatch"

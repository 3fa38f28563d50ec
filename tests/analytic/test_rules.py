"""Single ops: moments and gradients of one node against exact sums or a sample of their own."""

import math

import numpy as np
import pytest
import torch
from torch.nn import functional

from gradgauge.analytic import convolution, linear, movement, normalisation, pooling, products
from gradgauge.analytic.axes import guess, of_input, reshaped, transposed
from gradgauge.analytic.binary import add, mul
from gradgauge.analytic.call import Call
from gradgauge.analytic.moments import Flow, Known, between, flow, measure, merge, signal
from gradgauge.analytic.probe import draw
from gradgauge.ops.table import lookup
from gradgauge.pipeline import analyze
from gradgauge.schema.options import AnalysisOptions
from tests.analytic.autograd import seeded
from tests.handmade import made, node


def call(op, inputs, opset=18, **attributes):
    row = lookup("", op, opset)
    names = tuple(f"v{i}" for i in range(len(inputs)))
    return Call(op, row.run, names, tuple(inputs), attributes, batch_statistics=True)


def random(*shape, seed=0, shift=0.0):
    return shift + torch.randn(shape, generator=seeded(seed), dtype=torch.float64)


def law(shape, axes, *, seed=1, shared=0.0):
    """A signal of random means and variances."""
    common = torch.full([1] * len(shape), shared, dtype=torch.float64)
    spread = random(*shape, seed=seed + 1).square() + 2 * shared + 0.1
    return signal(shape, axes, random(*shape, seed=seed), spread, shared=common)


def draws(x, count):
    generator = seeded(17)
    return torch.stack([draw(x, generator) for _ in range(count)])


def test_a_dense_layer_carries_means_and_the_whole_covariance():
    W, b = random(5, 7, shift=0.2), random(5, seed=1)
    x = law((1, 7), "bf")
    step = linear.gemm(call("Gemm", [x, Known(W), Known(b)], transB=1))
    out = step.outputs[0]
    assert torch.allclose(out.mean, x.mean @ W.T + b)
    want = W @ torch.diag(x.var[0]) @ W.T
    assert torch.allclose(out.cov, want)
    assert torch.allclose(out.var[0], want.diagonal())
    G = random(5, 5, seed=4)
    G = G @ G.T
    to_x, to_w, to_b = step.pull([Flow(G.diagonal()[None], torch.zeros(1, 1), cov=G)])
    assert torch.allclose(to_x.cov, W.T @ G @ W)
    assert torch.allclose(to_x.g[0], (W.T @ G @ W).diagonal())
    q = x.mean.square() + x.var
    assert float(to_w.g) == pytest.approx(float(G.diagonal().mean() * q.mean()))
    assert float(to_b.g.mean()) == pytest.approx(float(G.diagonal().mean()))


def test_tokens_go_through_a_dense_layer_channel_by_channel():
    W = random(6, 7)
    x = law((1, 4, 7), "bpf", shared=0.4)
    step = linear.matmul(call("MatMul", [x, Known(W.T)]))
    out = step.outputs[0]
    assert torch.allclose(out.var, x.var @ (W * W).T)
    assert torch.allclose(out.shared.expand(1, 1, 6), x.shared.expand(1, 1, 7) @ (W * W).T)
    to_x, to_w = step.pull([flow(1.0, 3, torch.full((1, 1, 1), 0.25, dtype=torch.float64))])
    assert torch.allclose(to_x.g.expand(1, 4, 7), (W * W).sum(0).expand(1, 4, 7))
    # 4 positions, of whose gradients a quarter is common: pairs add E g_i g_j E x_i x_j.
    pairs = between(x.mean, x.shape, [1]) + x.shared
    want = 4 * float((x.mean.square() + x.var).mean()) + 12 * 0.25 * float(pairs.mean())
    assert float(to_w.g) == pytest.approx(want)


@pytest.mark.parametrize(
    ("stride", "padding", "groups"), [(1, 1, 1), (2, 1, 1), (1, 0, 2), (2, 2, 4)]
)
def test_a_convolution_is_exact_per_element(stride, padding, groups):
    W = random(8, 4 // groups, 3, 3, seed=2)
    x = law((1, 4, 9, 9), "bfpp")
    step = convolution.convolution(
        call("Conv", [x, Known(W)], strides=[stride] * 2, pads=[padding] * 4, group=groups)
    )
    out = step.outputs[0]
    how = (None, stride, padding, 1, groups)
    # float32, as larger products are
    assert torch.allclose(out.mean, functional.conv2d(x.mean, W, *how), atol=1e-5)
    assert torch.allclose(out.var, functional.conv2d(x.var, W * W, *how), rtol=1e-5)
    g = random(*out.shape, seed=6).square()
    leaf = torch.zeros(1, 4, 9, 9, dtype=torch.float64, requires_grad=True)
    (back,) = torch.autograd.grad(functional.conv2d(leaf, W * W, *how), leaf, g)
    to_x, _ = step.pull([flow(g)])
    assert torch.allclose(to_x.g, back, rtol=1e-5)


def test_a_gradient_common_to_all_pixels_meets_the_sum_of_the_taps():
    W = random(6, 4, 3, 3, seed=2)
    x = law((1, 4, 12, 12), "bfpp")
    step = convolution.convolution(call("Conv", [x, Known(W)], pads=[1] * 4))
    held = Flow(torch.ones(1, 6, 1, 1).double(), torch.ones(1, 6, 1, 1).double())
    to_x, _ = step.pull([held])
    inner = to_x.g.expand(1, 4, 12, 12)[0, :, 5, 5]
    assert torch.allclose(inner, W.sum((2, 3)).square().sum(0))


@pytest.mark.parametrize("op", ["LayerNormalization", "SimplifiedLayerNormalization"])
def test_norms_over_features_pass_the_published_share_of_the_gradient(op):
    n = 32
    zero = torch.zeros(1, 1, 1).double()
    x = signal((1, 4, n), "bpf", zero, zero + 1)
    rules = {
        "LayerNormalization": (normalisation.layer_norm, (n - 2) / (n - 3), (n - 1) / n),
        "SimplifiedLayerNormalization": (normalisation.rms_norm, (n - 1) / (n - 2), 1.0),
    }
    rule, published, spread = rules[op]
    got = rule(call(op, [x, Known(torch.ones(n))], epsilon=0.0)).pull([flow(1.0, 3)])[0].g
    leaf = random(4000, 8, n, seed=3).requires_grad_()
    centred = leaf - leaf.mean(-1, keepdim=True) if op == "LayerNormalization" else leaf
    y = centred / centred.square().mean(-1, keepdim=True).sqrt()
    y.backward(random(*y.shape, seed=4))
    assert float(got.mean()) == pytest.approx(published / spread, rel=1e-9)
    assert float(got.mean()) == pytest.approx(float(leaf.grad.square().mean()), rel=0.04)


def test_batch_norm_divides_by_what_inputs_do_not_share():
    x = law((1, 16), "bf")
    ones, zeros = Known(torch.ones(16)), Known(torch.zeros(16))
    step = normalisation.batch_norm(call("BatchNormalization", [x, ones, zeros, zeros, ones]))
    out = step.outputs[0]
    assert float(out.mean.abs().max()) == 0.0
    assert torch.allclose(out.var, x.var / (x.var + 1e-5))


def test_batch_norm_of_a_batch_loses_its_two_projections():
    batch, width = 32, 64
    zero = torch.zeros(1, width).double()
    x = signal((1, width), "bf", zero, zero + 1)
    held = (Known(torch.ones(width)), Known(torch.zeros(width)))
    step = normalisation.batch_norm(
        call("BatchNormalization", [x, held[0], held[1], held[1], held[0]])
    )
    got = float(step.pull([flow(1.0, 2)])[0].g.mean())
    leaf = random(batch, 4096, seed=9).requires_grad_()
    y = functional.batch_norm(leaf, None, None, training=True)
    y.backward(random(*y.shape, seed=10))
    assert got == pytest.approx(float(leaf.grad.square().mean()), rel=0.03)


def logits(scale, T):
    zero = torch.zeros(1, 1, 1, 1).double()
    return signal((1, 4, T, T), "bfpk", zero, zero + scale**2)


@pytest.mark.parametrize(("scale", "tolerance"), [(0.25, 0.03), (0.5, 0.03), (1.0, 0.05)])
def test_softmax_weights_concentrate_as_published(scale, tolerance):
    T = 256
    got = products.softmax(call("Softmax", [logits(scale, T)])).outputs[0]
    assert float(got.mean.mean()) == pytest.approx(1 / T, rel=1e-9)
    assert got.q * T * T == pytest.approx(math.exp(scale**2), rel=tolerance)


def test_what_the_keys_share_does_not_pass_softmax():
    step = products.softmax(call("Softmax", [logits(math.sqrt(0.5), 16)]))
    one = torch.ones(1, 1, 1, 1).double()
    assert float(step.pull([Flow(one, 0 * one, one)])[0].g.max()) == 0.0
    leaf = math.sqrt(0.5) * random(20_000, 16, seed=5)
    leaf.requires_grad_()
    y = torch.softmax(leaf, 1)
    y.backward(random(*y.shape, seed=6))
    passed = float(step.pull([flow(1.0, 4)])[0].g.mean())
    assert passed == pytest.approx(float(leaf.grad.square().mean()), rel=0.1)


def test_a_mask_leaves_weight_on_what_it_keeps():
    x = logits(0.3, 4)
    mask = torch.ones(4, 4, dtype=torch.bool).triu(1)
    masked = type(x)(**{f: getattr(x, f) for f in x.__slots__} | {"masked": mask})
    got = products.softmax(call("Softmax", [masked])).outputs[0].mean[0, 0]
    want = torch.ones(4, 4).tril() / torch.arange(1.0, 5.0)[:, None]
    assert torch.allclose(got, want.double(), atol=1e-6)


def test_attention_mixes_what_values_do_not_share():
    A = products.softmax(call("Softmax", [logits(0.5, 16)])).outputs[0]
    zero = torch.zeros(1, 1, 1, 1).double()
    V = signal((1, 4, 16, 8), "bfpf", zero, zero + 1.0, shared=zero + 0.4)
    step = products.product(call("MatMul", [A, V]))
    out = step.outputs[0]
    # The common part passes whole, the rest by the sum of squared weights.
    concentration = 16 * A.q
    assert float(out.var.mean()) == pytest.approx(0.4 + 0.6 * concentration, rel=1e-6)
    _, to_v = step.pull([flow(1.0, 4, zero + 1.0)])
    assert float(to_v.g.mean()) == pytest.approx(1.0, rel=1e-6)
    _, to_v = step.pull([flow(1.0, 4)])
    assert float(to_v.g.mean()) == pytest.approx(concentration, rel=1e-6)


def test_global_average_pooling_makes_a_gradient_common():
    x = law((1, 4, 5, 5), "bfpp", shared=0.3)
    step = pooling.global_average_pool(call("GlobalAveragePool", [x]))
    out = step.outputs[0]
    values = draws(x, 20_000).mean((3, 4), keepdim=True)
    assert torch.allclose(out.var, values.var(0), rtol=0.05)
    assert torch.allclose(out.mean, x.mean.mean((2, 3), keepdim=True))
    back = step.pull([flow(1.0, 4)])[0]
    assert float(back.g.mean()) == pytest.approx(1 / 625)
    assert float(back.shared.mean()) == pytest.approx(1 / 625)


def test_sums_and_products_of_draws_have_the_moments_said():
    a, b = law((1, 64), "bf"), law((1, 64), "bf", seed=5)
    generator = seeded(8)
    for rule, op, name in ((add, torch.add, "Add"), (mul, torch.mul, "Mul")):
        got = rule(call(name, [a, b])).outputs[0]
        values = torch.stack([op(draw(a, generator), draw(b, generator)) for _ in range(20_000)])
        assert torch.allclose(got.mean, values.mean(0), atol=0.15)
        assert got.q == pytest.approx(float(values.square().mean()), rel=0.05)


def test_a_slice_remembers_where_its_gradient_came_from():
    x = law((1, 6, 4), "bpf")
    step = movement.move(call("Gather", [x, Known(torch.tensor(-1))], axis=1))
    assert step.outputs[0].shape == (1, 4)
    assert step.outputs[0].axes == "bf"
    assert torch.equal(step.outputs[0].mean, x.mean[:, -1])
    back = step.pull([flow(3.0, 2)])[0]
    assert back.g[:, -1].eq(3).all()
    assert back.g[:, :-1].eq(0).all()


@pytest.mark.parametrize(
    ("shape", "axes", "target", "want"),
    [
        ((1, 16, 64), "bpf", (1, 16, 4, 16), "bpff"),
        ((1, 16, 4, 16), "bpff", (1, 16, 64), "bpf"),
        ((1, 32, 5, 5), "bfpp", (1, 800), "bf"),
        ((1, 32, 5, 5), "bfpp", (1, 32, 25), "bfp"),
        ((1, 16, 64), "bpf", (16, 64), "pf"),
        ((1, 32, 1, 1), "bfpp", (1, 32), "bf"),
    ],
)
def test_roles_of_axes_follow_a_reshape(shape, axes, target, want):
    assert reshaped(shape, axes, target) == want


def test_roles_of_inputs_are_those_of_images_and_tokens():
    assert [of_input(4, 0), of_input(3, 0), of_input(2, 0), of_input(3, 1)] == [
        "bfpp",
        "bpf",
        "bf",
        "pbf",
    ]
    assert transposed("bpff", [0, 2, 1, 3]) == "bfpf"
    assert guess((1, 7, 5)) == "ppf"


def test_gradients_that_meet_add_up_whatever_their_size():
    one = torch.ones(1, 1).double()
    met = merge([Flow(one, one, scale=-400.0), Flow(one, 0 * one, scale=-400.0)])
    assert met.log10_g == pytest.approx(-400 + math.log10(2))
    assert float(met.shared / met.g) == pytest.approx(0.5)


def test_a_lean_is_the_mean_of_those_that_meet_by_their_size():
    one = torch.ones(1, 1).double()
    met = merge([Flow(3 * one, 0 * one, lean=one), Flow(one, 0 * one)])
    assert float(met.lean) == pytest.approx(0.75)


def test_draws_measure_as_the_signal_they_are_of():
    x = law((1, 6, 50), "bpf", shared=0.5)
    got = measure(draws(x, 4000), "bpf", 4000)
    assert torch.allclose(got.mean, x.mean, atol=0.12)
    assert torch.allclose(got.var, x.var, rtol=0.15)
    assert float(got.shared.mean()) == pytest.approx(0.5, abs=0.05)


def test_running_statistics_are_taken_as_stored():
    x = law((1, 64, 6, 6), "bfpp")
    gain, bias, mean = random(3, 64, seed=9)
    variance = random(64, seed=10).square() + 0.2
    inputs = [x, *(Known(v) for v in (gain, bias, mean, variance))]
    asked = call("BatchNormalization", inputs)
    asked = type(asked)(asked.op, asked.run, asked.names, asked.inputs, {}, batch_statistics=False)
    step = normalisation.batch_norm(asked)
    values = functional.batch_norm(draws(x, 400)[:, 0], mean, variance, gain, bias)
    assert step.outputs[0].q == pytest.approx(float(values.square().mean()), rel=0.02)
    back = step.pull([flow(1.0, 4)])[0]
    want = float((gain * gain / (variance + 1e-5)).mean())
    assert float(back.g.mean()) == pytest.approx(want, rel=1e-9)


def dropped(*, opset, training=False):
    """x W, Tanh, Dropout, V."""
    rng = np.random.default_rng(0)
    stored = {"W": rng.normal(size=(16, 16)) / 4, "V": rng.normal(size=(16, 16)) / 4}
    if opset >= 12:
        stored |= {"half": np.array(0.5, dtype=np.float32), "on": np.array(training)}
    nodes = [
        node("MatMul", "x W", "m"),
        node("Tanh", "m", "t"),
        node("Dropout", "t half on" if opset >= 12 else "t", "d"),
        node("MatMul", "d V", "y"),
    ]
    return analysed(made(nodes, {"x": ["N", 16]}, "y", stored, opset=opset))


def analysed(model):
    options = AnalysisOptions(profile="quick", remediate=False, engines=["analytic"])
    return {layer.name: layer.analytic for layer in analyze(model, options).layers}


def test_dropout_in_training_scales_second_moments_and_keeps_what_positions_share():
    x = law((1, 6, 40), "bpf", shared=0.3)
    held = [x, Known(torch.tensor(0.25)), Known(torch.tensor(data=True))]
    step = movement.dropout(call("Dropout", held))
    (y,) = step.outputs
    drawn = torch.stack([functional.dropout(draw(x, seeded(i)), 0.25) for i in range(1500)])
    assert float((drawn.square().mean(0) / y.second - 1).abs().mean()) < 0.05
    centred = drawn - drawn.mean(0)
    pair = (centred[:, :, 0] * centred[:, :, 1]).mean()
    assert float((y.shared - pair).abs().max()) < 0.05
    given = step.pull([flow(torch.ones(1, 6, 40, dtype=torch.float64), shared=x.shared)])[0]
    torch.testing.assert_close(given.g, torch.full_like(given.g, 1 / 0.75))
    torch.testing.assert_close(given.shared, x.shared)


def test_dropout_behind_an_activation_is_the_identity_in_inference_and_a_mask_in_training():
    """Kept with probability 1/2 and doubled: mean squares of values and gradients double."""
    plain = dropped(opset=10)
    assert dropped(opset=17) == plain
    drawn = dropped(opset=17, training=True)
    assert (drawn["y"].forward_rms / plain["y"].forward_rms) ** 2 == pytest.approx(2.0, rel=0.05)
    decades = drawn["m"].log10_grad_act - plain["m"].log10_grad_act
    assert decades == pytest.approx(0.5 * math.log10(2.0), abs=0.02)

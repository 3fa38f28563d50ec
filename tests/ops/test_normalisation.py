"""BatchNormalization by stored statistics: what torch's kernel leaves out, and mixed types."""

import torch

from gradgauge.ops.normalisation import BatchNormalization

_GENERATOR = torch.Generator().manual_seed(3)


def _arguments(dtype=torch.float64):
    x = torch.randn(4, 3, 5, generator=_GENERATOR, dtype=torch.float64)
    scale, bias, mean = torch.randn(3, 3, generator=_GENERATOR, dtype=torch.float64)
    var = torch.rand(3, generator=_GENERATOR, dtype=torch.float64) + 0.2
    return [v.to(dtype).requires_grad_() for v in (x, scale, bias, mean, var)]


def _written_out(x, scale, bias, mean, var):
    """ONNX BatchNormalization-15, the formula."""
    scale, bias, mean, var = (v[:, None] for v in (scale, bias, mean, var))
    return (x - mean) / torch.sqrt(var + 1e-5) * scale + bias


def test_stored_statistics_have_the_formulas_gradients():
    held = _arguments()
    sent = torch.randn(4, 3, 5, generator=_GENERATOR, dtype=torch.float64)
    got = torch.autograd.grad(BatchNormalization(*held), held, sent)
    want = torch.autograd.grad(_written_out(*held), held, sent)
    torch.testing.assert_close(got, want, rtol=1e-10, atol=1e-12)


def test_stored_statistics_can_be_differentiated_twice():
    assert torch.autograd.gradgradcheck(BatchNormalization, _arguments())


def test_a_half_precision_input_takes_its_statistics_in_float32():
    held = _arguments(torch.float32)
    x = held[0].detach().half().requires_grad_()
    y = BatchNormalization(x, *held[1:])
    assert y.dtype == torch.float16
    torch.testing.assert_close(y.float(), _written_out(x.float(), *held[1:]), rtol=2e-3, atol=2e-3)


def test_training_asks_for_new_statistics_only_where_the_node_does():
    held = _arguments()
    alone = BatchNormalization(*held, training_mode=1)
    y, mean, var = BatchNormalization(*held, training_mode=1, n_outputs=3, momentum=0.9)
    torch.testing.assert_close(alone, y)
    torch.testing.assert_close(mean, 0.9 * held[3] + 0.1 * held[0].mean((0, 2)))
    torch.testing.assert_close(var, 0.9 * held[4] + 0.1 * held[0].var((0, 2), correction=0))


def test_a_batchs_own_statistics_are_handed_out_far_from_zero_and_of_half_precision_inputs():
    scale, bias, mean, var = (v.detach() for v in _arguments(torch.float32)[1:])
    x = torch.randn(4, 3, 5, generator=_GENERATOR)
    for batch in (x * 1e-3 + 10, x.half()):
        wide = batch.double().numpy()
        own = BatchNormalization(batch, scale, bias, mean, var, n_outputs=5)[3:]
        want = wide.mean((0, 2)), wide.var((0, 2))  # numpy, the population's
        for got, told in zip(own, want, strict=True):
            torch.testing.assert_close(got.double(), torch.from_numpy(told), rtol=2e-3, atol=1e-9)

"""That the comparison with native torch notices what is wrong."""

import torch
from torch import nn

from tests.native import ByValue, compare, gradients


def _linear() -> tuple[nn.Module, list[torch.Tensor], list[torch.Tensor]]:
    net = nn.Linear(3, 2).double()
    x = torch.linspace(-1, 1, 6, dtype=torch.float64).reshape(2, 3)
    parameters = list(net.parameters())
    return net, parameters, gradients([net(x)], parameters)


def test_a_transposed_and_a_split_copy_are_the_parameter():
    net, (weight, bias), (of_weight, of_bias) = _linear()
    third = of_weight.T / 3
    copies = ByValue([weight.T, weight.T, bias], [third, 2 * third, of_bias])
    found = compare(copies, ByValue([weight, bias], [of_weight, of_bias]), net)
    assert found.error < 1e-15
    assert (found.parameters, found.unmapped) == (2, ())


def test_a_gradient_off_by_a_millionth_is_told_with_its_parameter():
    net, parameters, (of_weight, of_bias) = _linear()
    off = ByValue(parameters, [of_weight * (1 + 1e-6), of_bias])
    found = compare(off, ByValue(parameters, [of_weight, of_bias]), net)
    assert abs(found.error / 1e-6 - 1) < 1e-6
    assert found.worst == "weight"


def test_a_nan_is_the_largest_error():
    net, parameters, (of_weight, of_bias) = _linear()
    broken = ByValue(parameters, [of_weight, of_bias * torch.nan])
    found = compare(broken, ByValue(parameters, [of_weight, of_bias]), net)
    assert not found.error <= 1e-9
    assert found.worst == "bias"


def test_a_parameter_that_is_stored_changed_is_unmapped():
    net, (weight, bias), found = _linear()
    changed = ByValue([2 * weight, bias], found)
    assert compare(changed, ByValue([weight, bias], found), net).unmapped == ("weight",)

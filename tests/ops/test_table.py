"""Every row of the op table against onnxruntime and against central differences."""

import pytest

from gradgauge.ops.row import op
from gradgauge.ops.table import lookup, rows
from tests.ops import (
    choices,
    contraction,
    control,
    fused,
    linear,
    movement,
    normalisation,
    numbers,
    plumbing,
    pointwise,
    pooling,
    recurrent,
    reduction,
    signals,
    vision,
)
from tests.ops.case import Case, agrees_backward, agrees_forward

CASES: list[Case] = [
    *pointwise.CASES,
    *linear.CASES,
    *normalisation.CASES,
    *movement.CASES,
    *pooling.CASES,
    *reduction.CASES,
    *contraction.CASES,
    *recurrent.CASES,
    *plumbing.CASES,
    *control.CASES,
    *fused.CASES,
    *vision.CASES,
    *signals.CASES,
    *choices.CASES,
    *numbers.CASES,
]
SMOOTH = [case for case in CASES if case.smooth]


def _names(cases):
    return [f"{number}-{case}" for number, case in enumerate(cases)]


@pytest.mark.parametrize("case", CASES, ids=_names(CASES))
def test_the_forward_is_the_runtimes(case):
    agrees_forward(case)


@pytest.mark.parametrize("case", SMOOTH, ids=_names(SMOOTH))
def test_the_gradient_is_that_of_central_differences(case):
    agrees_backward(case)


def test_every_row_has_a_case_that_uses_it():
    used = {case.row for case in CASES}
    assert [f"{r.domain}::{r.name}-{r.since}" for r in rows() if r not in used] == []


def test_every_row_but_a_flat_one_has_a_gradient_case():
    flat = {"ArgMax", "ArgMin", "Hardmax"}
    used = {case.row for case in CASES if case.smooth}
    left = [r.name for r in rows() if r not in used and r.kind != "plumbing"]
    assert set(left) == flat


def test_the_row_in_force_is_the_latest_not_after_the_opset():
    assert [lookup("", "Softmax", v).since for v in (1, 12, 13, 23)] == [1, 1, 13, 13]


def test_an_op_younger_than_the_opset_has_no_row():
    assert lookup("", "Gelu", 19) is None


def test_the_default_domain_has_two_spellings():
    assert lookup("ai.onnx", "Gelu", 20) is lookup("", "Gelu", 20)


def test_another_domain_is_another_op():
    assert lookup("com.microsoft", "Gelu", 1) is not lookup("", "Gelu", 20)
    assert lookup("com.example", "Relu", 1) is None


def test_an_op_cannot_be_registered_twice_at_one_opset():
    with pytest.raises(ValueError, match="Softmax since opset 13 is registered twice"):
        op("pointwise", name="Softmax", since=13)(lambda x: x)

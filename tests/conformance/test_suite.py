"""ONNX's backend suite: which cases pass, against the list of those that may fail."""

import pytest

from tests.conformance.suite import (
    KINDS,
    Outcome,
    differentiable,
    expected_failures,
    outcome,
    shortfall,
    suite,
)


@pytest.fixture(scope="module")
def outcomes() -> list[Outcome]:
    return [outcome(key) for key in suite()]


def test_the_suite_is_the_one_the_counts_are_of():
    assert len(suite()) == 2033
    assert len(differentiable()) == 1438
    assert differentiable() <= suite().keys()
    assert {key.partition("/")[0] for key in suite()} == set(KINDS)


def test_the_cases_that_fail_are_those_listed_with_a_reason(outcomes):
    assert {o.key for o in outcomes if shortfall(o)} == expected_failures().keys()
    assert all(len(reason) > 20 for reason in expected_failures().values())


def test_at_least_1400_differentiable_cases_and_1850_of_all_pass(outcomes):
    assert sum(o.key in differentiable() and not shortfall(o) for o in outcomes) >= 1400
    assert sum(not o.reason for o in outcomes) >= 1850


def test_an_outcome_that_skips_torch_does_not_count():
    one = Outcome("node", "test_relu", "", "no output depends on a float input through torch")
    assert shortfall(one).startswith("gradient:")

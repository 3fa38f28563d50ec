"""ONNX's own backend suite: two thousand sound models, none of which may be refused."""

import warnings

import pytest
from onnx.backend.test.case.node import collect_testcases

from gradgauge.errors import GradgaugeError
from tests.hostile import builders as b


@pytest.mark.slow
@pytest.mark.timeout(400)
def test_no_model_of_the_backend_suite_is_refused() -> None:
    with warnings.catch_warnings():
        warnings.simplefilter("ignore")  # numpy's, while onnx draws its expected outputs
        cases = collect_testcases(None)
    refused = {}
    for case in cases:
        try:
            b.read(case.model)
        except GradgaugeError as fault:
            refused[case.name] = str(fault)
    assert refused == {}
    assert len(cases) > 1500

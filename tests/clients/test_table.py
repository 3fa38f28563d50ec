"""The terminal's lines on how probable it is that training fails."""

import io

import pytest
from rich.console import Console

from gradgauge_client import table
from tests import reports


def shown(held):
    told = reports.report()
    told["summary"]["probability_untrainable"] = held
    page = io.StringIO()
    table.show(told, Console(file=page, width=200))
    return page.getvalue()


def probability(p, low, high, **fields):
    return {"p": p, "low": low, "high": high, "lr": None, "confidence": 0.9} | fields


def test_each_optimizers_probability_is_told_with_its_interval_and_rate():
    held = {
        "sgd": probability(0.954, 0.9, 0.98),
        "adam": probability(0.12, 0.05, 0.31, lr=0.002),
    }
    lines = shown(held).splitlines()
    sgd = (
        "probability that it does not train under SGD at any usual learning rate: 95% (90% to 98%)"
    )
    assert sgd in lines
    assert "probability that it does not train under Adam at rate 0.002: 12% (5% to 31%)" in lines


@pytest.mark.parametrize(("confidence", "doubted"), [(0.49, True), (0.5, False)])
def test_a_guess_far_from_the_fitted_networks_is_called_one(confidence, doubted):
    text = shown({"sgd": probability(0.4, 0.1, 0.8, confidence=confidence)})
    assert ("not to be relied on" in text) == doubted
    assert "Adam" not in text


def test_nothing_is_said_where_there_is_no_probability():
    assert "does not train" not in shown(None)

"""The collector is back afterwards as it was before, whatever happens in between."""

import gc

import pytest

from gradgauge.errors import InvalidModel
from gradgauge.sampled.collection import held_off
from gradgauge.sampled.executor import compile_graph


@pytest.fixture(autouse=True)
def _collector():
    yield
    gc.enable()


@pytest.mark.parametrize("was_on", [True, False])
def test_the_collector_is_left_as_it_was_found(was_on):
    (gc.enable if was_on else gc.disable)()
    with pytest.raises(ZeroDivisionError), held_off():
        assert not gc.isenabled()
        raise ZeroDivisionError
    assert gc.isenabled() == was_on


def test_a_graph_that_is_refused_leaves_the_collector_on(tmp_path):
    with pytest.raises(InvalidModel):
        compile_graph(tmp_path / "none.onnx")
    assert gc.isenabled()

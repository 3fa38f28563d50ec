"""Resources on the wire: nothing optional on the way out, children not believed."""

import pytest
from pydantic import ValidationError

from gradgauge.schema import resources
from tests.jobs.worker_process import FACTS

OUTPUTS = [
    value
    for value in vars(resources).values()
    if isinstance(value, type)
    and issubclass(value, resources.Block)
    and value is not resources.Block
]


@pytest.mark.parametrize("model", OUTPUTS, ids=lambda model: model.__name__)
def test_every_field_is_always_present(model):
    assert [name for name, field in model.model_fields.items() if not field.is_required()] == []


def test_the_engines_facts_become_the_wires():
    told = resources.ModelFacts.told({**FACTS, "size_bytes": 3, "sha256": "a" * 64})
    assert told.warnings == [resources.Caution(code="unsorted", message="the graph was not sorted")]
    assert told.inputs == {"x": ["batch", 3]}
    assert resources.ModelFacts.told(told.model_dump()) == told


@pytest.mark.parametrize(
    "lie",
    [
        {"node_count": -1},
        {"ops": {"Gemm": "many"}},
        {"format": "pickle"},
        {"warnings": [{"code": 1}]},
        {"inputs": {"x": [{}]}},
    ],
)
def test_facts_of_the_wrong_shape_are_refused(lie):
    with pytest.raises(ValidationError):
        resources.ModelFacts.told({**FACTS, **lie})


def test_facts_with_a_field_missing_are_refused():
    with pytest.raises(ValidationError):
        resources.ModelFacts.told({"name": "net"})

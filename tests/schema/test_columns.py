"""Layers by column hold what layers by row do."""

from gradgauge.schema.columns import Columns, columns
from gradgauge.schema.layer import LayerBlock
from tests import reports


def rows(told):
    """The layers again; a part whose every column is null is null."""
    found = []
    for place in range(told["count"]):
        layer = {}
        for path, held in told["columns"].items():
            inner, *names = layer, *path.split(".")
            for name in names[:-1]:
                inner = inner.setdefault(name, {})
            inner[names[-1]] = held[place]
        for name in ("log10_grad_act", "log10_grad_param"):
            for part in (name, f"{name}_ci"):
                values = layer["sampled"][part]
                if all(value is None for value in values.values()):
                    layer["sampled"][part] = None
        found.append(layer)
    return found


def test_nothing_is_lost():
    layers = [reports.layer(0), reports.layer(1, sampled=reports.unmeasured()), reports.layer(2)]
    layers = [LayerBlock.model_validate(each).model_dump(mode="json") for each in layers]
    told = columns(layers)
    Columns.model_validate(told)
    assert {len(held) for held in told["columns"].values()} == {3}
    assert rows(told) == layers


def test_no_layers_are_no_values_in_every_column():
    told = columns([])
    assert told["count"] == 0
    assert set(map(len, told["columns"].values())) == {0}
    assert "sampled.log10_grad_act.q50" in told["columns"]

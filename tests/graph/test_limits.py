"""Every limit is reached, named and explained."""

from collections.abc import Callable
from dataclasses import fields

import numpy as np
import onnx
import pytest
from onnx import helper, numpy_helper

from gradgauge.graph import limits as limits_module
from gradgauge.graph.limits import Limits
from tests.hostile import builders as b


def annotated() -> onnx.ModelProto:
    proto = b.mlp()
    proto.metadata_props.add(key="author", value="nobody")
    proto.producer_name = "producer"
    return proto


def constant() -> list[onnx.NodeProto]:
    held = numpy_helper.from_array(np.ones((1, 4), np.float32))
    return [
        helper.make_node("Constant", [], ["k"], value=held),
        helper.make_node("Add", ["x", "k"], ["y"]),
    ]


TIGHT: list[tuple[str, int, Callable[[], onnx.ModelProto]]] = [
    ("model_bytes", 100, b.mlp),
    ("nodes", 2, b.mlp),
    ("inlined_nodes", 10, lambda: b.doubling(3)),
    ("inlined_bytes", 100, lambda: b.doubling(3)),
    ("functions", 2, lambda: b.doubling(3)),
    ("call_depth", 2, lambda: b.doubling(3)),
    ("nesting_depth", 2, lambda: b.nested_ifs(3)),
    ("graph_inputs", 0, b.mlp),
    ("graph_outputs", 0, b.mlp),
    ("input_bytes", 63, b.mlp),
    ("names", 8, b.mlp),
    ("name_bytes", 2, b.mlp),
    ("text_bytes", 5, b.mlp),
    ("metadata_entries", 0, annotated),
    ("attributes", 0, lambda: b.model(b.chain("Concat", 1, axis=0))),
    ("initializers", 2, b.mlp),
    ("rank", 1, b.mlp),
    ("tensor_bytes", 1024, b.mlp),
    ("total_tensor_bytes", 3000, b.mlp),
    ("constant_bytes", 15, lambda: b.model(constant())),
    ("densified_bytes", 31, lambda: b.sparse([2.0, 3.0], np.array([1, 6]), [2, 4])),
]
ELSEWHERE = {  # test_external.py and test_archive.py
    "external_files",
    "external_bytes",
    "external_reuse",
    "archive_members",
    "archive_directory_bytes",
    "archive_bytes",
    "archive_ratio",
}


@pytest.mark.parametrize(("name", "bound", "build"), TIGHT, ids=[row[0] for row in TIGHT])
def test_each_limit_is_named_when_it_is_reached(
    name: str, bound: int, build: Callable[[], onnx.ModelProto]
) -> None:
    proto = build()
    proto.producer_name = "producer"
    b.read(proto)
    fault = b.limited(proto, **{name: bound})
    assert fault.limit == f"{name}={bound}"
    assert name in (fault.hint or "")


def test_every_limit_is_described_and_tried() -> None:
    names = {f.name for f in fields(Limits)}
    assert set(limits_module._WHAT) == names
    assert {row[0] for row in TIGHT} | ELSEWHERE == names

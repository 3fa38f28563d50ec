"""No mutant of a sound model makes the reader do anything but read it or refuse it."""

import random
from collections import Counter
from collections.abc import Callable

import numpy as np
import onnx
import pytest
from onnx import helper, numpy_helper

from gradgauge.errors import GradgaugeError
from gradgauge.graph.read_onnx import read_onnx
from gradgauge.graph.refusals import CODES
from tests.hostile import builders as b
from tests.hostile import mutants

TIMES = 2_000


def conv() -> onnx.ModelProto:
    return b.model(
        [
            helper.make_node("Conv", ["x", "W"], ["c"], kernel_shape=[3, 3], pads=[1, 1, 1, 1]),
            helper.make_node("MaxPool", ["c"], ["p"], kernel_shape=[2, 2]),
            helper.make_node("Flatten", ["p"], ["y"]),
        ],
        inputs=[b.value("x", "N", 3, 8, 8)],
        initializers=[b.weight("W", 4, 3, 3, 3)],
    )


def sparse() -> onnx.ModelProto:
    proto = b.model([helper.make_node("Add", ["x", "s"], ["y"])])
    proto.graph.sparse_initializer.add(
        values=numpy_helper.from_array(np.ones(2, np.float32), "s"),
        indices=numpy_helper.from_array(np.array([1, 2]), "s_at"),
        dims=[1, 4],
    )
    return proto


def views() -> onnx.ModelProto:
    return b.model(
        [
            helper.make_node("Shape", ["x"], ["s"]),
            helper.make_node("Concat", ["s", "k"], ["t"], axis=0),
            helper.make_node("Expand", ["x", "t"], ["e"]),
            helper.make_node("Gather", ["e", "k"], ["y"], axis=0),
        ],
        initializers=[numpy_helper.from_array(np.array([0, 1]), "k")],
    )


SEEDS = [
    proto.SerializeToString()
    for proto in (b.mlp(8), conv(), sparse(), views(), b.doubling(3), b.nested_ifs(3), b.external())
]


@pytest.mark.timeout(60)
@pytest.mark.parametrize("mutate", [mutants.of_bytes, mutants.of_fields])
@pytest.mark.parametrize("seed", [0, 1])
def test_a_mutant_is_read_or_refused_with_a_known_code(
    mutate: Callable[[list[bytes], random.Random], bytes], seed: int
) -> None:
    rng = random.Random(seed)
    seen: Counter[str] = Counter()
    for _ in range(TIMES):
        data = mutate(SEEDS, rng)
        try:
            read_onnx(data)
            seen["read"] += 1
        except GradgaugeError as fault:
            seen[fault.code] += 1
    assert set(seen) <= {*CODES, "read", "limit_exceeded"}
    assert seen["read"] > TIMES // 50
    assert len(seen) > 8

"""Cases of ops/movement.py and ops/indexing.py."""

import numpy as np

from tests.ops.case import Case, bools, ints, normal, scalar

_X = normal(3, 4, 5)
_M = normal(2, 8, 3, 2)
_LOW = np.iinfo(np.int64).min

CASES = [
    Case("Identity", 13, (_X,)),
    Case("Reshape", 13, (_X, ints(0, -1))),
    Case("Reshape", 5, (_X, ints(5, 2, 6))),
    Case("Reshape", 14, (normal(0, 3), ints(3, 0)), {"allowzero": 1}, smooth=False),
    Case("Transpose", 13, (_X,)),
    Case("Transpose", 1, (_X,), {"perm": [1, 2, 0]}),
    Case("Flatten", 13, (_X,)),
    Case("Flatten", 11, (_X,), {"axis": -1}),
    Case("Flatten", 13, (_X,), {"axis": 0}),
    Case("Flatten", 13, (_X,), {"axis": 3}),
    Case("Squeeze", 11, (normal(1, 3, 1),), {"axes": [-1]}),
    Case("Squeeze", 11, (normal(1, 3, 1),)),
    Case("Squeeze", 13, (normal(1, 3, 1), ints(0, 2))),
    Case("Squeeze", 13, (normal(1, 3, 1),)),
    Case("Unsqueeze", 11, (_X,), {"axes": [0, 3]}),
    Case("Unsqueeze", 13, (_X, ints(-1, 1))),
    Case("Unsqueeze", 13, (_X, ints(4, 0))),
    Case("Concat", 13, (_X, normal(3, 2, 5)), {"axis": 1}),
    Case("Concat", 4, (_X, normal(3, 4, 1), normal(3, 4, 2)), {"axis": -1}),
    Case("Split", 11, (_X,), {"axis": 1, "split": [1, 3]}, outputs=2),
    Case("Split", 2, (_X,), {"axis": 1}, outputs=2),
    Case("Split", 13, (_X, ints(2, 0, 3)), {"axis": -1}, outputs=3),
    Case("Split", 13, (_X,), {"axis": 1}, outputs=4),
    Case("Split", 18, (_X,), {"axis": 2, "num_outputs": 3}, outputs=3),
    Case("Slice", 1, (_X,), {"starts": [1, -3], "ends": [9, -1], "axes": [0, 2]}),
    Case("Slice", 9, (_X,), {"starts": [0, 1], "ends": [2, 3]}),
    Case("Slice", 13, (_X, ints(0, 1), ints(3, 4))),
    Case("Slice", 13, (_X, ints(-1), ints(_LOW), ints(2), ints(-2))),
    Case("Slice", 10, (_X, ints(1, 0), ints(100, -1), ints(-1, 1), ints(2, 1))),
    Case("Slice", 13, (_X, ints(3), ints(1), ints(1)), smooth=False),
    Case("Expand", 13, (normal(3, 1), ints(2, 1, 4))),
    Case("Expand", 8, (normal(3, 4), ints(1))),
    Case("Tile", 13, (normal(2, 3), ints(2, 1))),
    Case("Tile", 6, (normal(2, 3), ints(1, 3))),
    Case("Trilu", 14, (normal(4, 3),)),
    Case("Trilu", 14, (normal(2, 3, 4), scalar(1)), {"upper": 0}),
    Case("Trilu", 14, (bools(4, 4), scalar(-1)), smooth=False),
    Case("Pad", 2, (_X,), {"pads": [0, 1, 0, 2, 0, 1], "value": 0.5}),
    Case("Pad", 2, (_X,), {"pads": [0, 1, 2, 0, 0, 1], "mode": "reflect"}),
    Case("Pad", 13, (_X, ints(0, 1, 0, 2, -1, 1))),
    Case("Pad", 13, (_X, ints(0, 1, 0, 2, 0, 1), scalar(0.5, np.float32))),
    Case("Pad", 13, (_X, ints(0, 1, 0, 2, 0, 1)), {"mode": "edge"}),
    Case("Pad", 13, (_X, ints(2, 0, 3, 0, 3, 4)), {"mode": "reflect"}, skip=(2,)),
    Case("Pad", 18, (_X, ints(1, 2), None, ints(-1)), {"mode": "reflect"}),
    Case("Pad", 19, (_X, ints(1, 2, 0, 3), None, ints(2, 0)), {"mode": "wrap"}),
    Case("DepthToSpace", 13, (_M,), {"blocksize": 2}),
    Case("DepthToSpace", 13, (_M,), {"blocksize": 2, "mode": "CRD"}),
    Case("SpaceToDepth", 13, (normal(2, 3, 4, 6),), {"blocksize": 2}),
    Case("ReverseSequence", 10, (normal(4, 3, 2), ints(4, 1, 2))),
    Case("ReverseSequence", 10, (normal(3, 4), ints(4, 1, 2)), {"batch_axis": 0, "time_axis": 1}),
    Case("Gather", 13, (_X, ints([0, -1], [2, 1]))),
    Case("Gather", 1, (_X, ints(3, 3, 0)), {"axis": 1}),
    Case("Gather", 13, (_X, scalar(-2)), {"axis": -1}),
    Case("Gather", 13, (_X, ints(1, 2, dtype=np.int32)), {"axis": 2}),
    Case("GatherElements", 13, (normal(3, 3), ints([0, -1, 2], [2, 0, 0])), {"axis": 0}),
    Case("GatherElements", 11, (normal(2, 3), ints([0, 2], [-1, 0])), {"axis": 1}),
    Case("GatherND", 13, (_X, ints([0, 1], [2, -1]))),
    Case("GatherND", 11, (_X, ints([[0, 1, 2]], [[2, 3, 4]]))),
    Case("GatherND", 12, (_X, ints([1], [0], [3])), {"batch_dims": 1}),
    Case("ScatterElements", 13, (normal(3, 3), ints([0, 2, -2]), normal(1, 3)), {"axis": 0}),
    *(
        Case(
            "ScatterElements",
            18,
            (normal(3, 3), ints([0, 2, 0]), normal(1, 3)),
            {"axis": 1, "reduction": reduction},
        )
        for reduction in ("add", "mul", "max", "min")
    ),
    Case("Scatter", 9, (normal(3, 3), ints([0, 2, 1]), normal(1, 3)), {"axis": 1}),
    Case("ScatterND", 13, (_X, ints([0, 1], [2, -1]), normal(2, 5))),
    *(
        Case(
            "ScatterND",
            18,
            (_X, ints([[0], [2]], [[0], [1]]), normal(2, 2, 4, 5)),
            {"reduction": reduction},
        )
        for reduction in ("add", "mul", "max", "min")
    ),
    Case("OneHot", 11, (ints(0, 3, -1, 7), scalar(4), normal(2))),
    Case("OneHot", 9, (ints([0, 1], [2, -3]), scalar(3), normal(2)), {"axis": 0}),
    Case("OneHot", 11, (ints([0, 1], [2, -3]), scalar(3), normal(2)), {"axis": 1}),
]

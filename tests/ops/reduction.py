"""Cases of ops/reduction.py."""

import numpy as np

from tests.ops.case import Case, bools, ints, normal, scalar, uniform

_X = normal(3, 4, 5)
_FOLDS = ("L1", "L2", "LogSumExp", "Max", "Mean", "Min", "Prod", "Sum", "SumSquare", "LogSum")
_TIED = np.array([[1, 3, 3, 2], [0, 0, 5, 5]], np.float32)


def _data(fold: str) -> np.ndarray:
    return uniform(0.5, 2, 3, 4, 5) if fold == "LogSum" else _X


CASES = [
    *(Case(f"Reduce{f}", 11, (_data(f),), {"axes": [1]}) for f in _FOLDS),
    *(Case(f"Reduce{f}", 11, (_data(f),), {"axes": [0, -1], "keepdims": 0}) for f in _FOLDS),
    *(Case(f"Reduce{f}", 11, (_data(f),)) for f in _FOLDS),
    *(Case(f"Reduce{f}", 18, (_data(f), ints(1, 2))) for f in _FOLDS),
    *(Case(f"Reduce{f}", 18, (_data(f), ints(-1)), {"keepdims": 0}) for f in _FOLDS),
    *(Case(f"Reduce{f}", 18, (_data(f),), {"keepdims": 0}) for f in _FOLDS),
    *(
        Case(f"Reduce{f}", 18, (_data(f),), {"noop_with_empty_axes": 1})
        for f in ("Max", "Mean", "Min", "Prod", "Sum")
    ),
    *(
        Case(f"Reduce{f}", 18, (_data(f),), {"noop_with_empty_axes": 1}, oracle="reference")
        for f in ("SumSquare", "L1")
    ),
    Case("ReduceSum", 13, (_X, ints(0)), {"keepdims": 0}),
    *(
        Case(f"Reduce{f}", 18, (ints([1, 2, 5], [3, -4, 2]), ints(1)), smooth=False)
        for f in ("Sum", "Max", "Min", "Prod", "L1", "SumSquare")
    ),
    Case(
        "ReduceMean",
        18,
        (ints([1, 2, 5], [3, -4, 2], dtype=np.int32), ints(1)),
        smooth=False,
    ),
    Case("ReduceMax", 20, (bools(3, 4), ints(1)), smooth=False),
    *(Case(n, 13, (_X,), smooth=False) for n in ("ArgMax", "ArgMin")),
    *(
        Case(n, 13, (_TIED,), {"axis": 1, "keepdims": 0, "select_last_index": last}, smooth=False)
        for n in ("ArgMax", "ArgMin")
        for last in (0, 1)
    ),
    Case("CumSum", 14, (_X, scalar(1))),
    Case("CumSum", 11, (_X, scalar(-1)), {"reverse": 1}),
    Case("CumSum", 14, (_X, scalar(0)), {"exclusive": 1}),
    Case("CumSum", 14, (_X, scalar(2)), {"exclusive": 1, "reverse": 1}),
    Case("CumSum", 14, (ints(1, 2, 3), scalar(0)), smooth=False),
    Case("TopK", 11, (_X, ints(2)), outputs=2),
    Case("TopK", 10, (_X, ints(3)), {"axis": 1}, outputs=2),
    Case("TopK", 11, (_TIED, ints(2)), {"largest": 0, "axis": -1}, outputs=2, smooth=False),
]

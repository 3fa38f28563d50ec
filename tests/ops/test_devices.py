"""Ops off the CPU, as far as that shows without one: on torch's meta device no op mixes devices.

Ops that read numbers (shapes, axes) stop there, since meta tensors hold none; tests/gpu goes on.
"""

import pytest
import torch

from tests.ops.case import Case, fed
from tests.ops.test_table import CASES

_PLAIN = [
    case
    for case in CASES
    if not case.around
    and case.row is not None
    and all(x is None or (not isinstance(x, list) and x.dtype != object) for x in case.inputs)
    and not any(hasattr(v, "node") for v in case.attributes.values())
]


def _runs(case: Case) -> bool:
    inputs = [fed(x) if x is not None else None for x in case.inputs]
    moved = [x.to("meta") if isinstance(x, torch.Tensor) else x for x in inputs]
    elements = {"to", "dtype", "output_dtype"}  # the executor turns these into torch's
    settings = {k: v for k, v in case.attributes.items() if k not in elements}
    try:
        case.row.run(*moved, **settings)
    except (RuntimeError, TypeError, ValueError, AttributeError) as fault:
        if "expected device" in str(fault):
            raise
        return False
    return True


@pytest.mark.parametrize("op", sorted({case.op for case in _PLAIN}))
def test_no_op_mixes_devices(op):
    for case in _PLAIN:
        if case.op == op:
            _runs(case)


def test_most_cases_run_to_their_end_on_meta():
    assert sum(_runs(case) for case in _PLAIN) > len(_PLAIN) / 2

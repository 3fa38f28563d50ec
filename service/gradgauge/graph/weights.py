"""What a weight's values deserve a warning for: non-finite, huge, denormal, narrow, none at all."""

from collections.abc import Iterator

import numpy as np
import onnx

from gradgauge.graph.elements import ELEMENTS
from gradgauge.graph.tally import Tally

HUGE = 1e30
_CHECKED = 1 << 26  # elements in all; beyond it values go unread
_CHUNK = 1 << 20
_DTYPES: dict[int, np.dtype[np.floating]] = {
    1: np.dtype("<f4"),
    10: np.dtype("<f2"),
    11: np.dtype("<f8"),
}


def notice_values(tensor: onnx.TensorProto, data: memoryview | None, tally: Tally) -> None:
    """Keep warnings on one initializer's values, read through views, chunk by chunk."""
    element = ELEMENTS[tensor.data_type]
    if 0 in tensor.dims:
        tally.notice("W_ZERO_SIZE_TENSOR", tensor.name)
    if element.floating and element.bits < 16:
        tally.notice("W_LOW_PRECISION_WEIGHTS", tensor.name)
    dtype = _DTYPES.get(tensor.data_type)
    if dtype is None or data is None or not tensor.dims:
        return
    values = np.frombuffer(data, dtype)
    tally.used["values read"] += values.size
    if tally.used["values read"] <= _CHECKED:
        for code in sorted(set(_codes(values))):
            tally.notice(code, tensor.name)


def _codes(values: np.ndarray) -> Iterator[str]:
    tiny = np.finfo(values.dtype).tiny
    for start in range(0, values.size, _CHUNK):
        size = np.abs(values[start : start + _CHUNK])
        largest = float(size.max())
        if not np.isfinite(largest):
            yield "W_NONFINITE_WEIGHTS"
        elif largest > HUGE:
            yield "W_HUGE_WEIGHTS"
        below = size < tiny
        # Half precision reaches its denormals at 6e-5, where ordinary weights lie.
        if values.dtype.itemsize > 2 and np.count_nonzero(below) > np.count_nonzero(size == 0):
            yield "W_DENORMAL_WEIGHTS"

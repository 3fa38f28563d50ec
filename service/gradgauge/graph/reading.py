"""How a graph is to be read: what feeds its inputs, and whose statistics its norms use."""

import math
from collections.abc import Mapping
from dataclasses import dataclass
from typing import Literal

import numpy as np
import onnx_ir

from gradgauge.errors import InvalidOptions

SEQUENCE = 16  # a dynamic axis that is not the batch: tokens, steps
SPATIAL = 32  # a dynamic height or width of an image


@dataclass(frozen=True, slots=True)
class InputPlan:
    """The law one graph input is drawn from.

    `shape` has None at the batch axis (None at most once); `batch_axis` is its position, or None
    where the graph fixes every axis, and then one draw is one input. For `integers`, `low`
    (inclusive) and `high` (exclusive); for the others `mean` and `scale` (standard deviation).
    """

    name: str
    kind: Literal["normal", "uniform", "integers", "ones", "data"]
    shape: tuple[int | None, ...]
    dtype: onnx_ir.DataType
    batch_axis: int | None
    mean: float = 0.0
    scale: float = 1.0
    low: int = 0
    high: int = 2
    data: np.ndarray | None = None


@dataclass(frozen=True, slots=True)
class Reading:
    """Both engines take the same one, so that they speak of the same network.

    `batch_statistics`: BatchNormalization normalises by the batch's own mean and variance.
    """

    inputs: Mapping[str, InputPlan]
    batch_statistics: bool
    warnings: tuple[tuple[str, str], ...] = ()



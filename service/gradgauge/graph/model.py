"""The checked graph: what every reader returns and everything downstream takes."""

from collections.abc import Mapping
from dataclasses import dataclass, field
from typing import Literal

import onnx_ir

from gradgauge.graph.init import Law
from gradgauge.schema.spec import ArchSpec


@dataclass(frozen=True, slots=True)
class GraphWarning:
    """Something the reader repaired or assumed, for the report's `warnings`."""

    code: str
    message: str


@dataclass(frozen=True, slots=True)
class Graph:
    """One validated model and where it came from.

    `model` is topologically sorted, shape-inferred as far as ONNX can, its model-local functions
    inlined; every node has a unique non-empty name. `laws` maps an initializer's name to the law it
    was drawn from (of specs, and of graphs drawn anew), `spec` is what it was built from. `sha256`
    is of the bytes as given.
    """

    model: onnx_ir.Model
    name: str
    format: Literal["onnx", "spec"]
    sha256: str
    size_bytes: int
    laws: Mapping[str, Law] = field(default_factory=dict)
    warnings: tuple[GraphWarning, ...] = ()
    spec: ArchSpec | None = None

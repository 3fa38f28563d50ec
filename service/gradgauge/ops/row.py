"""One row of the op table, and how a torch function becomes one."""

from collections.abc import Callable, Mapping
from dataclasses import dataclass
from typing import Any, Literal, TypeVar

from torch import Tensor

Kind = Literal[
    "pointwise",
    "binary",
    "linear",
    "normalisation",
    "movement",
    "pooling",
    "reduction",
    "contraction",
    "recurrent",
    "plumbing",
]
Result = Tensor | tuple[Tensor, ...]
Run = Callable[..., Result]
RunT = TypeVar("RunT", bound=Callable[..., Any])  # wider than Run: sequences and arrays


@dataclass(frozen=True, slots=True)
class Row:
    """An ONNX op from opset `since` on, until a row of the same name with a later `since`.

    `run(*inputs, **attributes)` takes the node's inputs in order (None where an optional one is
    absent) and its attributes by their ONNX names, and returns the outputs in order: a Tensor where
    there is one, a tuple otherwise. A sequence is a list, an absent optional None, and an array of
    strings, int2, uint2, int4, uint4 or float4 numpy's. Subgraphs arrive as functions from their
    inputs to the list of their outputs. Element types among the attributes (`to`, `dtype`) arrive
    as torch dtypes, tensors as Tensors. A `run` with a keyword `n_outputs` is told how many outputs
    the node has. It is differentiable wherever the op is, computes in its inputs' dtype and on
    their device, and changes no input.

    Raises (from `run`): RuntimeError, IndexError, ValueError, TypeError or ArithmeticError where
    the inputs do not fit the op; the executor names the node.
    """

    name: str
    domain: str
    kind: Kind
    since: int
    run: Run


ROWS: dict[tuple[str, str], dict[int, Row]] = {}


def op(
    kind: Kind, *, since: int = 1, domain: str = "", name: str | None = None
) -> Callable[[RunT], RunT]:
    """Register the decorated function as an op; its own name is the op's unless `name` is given."""

    def register(run: RunT) -> RunT:
        _add(Row(name or run.__name__, domain, kind, since, run))
        return run

    return register


def plain(kind: Kind, runs: Mapping[str, Run], *, since: int = 1) -> None:
    """Register ops without attributes that some torch function already is."""
    for name, run in runs.items():
        _add(Row(name, "", kind, since, run))


def _add(row: Row) -> None:
    versions = ROWS.setdefault((row.domain, row.name), {})
    if row.since in versions:
        raise ValueError(f"{row.domain}::{row.name} since opset {row.since} is registered twice")
    versions[row.since] = row

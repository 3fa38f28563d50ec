"""If, Loop, Scan and SequenceMap: subgraphs arrive as functions of their inputs."""

from collections.abc import Callable, Sequence
from typing import Any

import torch
from torch import Tensor

from gradgauge.ops.row import op

Branch = Callable[..., list[Any]]


@op("plumbing")
def If(cond: Tensor, *, then_branch: Branch, else_branch: Branch) -> tuple[Any, ...]:
    return tuple(then_branch() if bool(cond) else else_branch())


@op("plumbing")
def Loop(
    trips: Tensor | None = None,
    cond: Tensor | None = None,
    *carried: Any,
    body: Branch,
    n_outputs: int,
) -> tuple[Any, ...]:
    """Carried values first, then what each trip adds, stacked along a new first axis.

    A loop that makes no trip has nothing to tell a scan output's shape from: it is empty.
    """
    state = list(carried)
    goes_on = torch.tensor(True) if cond is None else cond  # noqa: FBT003 - a value
    limit = None if trips is None else int(trips)
    gathered: list[list[Tensor]] = [[] for _ in range(n_outputs - len(state))]
    trip = 0
    while bool(goes_on) and (limit is None or trip < limit):
        made = body(torch.tensor(trip), goes_on, *state)
        if cond is not None or limit is None:
            goes_on = made[0]
        state, added = made[1 : 1 + len(state)], made[1 + len(state) :]
        for column, value in zip(gathered, added, strict=True):
            column.append(value)
        trip += 1
    return *state, *(torch.stack(column) if column else torch.zeros(0) for column in gathered)


@op("plumbing", name="Scan", since=8)
def Scan_8(
    lengths: Tensor | None,
    *inputs: Tensor,
    body: Branch,
    num_scan_inputs: int,
    directions: Sequence[int] | None = None,
    n_outputs: int,
) -> tuple[Tensor, ...]:
    """Batched: every input's first axis is the batch, scanned inputs' second the sequence.

    A sequence shorter than the longest is followed by zeros in the scan outputs.
    """
    steps = inputs[-1].shape[1]
    rows = []
    for entry in range(inputs[0].shape[0]):
        long = steps if lengths is None else int(lengths[entry])
        given = [x[entry] for x in inputs]
        cut = len(given) - num_scan_inputs
        given[cut:] = [x[:long] for x in given[cut:]]
        made = Scan(
            *given,
            body=body,
            num_scan_inputs=num_scan_inputs,
            scan_input_directions=directions,
            n_outputs=n_outputs,
        )
        grown = [_grown(y, steps) for y in made[cut:]]
        rows.append((*made[:cut], *grown))
    return tuple(torch.stack(column) for column in zip(*rows, strict=True))


def _grown(y: Tensor, steps: int) -> Tensor:
    return torch.cat((y, y.new_zeros(steps - y.shape[0], *y.shape[1:])))


@op("plumbing", since=9)
def Scan(
    *inputs: Tensor,
    body: Branch,
    num_scan_inputs: int,
    scan_input_axes: Sequence[int] | None = None,
    scan_input_directions: Sequence[int] | None = None,
    scan_output_axes: Sequence[int] | None = None,
    scan_output_directions: Sequence[int] | None = None,
    n_outputs: int,
) -> tuple[Tensor, ...]:
    """States first, then the scanned inputs; the outputs likewise (ONNX Scan-9)."""
    carried = len(inputs) - num_scan_inputs
    state: list[Tensor] = list(inputs[:carried])
    axes = scan_input_axes or [0] * num_scan_inputs
    backwards = scan_input_directions or [0] * num_scan_inputs
    columns = [
        list(reversed(x.unbind(axis))) if back else list(x.unbind(axis))
        for x, axis, back in zip(inputs[carried:], axes, backwards, strict=True)
    ]
    scanned = n_outputs - carried
    gathered: list[list[Tensor]] = [[] for _ in range(scanned)]
    for items in zip(*columns, strict=True):
        made = body(*state, *items)
        state = made[:carried]
        for column, value in zip(gathered, made[carried:], strict=True):
            column.append(value)
    ends = zip(
        gathered,
        scan_output_axes or [0] * scanned,
        scan_output_directions or [0] * scanned,
        strict=True,
    )
    return *state, *(_joined(column, axis, back) for column, axis, back in ends)


def _joined(column: list[Tensor], axis: int, backwards: int) -> Tensor:
    return torch.stack(column[::-1] if backwards else column, axis) if column else torch.zeros(0)


@op("plumbing", since=17)
def SequenceMap(
    sequence: list[Tensor], *others: Tensor | list[Tensor], body: Branch, n_outputs: int
) -> tuple[list[Tensor], ...]:
    """Other sequences go along element by element, tensors go to every call as they are."""
    made = [
        body(x, *(o[k] if isinstance(o, list) else o for o in others))
        for k, x in enumerate(sequence)
    ]
    return tuple([row[k] for row in made] for k in range(n_outputs))

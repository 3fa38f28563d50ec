"""RNN, GRU and LSTM over time, by torch's fused kernels where they say the same thing."""

from collections.abc import Callable, Sequence
from contextvars import ContextVar
from dataclasses import dataclass
from functools import partial

import torch
from torch import Tensor
from torch.nn import functional

from gradgauge.ops import cells, tangents
from gradgauge.ops.cells import Cell, Direction, State
from gradgauge.ops.row import Result, Run, op

# told of each direction: its states in the order the steps are gone through, the sequences' lengths
Note = Callable[[list[State], Tensor | None], None]
Scan = Callable[[Tensor, State, Tensor | None, Direction, Cell], State]
_SCAN: ContextVar[Scan | None] = ContextVar("scan", default=None)


def stepwise(run: Run, note: Note) -> Run:
    """One of these ops without fused kernels, all of whose states stand in autograd's graph."""
    return _by(run, partial(_scan, note=note))


def linearised(run: Run) -> Run:
    """One of these ops, whose VJP and the VJP's own derivative are cheap.

    No gradient arrives at its recurrent weights.
    """
    return _by(run, _linear_scan)


def _by(run: Run, scan: Scan) -> Run:
    def scanning(*inputs: Tensor | None, **attributes: object) -> Result:
        token = _SCAN.set(scan)
        try:
            return run(*inputs, **attributes)
        finally:
            _SCAN.reset(token)

    return scanning


def _linear_scan(
    x: Tensor, state: State, lengths: Tensor | None, d: Direction, cell: Cell
) -> State:
    if lengths is not None or cell is cells.gru_cell or not len(x):
        return _scan(x, state, lengths, d, cell)
    return tangents.steps(functional.linear(x, d.w, d.wb), state, cell, d)


def _scan(
    x: Tensor,
    state: State,
    lengths: Tensor | None,
    d: Direction,
    cell: Cell,
    note: Note | None = None,
) -> State:
    """The generic loop: outputs [t, n, h] and the last states [n, h].

    Past its length a sequence keeps its state and outputs zeros.
    """
    outputs, states = [], []
    # taken apart at once: the gradient of each step by itself is as large as all of them
    for t, step in enumerate(functional.linear(x, d.w, d.wb).unbind(0)):
        new = cell(step, state, d)
        if lengths is None:
            state = new
            outputs.append(new[0])
        else:
            alive = (t < lengths).unsqueeze(1)
            state = tuple(torch.where(alive, n, s) for n, s in zip(new, state, strict=True))
            outputs.append(torch.where(alive, new[0], torch.zeros_like(new[0])))
        states.append(state)
    if note is not None:
        note(states, lengths)
    return (torch.stack(outputs) if outputs else x.new_zeros(0, *state[0].shape)), *state


_KERNELS: dict[str, Callable[..., tuple[Tensor, ...]]] = {
    "relu": torch.rnn_relu,
    "tanh": torch.rnn_tanh,
    "gru": torch.gru,
    "lstm": torch.lstm,
}
_ONE_WAY = (False, False, False)  # training, bidirectional, batch first
# torch orders the gates r, z, n and i, f, g, o; ONNX z, r, h and i, o, f, c
_ORDER = {"relu": (0,), "tanh": (0,), "gru": (1, 0, 2), "lstm": (0, 2, 3, 1)}


def _kernel(d: Direction, lengths: Tensor | None, kind: str) -> str | None:
    """Torch's fused kernel for this node, if its options are the ones torch has."""
    names = tuple(n.lower() for n in d.names)
    if lengths is not None or d.clip is not None or d.p is not None or d.input_forget:
        return None
    if kind == "rnn":
        return names[0] if names[0] in {"relu", "tanh"} else None
    if kind == "gru":
        return kind if d.linear_before_reset and names == ("sigmoid", "tanh") else None
    return kind if names == ("sigmoid", "tanh", "tanh") else None


def _fused(x: Tensor, state: State, d: Direction, kernel: str) -> State:
    def ordered(v: Tensor) -> Tensor:
        parts = v.chunk(len(_ORDER[kernel]))
        return v if len(parts) == 1 else torch.cat([parts[i] for i in _ORDER[kernel]])

    held = (d.w, d.r) if d.wb is None or d.rb is None else (d.w, d.r, d.wb, d.rb)
    first = tuple(s.unsqueeze(0) for s in state)
    y, *last = _KERNELS[kernel](
        x,
        first if kernel == "lstm" else first[0],
        [ordered(v) for v in held],
        len(held) == 4,
        1,  # layers
        0.0,  # dropout between them
        *_ONE_WAY,
    )
    return y, *(s.squeeze(0) for s in last)


def _reversed(x: Tensor, lengths: Tensor | None) -> Tensor:
    """Time runs backwards within each sequence's own length."""
    if lengths is None:
        return x.flip(0)
    at = torch.arange(x.shape[0], device=x.device).unsqueeze(1)
    index = torch.where(at < lengths, lengths - 1 - at, at)
    return x[index, torch.arange(x.shape[1], device=x.device)]


@dataclass(frozen=True, slots=True)
class _Kind:
    name: str
    gates: int
    states: int
    cell: Cell
    default: tuple[str, ...]


_RNN = _Kind("rnn", 1, 1, cells.rnn_cell, ("Tanh",))
_GRU = _Kind("gru", 3, 1, cells.gru_cell, ("Sigmoid", "Tanh"))
_LSTM = _Kind("lstm", 4, 2, cells.lstm_cell, ("Sigmoid", "Tanh", "Tanh"))


@dataclass(frozen=True, slots=True)
class _Options:
    """The attributes the three nodes share."""

    activation_alpha: Sequence[float] = ()
    activation_beta: Sequence[float] = ()
    activations: Sequence[str] | None = None
    clip: float | None = None
    direction: str = "forward"
    hidden_size: int | None = None
    layout: int = 0
    linear_before_reset: int = 0
    input_forget: int = 0


def _directions(
    w: Tensor, r: Tensor, b: Tensor | None, p: Tensor | None, kind: _Kind, options: _Options
) -> list[Direction]:
    names = tuple(options.activations or kind.default * w.shape[0])
    functions = cells.activations(names, options.activation_alpha, options.activation_beta)
    each = len(kind.default)
    found = []
    for k in range(w.shape[0]):
        wb, rb = (None, None) if b is None else b[k].chunk(2)
        mine = slice(k * each, (k + 1) * each)
        found.append(
            Direction(
                w[k],
                r[k],
                wb,
                rb,
                None if p is None else p[k],
                names[mine],
                functions[mine],
                options.clip,
                bool(options.linear_before_reset),
                bool(options.input_forget),
            )
        )
    return found


def _refuse_misfits(
    x: Tensor,
    weights: tuple[Tensor, Tensor, Tensor | None, Tensor | None],
    lengths: Tensor | None,
    initial: Sequence[Tensor | None],
    kind: _Kind,
    options: _Options,
) -> None:
    """Raise ValueError for shapes that disagree: torch's kernels read them without looking."""
    w, r, b, p = weights
    ways, gates, hidden = w.shape[0], kind.gates, r.shape[-1]
    batch, features = x.shape[1:]
    wanted: list[tuple[str, Tensor | None, tuple[int, ...]]] = [
        ("W", w, (ways, gates * hidden, features)),
        ("R", r, (ways, gates * hidden, hidden)),
        ("B", b, (ways, 2 * gates * hidden)),
        ("P", p, (ways, 3 * hidden)),
        ("sequence_lens", lengths, (batch,)),
        *(("an initial state", s, (ways, batch, hidden)) for s in initial),
    ]
    for name, given, shape in wanted:
        if given is not None and tuple(given.shape) != shape:
            raise ValueError(f"{name} has shape {list(given.shape)} where {list(shape)} fits")
    if options.hidden_size not in {None, hidden}:
        raise ValueError(f"hidden_size={options.hidden_size}, and R is for {hidden}")


def _run(
    x: Tensor,
    weights: tuple[Tensor, Tensor, Tensor | None, Tensor | None],
    lengths: Tensor | None,
    initial: Sequence[Tensor | None],
    kind: _Kind,
    options: _Options,
) -> tuple[Tensor, ...]:
    """Y [t, directions, n, h] and last states [directions, n, h]; `layout` 1 puts n first."""
    if options.layout:
        x = x.transpose(0, 1)
        initial = [None if s is None else s.transpose(0, 1) for s in initial]
    _refuse_misfits(x, weights, lengths, initial, kind, options)
    directions = _directions(*weights, kind, options)
    zeros = x.new_zeros(len(directions), x.shape[1], weights[1].shape[-1])
    starts = [zeros if s is None else s for s in initial]
    results = []
    for k, d in enumerate(directions):
        backwards = k == 1 or options.direction == "reverse"
        state = tuple(s[k] for s in starts)
        kernel = _kernel(d, lengths, kind.name)
        there = _reversed(x, lengths) if backwards else x
        scan = _SCAN.get()
        if scan is None and kernel is not None and x.shape[0] > 0:
            y, *last = _fused(there, state, d, kernel)
        else:
            y, *last = (scan or _scan)(there, state, lengths, d, kind.cell)
        results.append((_reversed(y, lengths) if backwards else y, *last))
    ys, *states = zip(*results, strict=True)
    if options.layout:
        return _stacked(ys, 2).transpose(0, 1), *(_stacked(s, 1) for s in states)
    return _stacked(ys, 1), *(_stacked(s, 0) for s in states)


def _stacked(parts: Sequence[Tensor], axis: int) -> Tensor:
    """Directions side by side; one alone is not copied."""
    return parts[0].unsqueeze(axis) if len(parts) == 1 else torch.stack(list(parts), axis)


@op("recurrent", since=7)
def RNN(
    x: Tensor,
    w: Tensor,
    r: Tensor,
    b: Tensor | None = None,
    sequence_lens: Tensor | None = None,
    initial_h: Tensor | None = None,
    *,
    activation_alpha: Sequence[float] = (),
    activation_beta: Sequence[float] = (),
    activations: Sequence[str] | None = None,
    clip: float | None = None,
    direction: str = "forward",
    hidden_size: int | None = None,
    layout: int = 0,
) -> tuple[Tensor, ...]:
    options = _Options(
        activation_alpha, activation_beta, activations, clip, direction, hidden_size, layout
    )
    return _run(x, (w, r, b, None), sequence_lens, [initial_h], _RNN, options)


@op("recurrent", since=7)
def GRU(
    x: Tensor,
    w: Tensor,
    r: Tensor,
    b: Tensor | None = None,
    sequence_lens: Tensor | None = None,
    initial_h: Tensor | None = None,
    *,
    activation_alpha: Sequence[float] = (),
    activation_beta: Sequence[float] = (),
    activations: Sequence[str] | None = None,
    clip: float | None = None,
    direction: str = "forward",
    hidden_size: int | None = None,
    layout: int = 0,
    linear_before_reset: int = 0,
) -> tuple[Tensor, ...]:
    options = _Options(
        activation_alpha,
        activation_beta,
        activations,
        clip,
        direction,
        hidden_size,
        layout,
        linear_before_reset,
    )
    return _run(x, (w, r, b, None), sequence_lens, [initial_h], _GRU, options)


@op("recurrent", since=7)
def LSTM(
    x: Tensor,
    w: Tensor,
    r: Tensor,
    b: Tensor | None = None,
    sequence_lens: Tensor | None = None,
    initial_h: Tensor | None = None,
    initial_c: Tensor | None = None,
    p: Tensor | None = None,
    *,
    activation_alpha: Sequence[float] = (),
    activation_beta: Sequence[float] = (),
    activations: Sequence[str] | None = None,
    clip: float | None = None,
    direction: str = "forward",
    hidden_size: int | None = None,
    input_forget: int = 0,
    layout: int = 0,
) -> tuple[Tensor, ...]:
    options = _Options(
        activation_alpha,
        activation_beta,
        activations,
        clip,
        direction,
        hidden_size,
        layout,
        0,
        input_forget,
    )
    return _run(x, (w, r, b, p), sequence_lens, [initial_h, initial_c], _LSTM, options)

"""The networks in torch, several runs of one network stacked: run r trains with its own rate."""

import math

import torch
from benchmarks.trainability.nets import GATES, Value
from benchmarks.trainability.weights import Weights
from torch import Tensor
from torch.nn import functional

ACTS = {
    "relu": functional.relu,
    "tanh": torch.tanh,
    "sigmoid": torch.sigmoid,
    "gelu": functional.gelu,
    "leaky": functional.leaky_relu,
    "swish": functional.silu,
    "selu": functional.selu,
    "linear": lambda x: x,
}
EPS = 1e-5


class Stacked:
    """The tape of `runs` networks at once.

    Vectors are `[runs, batch, ...]`; maps `[batch, runs * channels, 8, 8]`, so that one grouped
    convolution serves all runs.
    """

    def __init__(self, params: dict[str, Tensor], frozen: Weights, runs: int) -> None:
        self.params = params
        self.frozen = {k: torch.from_numpy(v) for k, v in frozen.items()}
        self.runs = runs

    def dense(self, x: Tensor, name: str, size_in: int, size_out: int) -> Tensor:
        w, b = self.params[f"{name}.W"], self.params[f"{name}.b"]
        flat = x.reshape(self.runs, -1, size_in)
        y = torch.baddbmm(b.unsqueeze(1), flat, w.transpose(1, 2))
        return y.view(*x.shape[:-1], size_out)

    def conv(self, x: Tensor, name: str, size_in: int, _size_out: int) -> Tensor:
        w, b = self.params[f"{name}.W"], self.params[f"{name}.b"]
        w = w.reshape(-1, size_in, 3, 3)
        return functional.conv2d(x, w, b.reshape(-1), padding=1, groups=self.runs)

    def act(self, x: Tensor, kind: str) -> Tensor:
        return ACTS[kind](x)

    def batch_norm(self, x: Tensor, name: str, size: int) -> Tensor:
        maps = x.ndim == 4
        g, b = self.params[f"{name}.g"], self.params[f"{name}.b"]
        if not maps:
            x = x.transpose(0, 1).reshape(x.shape[1], -1)
        mean, var, frozen = None, None, f"{name}.mean" in self.frozen
        if frozen:
            mean = self.frozen[f"{name}.mean"].repeat(self.runs)
            var = self.frozen[f"{name}.var"].repeat(self.runs)
        y = functional.batch_norm(x, mean, var, g.reshape(-1), b.reshape(-1), not frozen, 0.0, EPS)
        return y if maps else y.view(len(y), self.runs, size).transpose(0, 1)

    def layer_norm(self, x: Tensor, name: str, size: int) -> Tensor:
        shape = (self.runs, *(1,) * (x.ndim - 2), size)
        g, b = self.params[f"{name}.g"].view(shape), self.params[f"{name}.b"].view(shape)
        return functional.layer_norm(x, (size,), eps=EPS) * g + b

    def add(self, x: Tensor, y: Tensor) -> Tensor:
        return x + y

    def scaled(self, x: Tensor, factor: float) -> Tensor:
        return x * factor

    def gated(self, x: Tensor, name: str) -> Tensor:
        a = self.params[f"{name}.a"]
        if x.ndim == 4 and x.shape[0] != self.runs:
            return x * a.expand(-1, x.shape[1] // self.runs).reshape(1, -1, 1, 1)
        return x * a.view(self.runs, *(1,) * (x.ndim - 1))

    def placed(self, x: Tensor, name: str, _steps: int, _size: int) -> Tensor:
        return x + self.params[f"{name}.P"].unsqueeze(1)

    def average(self, x: Tensor) -> Tensor:
        """Over positions of maps, or over tokens; afterwards `[runs, batch, channels]`."""
        if x.shape[0] == self.runs and x.ndim == 4 and x.shape[2] == 8 and x.shape[1] != self.runs:
            return x.mean(2)
        return x.mean((2, 3)).view(len(x), self.runs, -1).transpose(0, 1)

    def half(self, x: Tensor) -> Tensor:
        return functional.avg_pool2d(x, 2)

    def flat(self, x: Tensor) -> Tensor:
        return x.reshape(len(x), self.runs, -1).transpose(0, 1)

    def attend(self, q: Tensor, k: Tensor, v: Tensor, heads: int, size: int) -> Tensor:
        def split(x: Tensor) -> Tensor:
            return x.view(*x.shape[:-1], heads, size // heads).transpose(-2, -3)

        q, k, v = split(q), split(k), split(v)
        a = torch.softmax(q @ k.transpose(-1, -2) / math.sqrt(size // heads), -1)
        return (a @ v).transpose(-2, -3).reshape(*v.shape[:2], v.shape[-2], size)

    def recur(self, x: Tensor, name: str, cell: str, size_in: int, size: int) -> Tensor:
        """Torch's cells; the last state."""
        own = [self.params[f"{name}.{part}"] for part in ("W", "R", "b", "c")]
        w, r, b, c = own
        steps, rows = x.shape[2], GATES[cell] * size
        u = torch.baddbmm(b.unsqueeze(1), x.reshape(self.runs, -1, size_in), w.transpose(1, 2))
        seen = u.view(self.runs, -1, steps, rows).unbind(2)
        step = {"lstm": _lstm, "gru": _gru, "rnn_tanh": _tanh, "rnn_relu": _relu}[cell]
        zero = torch.zeros(self.runs, x.shape[1], size)
        state = (zero, zero)
        turned, c = r.transpose(1, 2), c.unsqueeze(1)
        for one in seen:
            state = step(one, torch.baddbmm(c, state[0], turned), state)
        return state[0]


State = tuple[Tensor, Tensor]


def _lstm(u: Tensor, v: Tensor, state: State) -> State:
    gates = (u + v).chunk(4, -1)
    i, f, o = torch.sigmoid(gates[0]), torch.sigmoid(gates[1]), torch.sigmoid(gates[3])
    cell = f * state[1] + i * torch.tanh(gates[2])
    return o * torch.tanh(cell), cell


def _gru(u: Tensor, v: Tensor, state: State) -> State:
    ur, uz, un = u.chunk(3, -1)
    vr, vz, vn = v.chunk(3, -1)
    z = torch.sigmoid(uz + vz)
    new = torch.tanh(un + torch.sigmoid(ur + vr) * vn)
    return new + z * (state[0] - new), state[1]


def _tanh(u: Tensor, v: Tensor, state: State) -> State:
    return torch.tanh(u + v), state[1]


def _relu(u: Tensor, v: Tensor, state: State) -> State:
    return torch.relu(u + v), state[1]


def fed(x: Tensor, family: str, runs: int, copies: int) -> Value:
    """One batch per data order (`[orders, batch, ...]`), each to `copies` runs."""
    if family in {"cnn", "rescnn"}:
        return x.transpose(0, 1)[:, :, 0].repeat_interleave(copies, 1)
    return x.repeat_interleave(copies, 0) if len(x) > 1 else x.expand(runs, *x.shape[1:])

"""The networks' forward passes, written once against a tape: shapes, torch or ONNX."""

import math
from typing import Any, Protocol

from benchmarks.trainability.data import FEATURES, outputs
from benchmarks.trainability.specs import Spec

Value = Any


class Tape(Protocol):
    """What a forward pass is made of; `name` is the layer's, its parameters `name.W`, `name.b`."""

    def dense(self, x: Value, name: str, size_in: int, size_out: int) -> Value: ...
    def conv(self, x: Value, name: str, size_in: int, size_out: int) -> Value: ...
    def act(self, x: Value, kind: str) -> Value: ...
    def batch_norm(self, x: Value, name: str, size: int) -> Value: ...
    def layer_norm(self, x: Value, name: str, size: int) -> Value: ...
    def add(self, x: Value, y: Value) -> Value: ...
    def scaled(self, x: Value, factor: float) -> Value: ...
    def gated(self, x: Value, name: str) -> Value: ...
    def placed(self, x: Value, name: str, steps: int, size: int) -> Value: ...
    def average(self, x: Value) -> Value: ...
    def half(self, x: Value) -> Value: ...
    def flat(self, x: Value) -> Value: ...
    def attend(self, q: Value, k: Value, v: Value, heads: int, size: int) -> Value: ...
    def recur(self, x: Value, name: str, cell: str, size_in: int, size: int) -> Value: ...


def forward(spec: Spec, tape: Tape, x: Value) -> Value:
    """The logits (or the regressed value) of a batch."""
    return _FORWARD[spec["family"]](spec, tape, x)


def _norm(spec: Spec, tape: Tape, x: Value, name: str) -> Value:
    if spec["norm"] == "none":
        return x
    norm = tape.batch_norm if spec["norm"] == "bn" else tape.layer_norm
    return norm(x, name, spec["width"])


def _mlp(spec: Spec, tape: Tape, x: Value) -> Value:
    size = 64
    for k in range(spec["depth"]):
        x = tape.dense(x, f"h{k}", size, spec["width"])
        x = tape.act(_norm(spec, tape, x, f"n{k}"), spec["act"])
        size = spec["width"]
    return tape.dense(x, "out", size, outputs(spec))


def _cnn(spec: Spec, tape: Tape, x: Value) -> Value:
    size = 1
    for k in range(spec["depth"]):
        x = tape.conv(x, f"h{k}", size, spec["width"])
        x = tape.act(_norm(spec, tape, x, f"n{k}"), spec["act"])
        x = tape.half(x) if k == 1 else x
        size = spec["width"]
    if spec["pool"] == "gap":
        return tape.dense(tape.average(x), "out", size, outputs(spec))
    return tape.dense(tape.flat(x), "out", 16 * size, outputs(spec))


def _branch(spec: Spec, tape: Tape, x: Value, y: Value, name: str) -> Value:
    """The branch `y` joined to the stream."""
    if spec["branch"] == "sqrtL":
        y = tape.scaled(y, 1 / math.sqrt(spec["depth"]))
    return tape.add(x, tape.gated(y, name) if spec["branch"] == "rezero" else y)


def _residual(spec: Spec, tape: Tape, x: Value, *, maps: bool) -> Value:
    layer = tape.conv if maps else tape.dense
    size, act = spec["width"], spec["act"]
    x = layer(x, "stem", 1 if maps else 64, size)
    x = tape.half(x) if maps else x
    for k in range(spec["depth"]):
        pre = spec["place"] == "pre"
        y = _norm(spec, tape, x, f"n{k}") if pre else x
        y = tape.act(layer(tape.act(y, act) if pre else y, f"b{k}a", size, size), act)
        y = layer(y, f"b{k}b", size, size)
        x = _branch(spec, tape, x, y, f"a{k}")
        x = x if pre else tape.act(_norm(spec, tape, x, f"n{k}"), act)
    x = tape.act(_norm(spec, tape, x, "nf"), act) if spec["place"] == "pre" else x
    return tape.dense(tape.average(x) if maps else x, "out", size, outputs(spec))


def _tfm(spec: Spec, tape: Tape, x: Value) -> Value:
    size, pre = spec["width"], spec["place"] == "pre"
    x = tape.placed(tape.dense(x, "emb", 8, size), "pos", 8, size)
    for k in range(spec["depth"]):
        y = _norm(spec, tape, x, f"n{k}a") if pre else x
        q, key, v = (tape.dense(y, f"b{k}{part}", size, size) for part in "qkv")
        y = tape.dense(tape.attend(q, key, v, 2, size), f"b{k}o", size, size)
        x = _branch(spec, tape, x, y, f"a{k}a")
        x = x if pre else _norm(spec, tape, x, f"n{k}a")
        y = _norm(spec, tape, x, f"n{k}b") if pre else x
        y = tape.act(tape.dense(y, f"b{k}m", size, 2 * size), spec["act"])
        x = _branch(spec, tape, x, tape.dense(y, f"b{k}p", 2 * size, size), f"a{k}b")
        x = x if pre else _norm(spec, tape, x, f"n{k}b")
    x = _norm(spec, tape, x, "nf") if pre else x
    return tape.dense(tape.average(x), "out", size, outputs(spec))


def _rnn(spec: Spec, tape: Tape, x: Value) -> Value:
    size = spec["width"]
    h = tape.recur(x, "rec", spec["cell"], FEATURES[spec["data"]], size)
    return tape.dense(h, "out", size, outputs(spec))


_FORWARD = {
    "mlp": _mlp,
    "cnn": _cnn,
    "resmlp": lambda spec, tape, x: _residual(spec, tape, x, maps=False),
    "rescnn": lambda spec, tape, x: _residual(spec, tape, x, maps=True),
    "tfm": _tfm,
    "rnn": _rnn,
}
GATES = {"rnn_tanh": 1, "rnn_relu": 1, "gru": 3, "lstm": 4}


class Shapes:
    """The tape that only notes which parameters there are, in order."""

    def __init__(self) -> None:
        self.found: dict[str, tuple[int, ...]] = {}

    def dense(self, _x: Value, name: str, size_in: int, size_out: int) -> Value:
        self.found |= {f"{name}.W": (size_out, size_in), f"{name}.b": (size_out,)}

    def conv(self, _x: Value, name: str, size_in: int, size_out: int) -> Value:
        self.found |= {f"{name}.W": (size_out, size_in, 3, 3), f"{name}.b": (size_out,)}

    def batch_norm(self, _x: Value, name: str, size: int) -> Value:
        self.found |= {f"{name}.g": (size,), f"{name}.b": (size,)}

    layer_norm = batch_norm

    def gated(self, _x: Value, name: str) -> Value:
        self.found[f"{name}.a"] = (1,)

    def placed(self, _x: Value, name: str, steps: int, size: int) -> Value:
        self.found[f"{name}.P"] = (steps, size)

    def recur(self, _x: Value, name: str, cell: str, size_in: int, size: int) -> Value:
        rows = GATES[cell] * size
        self.found |= {f"{name}.W": (rows, size_in), f"{name}.R": (rows, size)}
        self.found |= {f"{name}.b": (rows,), f"{name}.c": (rows,)}

    def act(self, _x: Value, *_: Any) -> Value:
        """No parameters: nothing to note."""

    add = scaled = average = half = flat = attend = act


def shapes(spec: Spec) -> dict[str, tuple[int, ...]]:
    """Every parameter's shape, in the order of the forward pass."""
    tape = Shapes()
    forward(spec, tape, None)
    return tape.found

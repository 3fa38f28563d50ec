"""Second moments of weights, biases and tables from their laws; nothing is drawn."""

from dataclasses import replace
from functools import lru_cache
from typing import NamedTuple

from gradgauge.graph import init
from gradgauge.graph.init import Law
from gradgauge.graph.nodes_attention import laws_of
from gradgauge.graph.spec_net import Net, law_of
from gradgauge.schema.laws import InitSet, InitSpec, NormInit, TableInit
from gradgauge.schema.shape_state import Shape
from gradgauge.schema.spec import Defaults
from gradgauge.schema.spec_tokens import Attention

_TABLE = InitSpec(kind="normal", std=1.0)


class Matrix(NamedTuple):
    """A weight's elements: mean, variance about it, E W^2, and whether it is a multiple of 1."""

    mean: float
    variance: float
    diagonal: float | None = None

    @property
    def second(self) -> float:
        """E W^2 of an element that is not fixed at zero."""
        return self.variance + self.mean * self.mean


class Bias(NamedTuple):
    """A vector's mean and E b^2."""

    mean: float
    second: float


NO_BIAS = Bias(0.0, 0.0)
ONES = Bias(1.0, 1.0)


class Laws:
    """The laws of one spec's weights by its defaults, their matrices times `gain`.

    A layer in a repeat is asked for its laws every pass: answers are kept, by the identity of the
    spec's own objects, which live as long as this.
    """

    def __init__(self, defaults: Defaults, gain: float = 1.0) -> None:
        self._net = Net(0, defaults)
        self._gain = gain
        self._matrices: dict[tuple[int, str, Shape], tuple[object, Matrix]] = {}
        self._parts: dict[tuple[int, str], tuple[object, InitSet]] = {}
        self._biases: dict[tuple[int, tuple[int, int]], tuple[object, Bias]] = {}

    def matrix(self, own: InitSet, shape: Shape, ends: tuple[int, int]) -> Matrix:
        """A dense layer's or a convolution's weight, laid out as it is drawn."""
        key = (id(own), "weight", shape)
        if key not in self._matrices:
            held = self._scaled(_matrix(self._net.law(own, "weight", shape, ends)))
            self._matrices[key] = (own, held)
        return self._matrices[key][1]

    def projection(self, layer: Attention, part: str) -> InitSet:
        """What an attention's query, key, value or output is asked for by."""
        key = (id(layer), part)
        if key not in self._parts:
            self._parts[key] = (layer, laws_of(layer, part))
        return self._parts[key][1]

    def recurrent(self, own: InitSet, part: str, shape: Shape, units: int) -> Matrix:
        """A cell's weights, all gates in one; torch's default scales by the units."""
        law = self._net.law(own, part, shape, (shape[1], shape[0]))
        if law.kind == "torch_default":
            law = replace(law, fan_in=units)
        return self._scaled(_matrix(law))

    def _scaled(self, W: Matrix) -> Matrix:
        g = self._gain
        if g == 1.0:
            return W
        diagonal = None if W.diagonal is None else g * W.diagonal
        return Matrix(g * W.mean, g * g * W.variance, diagonal)

    def bias(self, own: InitSet, ends: tuple[int, int], *, there: bool = True) -> Bias:
        """A bias that is added."""
        if not there:
            return NO_BIAS
        key = (id(own), ends)
        if key not in self._biases:
            self._biases[key] = (own, _vector(self._net.law(own, "bias", (ends[1],), ends)))
        return self._biases[key][1]

    def table(self, own: TableInit, shape: Shape) -> Bias:
        """A table that is looked up or added."""
        law = own.weight or self._net.defaults.init.embedding or _TABLE
        return _vector(law_of(law, shape, init.fans(shape[-2:], layout="in_out")))


def norm(own: NormInit, n: int, *, scale: bool, bias: bool) -> tuple[Bias, Bias]:
    """A normalisation's (scale, bias)."""
    gamma = _vector(law_of(own.scale, (n,), (n, n))) if scale and own.scale else ONES
    beta = _vector(law_of(own.bias, (n,), (n, n))) if bias and own.bias else NO_BIAS
    return gamma, beta


@lru_cache(maxsize=4096)
def _matrix(law: Law) -> Matrix:
    if law.kind == "identity":
        return Matrix(0.0, 0.0, law.gain)
    return Matrix(_mean(law), init.std(law) ** 2)


@lru_cache(maxsize=4096)
def _vector(law: Law) -> Bias:
    if law.kind == "identity":
        return Bias(0.0, law.gain * law.gain / max(law.shape))
    mean = _mean(law)
    return Bias(mean, init.std(law) ** 2 + mean * mean)


def _mean(law: Law) -> float:
    """Of a normal cut unevenly the mean is that of the uncut one: an approximation."""
    if law.kind == "ones":
        return law.gain
    if law.kind == "uniform":
        return law.gain * (law.low + law.high) / 2
    return law.value if law.kind in {"constant", "normal", "truncated_normal"} else 0.0

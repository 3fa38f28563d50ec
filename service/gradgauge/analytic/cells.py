"""One step of a recurrent cell on moments: the joint state's mean and covariance, and back.

A cell is read as gates a = W x + R h + b (Gaussian) and a state s' = F(s, a). Means are exact for
independent gates; the covariance of the state goes through the mean Jacobian, and what is left of
each element's variance is added to the diagonal (THEORY section 1, LSTM and GRU). Backward, the
second moment of the joint gradient G' = E J^T G J: the means of the gates between different units,
their second moments within one.
"""

from collections.abc import Callable, Sequence
from dataclasses import dataclass

import torch
from torch import Tensor

from gradgauge.analytic import responses
from gradgauge.analytic.responses import Response

Z = torch.linspace(-8.0, 8.0, 129, dtype=torch.float64)
MASS = torch.exp(-0.5 * Z * Z) / torch.exp(-0.5 * Z * Z).sum()


@dataclass(frozen=True, slots=True)
class Gate:
    """A gate's activation of its Gaussian argument: expectations, and E phi phi'."""

    r: Response
    product: Tensor

    @property
    def mean(self) -> Tensor:
        """E phi."""
        return self.r.mean

    @property
    def square(self) -> Tensor:
        """E phi^2."""
        return self.r.second


def gate(name: str, phi: Callable[[Tensor], Tensor], mean: Tensor, var: Tensor) -> Gate:
    """The gate's response, and E phi phi'.

    Sigmoids are smooth: a plain sum over z does, in a tenth of the time of broken panels.
    """
    if name == "Relu":
        r = responses.relu(mean, var)
        return Gate(r, r.mean)
    x = mean[:, None] + var.sqrt()[:, None] * Z
    y = phi(x)
    dy = 1 - y * y if name == "Tanh" else y * (1 - y)
    square = dy * dy
    terms = (y, y * y, dy, square, y * (Z * Z - 1), square * Z, square * y, square * y * Z)
    return Gate(Response(*(t @ MASS for t in terms)), (y * dy) @ MASS)


@dataclass(frozen=True, slots=True)
class Weights:
    """One direction: matrices [gates * n, .] and biases by gate in ONNX's order, activations."""

    W: Tensor
    R: Tensor
    wb: Tensor
    rb: Tensor
    phis: Sequence[tuple[str, Callable[[Tensor], Tensor]]]

    @property
    def n(self) -> int:
        """Units."""
        return self.R.shape[1]

    def gate(self, which: int, mean: Tensor, var: Tensor) -> Gate:
        """The activation `which` of this cell's list."""
        name, phi = self.phis[which]
        return gate(name, phi, mean, var)


@dataclass(frozen=True, slots=True)
class State:
    """Mean [k n] and covariance [k n, k n] of the joint state: h, and c for an LSTM."""

    mean: Tensor
    cov: Tensor


@dataclass(frozen=True, slots=True)
class Back:
    """What one step needs on the way back.

    The gradient at the new state (h', or h' and c') is brought to one vector per unit of inner
    gradients by `mix` (means) and `mix_own` (second moments), and from there to the gates and the
    old state by `means` [channels, n] and, within one unit, E u_i u_j [channels, channels, n].
    """

    means: Tensor
    seconds: Tensor


def linear(weights: Weights, x: tuple[Tensor, Tensor], h: State) -> tuple[Tensor, Tensor, Tensor]:
    """Mean and covariance of all gates' arguments, and their covariance with the whole state."""
    n = weights.n
    mean = weights.W @ x[0] + weights.R @ h.mean[:n] + weights.wb + weights.rb
    with_state = weights.R @ h.cov[:n]
    cov = (weights.W * x[1]) @ weights.W.T + with_state[:, :n] @ weights.R.T
    return mean, cov, with_state


def widened(through: Tensor, cov: Tensor, var: Tensor) -> Tensor:
    """J S J^T with its diagonal replaced by the variance known of each element."""
    made = through @ cov @ through.T
    made.diagonal().copy_(torch.maximum(var, made.diagonal() * 1e-3).clamp_min(0.0))
    return made


def pull(G: Tensor, back: Back, inner: int, n: int) -> Tensor:
    """E J^T G J [channels n, channels n] for G [inner n, inner n] of inner gradients.

    `back.means[inner, channels, n]` are the factors from each inner gradient to each channel.
    """
    channels = back.means.shape[1]
    held = G.reshape(inner, n, inner, n)
    u = back.means
    made = torch.einsum("aibj,aki,blj->kilj", held, u, u)
    own = held.diagonal(dim1=1, dim2=3)  # [inner, inner, n]
    extra = back.seconds - torch.einsum("aki,bli->abkli", u, u)
    diagonal = torch.einsum("abi,abkli->kli", own, extra)
    made.diagonal(dim1=1, dim2=3).add_(diagonal)
    return made.reshape(channels * n, channels * n)

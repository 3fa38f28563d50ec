"""Gradients straight through rounding (Bengio et al. 2013): integers that remember their floats.

Integers carry no gradient in torch, so a quantised tensor remembers a float tensor of the same
values. What reads it as numbers (DequantizeLinear, MatMulInteger, Cast) goes on from there.
"""

from collections.abc import Callable
from functools import wraps
from typing import Any, TypeVar

import torch
from torch import Tensor

ResultT = TypeVar("ResultT")
_CARRIED = "_gradgauge_rounded_from"


def carry(exact: Tensor, passed: Tensor) -> Tensor:
    """`exact`, remembering its own values with `passed`'s gradient."""
    if passed.requires_grad:
        wide = exact.detach().to(passed.dtype)
        setattr(exact, _CARRIED, passed + (wide - passed.detach()))
    return exact


def carried(x: Any) -> Any:
    """The float it was rounded from, or `x` itself."""
    return getattr(x, _CARRIED, x)


def moving(run: Callable[..., ResultT]) -> Callable[..., ResultT]:
    """An op that only moves or picks elements, so that what it moves keeps its memory."""

    @wraps(run)
    def moved(*xs: Any, **attributes: Any) -> ResultT:
        made = run(*xs, **attributes)
        floats = [carried(x) for x in xs]
        if any(f is not x for f, x in zip(floats, xs, strict=True)):
            _remember(made, run(*floats, **attributes))
        return made

    return moved


def _remember(made: Any, passed: Any) -> None:
    if isinstance(made, tuple):
        for one, other in zip(made, passed, strict=True):
            _remember(one, other)
    elif isinstance(passed, Tensor) and passed.dtype != torch.bool and passed.is_floating_point():
        carry(made, passed)

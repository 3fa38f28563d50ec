"""Forms of opset 6 and before, which old model zoos still use."""

from collections.abc import Callable, Sequence

import torch
from torch import Tensor

from gradgauge.ops import linear, movement, normalisation, pointwise
from gradgauge.ops.row import Result, Run, op

Pair = Callable[[Tensor, Tensor], Tensor]


def _aligned(run: Pair) -> Run:
    """Until opset 7 the second input is lined up with `axis` of the first, not with its end."""

    def paired(
        a: Tensor,
        b: Tensor,
        *,
        axis: int | None = None,
        broadcast: int = 0,
        consumed_inputs: Sequence[int] = (),
    ) -> Tensor:
        del consumed_inputs
        if broadcast and axis is not None:
            tail = a.dim() - axis % a.dim() - b.dim()
            b = b.reshape(*b.shape, *(1,) * tail)
        return run(a, b)

    return paired


_PAIRS: dict[str, Pair] = {
    "Add": torch.add,
    "Div": pointwise.Div,
    "Mul": torch.mul,
    "Pow": pointwise.Pow,
    "Sub": torch.sub,
}
_TESTS: dict[str, Pair] = {
    "And": torch.logical_and,
    "Equal": torch.eq,
    "Greater": torch.gt,
    "Less": torch.lt,
    "Or": torch.logical_or,
    "Xor": torch.logical_xor,
}
for _name, _run in _PAIRS.items():
    op("binary", name=_name)(_aligned(_run))
for _name, _run in _TESTS.items():
    op("plumbing", name=_name)(_aligned(_run))


def _folded(run: Run) -> Run:
    def folded(*xs: Tensor, consumed_inputs: Sequence[int] = ()) -> Result:
        del consumed_inputs
        return run(*xs)

    return folded


for _name, _fold in {
    "Max": pointwise.Max,
    "Mean": pointwise.Mean,
    "Min": pointwise.Min,
    "Sum": pointwise.Sum,
}.items():
    op("binary", name=_name)(_folded(_fold))


@op("pointwise", name="PRelu")
def PRelu_1(x: Tensor, slope: Tensor, *, consumed_inputs: Sequence[int] = ()) -> Tensor:
    """One slope, or one per channel."""
    del consumed_inputs
    if slope.numel() > 1 and x.dim() > 1:
        slope = slope.reshape(-1, *(1,) * (x.dim() - 2))
    return pointwise.PRelu(x, slope)


@op("linear", name="Gemm")
def Gemm_1(
    a: Tensor,
    b: Tensor,
    c: Tensor,
    *,
    alpha: float = 1.0,
    beta: float = 1.0,
    broadcast: int = 0,
    transA: int = 0,
    transB: int = 0,
) -> Tensor:
    del broadcast
    return linear.Gemm(a, b, c, alpha=alpha, beta=beta, transA=transA, transB=transB)


@op("normalisation", name="BatchNormalization")
def BatchNormalization_1(
    x: Tensor,
    scale: Tensor,
    bias: Tensor,
    mean: Tensor,
    var: Tensor,
    *,
    consumed_inputs: Sequence[int] = (),
    epsilon: float = 1e-5,
    is_test: int = 0,
    momentum: float = 0.9,
    spatial: int = 1,
    training_mode: int = 0,
    n_outputs: int = 1,
) -> Result:
    """Read for inference whatever `is_test` says, as onnxruntime does."""
    del consumed_inputs, is_test
    return normalisation.BatchNormalization(
        x,
        scale,
        bias,
        mean,
        var,
        epsilon=epsilon,
        momentum=momentum,
        spatial=spatial,
        training_mode=training_mode,
        n_outputs=n_outputs,
    )


@op("pointwise", name="Dropout")
def Dropout_1(
    x: Tensor, *, consumed_inputs: Sequence[int] = (), is_test: int = 0, ratio: float = 0.5
) -> tuple[Tensor, Tensor]:
    del consumed_inputs, is_test
    return pointwise.Dropout_7(x, ratio=ratio)


@op("movement", name="Reshape")
def Reshape_1(x: Tensor, *, shape: Sequence[int], consumed_inputs: Sequence[int] = ()) -> Tensor:
    del consumed_inputs
    return movement.Reshape(x, torch.tensor(shape))


@op("movement", name="Concat")
def Concat_1(*xs: Tensor, axis: int = 1) -> Tensor:
    return movement.Concat(*xs, axis=axis)


@op("movement", name="Pad")
def Pad_1(
    x: Tensor, *, paddings: Sequence[int], mode: str = "constant", value: float = 0.0
) -> Tensor:
    return movement.Pad_2(x, pads=paddings, mode=mode, value=value)


@op("movement", name="Split")
def Split_1(
    x: Tensor,
    sizes: Tensor | None = None,
    *,
    axis: int = 0,
    split: Sequence[int] | None = None,
    n_outputs: int,
) -> tuple[Tensor, ...]:
    given = split if sizes is None else sizes.tolist()
    return movement.Split_2(x, axis=axis, split=given, n_outputs=n_outputs)

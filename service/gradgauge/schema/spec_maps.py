"""Layers over feature maps, [channels, size, ...], and the norms."""

from typing import Literal

from gradgauge.schema.laws import InitSet, NormInit
from gradgauge.schema.spec_fields import Counts, Padding, Pair, Single, Size, Sizes, Triple
from gradgauge.schema.strict import Positive, Strict


class Conv1d(Strict):
    """A convolution over [channels, length]; its fields are `conv2d`'s with one number each."""

    type: Literal["conv1d"]
    filters: Size
    kernel: Single
    stride: Single = (1,)
    padding: Padding = "valid"
    dilation: Single = (1,)
    groups: Size = 1
    bias: bool = True
    init: InitSet = InitSet()


class Conv2d(Strict):
    """A convolution over [channels, height, width].

    `kernel`, `stride`, `padding`, `dilation`: one number, or [height, width]. `same` pads so that
    the output has ceil(size / stride) places, the odd one at the end; `valid` pads nothing.
    """

    type: Literal["conv2d"]
    filters: Size
    kernel: Pair
    stride: Pair = (1, 1)
    padding: Padding = "valid"
    dilation: Pair = (1, 1)
    groups: Size = 1
    bias: bool = True
    init: InitSet = InitSet()


class Conv3d(Strict):
    """A convolution over [channels, depth, height, width]; `conv2d`'s fields with three numbers."""

    type: Literal["conv3d"]
    filters: Size
    kernel: Triple
    stride: Triple = (1, 1, 1)
    padding: Padding = "valid"
    dilation: Triple = (1, 1, 1)
    groups: Size = 1
    bias: bool = True
    init: InitSet = InitSet()


class ConvTranspose(Strict):
    """The transpose of a convolution, over one to three axes.

    An axis of `size` becomes (size - 1) stride + dilation (kernel - 1) + 1 + output_padding less
    the padding at both ends; with `same` it becomes size times stride.
    """

    type: Literal["conv_transpose"]
    filters: Size
    kernel: Sizes
    stride: Sizes = (1,)
    padding: Padding = "valid"
    output_padding: Counts = (0,)
    dilation: Sizes = (1,)
    groups: Size = 1
    bias: bool = True
    init: InitSet = InitSet()


class DepthwiseConv(Strict):
    """A convolution of each channel by itself, over one to three axes, to `multiplier` channels."""

    type: Literal["depthwise_conv"]
    kernel: Sizes
    multiplier: Size = 1
    stride: Sizes = (1,)
    padding: Padding = "valid"
    dilation: Sizes = (1,)
    bias: bool = True
    init: InitSet = InitSet()


class MaxPool(Strict):
    """The largest of each window, over one to three axes; `stride` is `kernel` unless given."""

    type: Literal["max_pool"]
    kernel: Sizes
    stride: Sizes | None = None
    padding: Padding = "valid"


class AvgPool(Strict):
    """The mean of each window, padding left out; `stride` is `kernel` unless given."""

    type: Literal["avg_pool"]
    kernel: Sizes
    stride: Sizes | None = None
    padding: Padding = "valid"


class GlobalAvgPool(Strict):
    """[channels, size, ...] to each channel's mean, [channels].

    `axis: -1` takes the mean over the steps of [time, features] instead.
    """

    type: Literal["global_avg_pool"]
    axis: Literal[0, -1] = 0


class GlobalMaxPool(Strict):
    """[channels, size, ...] to each channel's largest value; `axis` as for `global_avg_pool`."""

    type: Literal["global_max_pool"]
    axis: Literal[0, -1] = 0


class BatchNorm(Strict):
    """Normalises features or channels over the batch; running statistics start at (0, 1).

    `axis` is where they lie, counted without the batch: 0 for [channels, ...], -1 for
    [time, features]; an input of two axes has to say which it is. Like every norm it learns a
    `scale` and a `bias`, unless they are false.
    """

    type: Literal["batch_norm"]
    axis: Literal[0, -1] | None = None
    epsilon: Positive = 1e-5
    scale: bool = True
    bias: bool = True
    init: NormInit = NormInit()


class LayerNorm(Strict):
    """Normalises over the axes from `axis` on; `axis` counts without the batch."""

    type: Literal["layer_norm"]
    axis: int = -1
    epsilon: Positive = 1e-5
    scale: bool = True
    bias: bool = True
    init: NormInit = NormInit()


class RmsNorm(Strict):
    """x / sqrt(mean(x^2) + epsilon), times a learned scale, over the axes from `axis` on."""

    type: Literal["rms_norm"]
    axis: int = -1
    epsilon: Positive = 1e-6
    init: NormInit = NormInit()


class GroupNorm(Strict):
    """Normalises each group of channels of [channels, size, ...]."""

    type: Literal["group_norm"]
    groups: Size
    epsilon: Positive = 1e-5
    scale: bool = True
    bias: bool = True
    init: NormInit = NormInit()


class InstanceNorm(Strict):
    """Normalises each channel of [channels, size, ...] by itself."""

    type: Literal["instance_norm"]
    epsilon: Positive = 1e-5
    scale: bool = True
    bias: bool = True
    init: NormInit = NormInit()


Conv = Conv1d | Conv2d | Conv3d
Pool = MaxPool | AvgPool
GlobalPool = GlobalAvgPool | GlobalMaxPool

"""Sliding windows as ONNX's Conv and Pool attributes describe them."""

from collections.abc import Sequence
from dataclasses import dataclass


@dataclass(frozen=True, slots=True)
class Window:
    """One entry per spatial axis; `before` and `after` are the padding at its two ends."""

    sizes: tuple[int, ...]
    kernel: tuple[int, ...]
    strides: tuple[int, ...]
    dilations: tuple[int, ...]
    before: tuple[int, ...]
    after: tuple[int, ...]

    @property
    def spans(self) -> tuple[int, ...]:
        """How far a dilated kernel reaches."""
        return tuple((k - 1) * d + 1 for k, d in zip(self.kernel, self.dilations, strict=True))

    def outputs(self, *, ceil: bool) -> tuple[int, ...]:
        """Windows per axis; with `ceil`, none may start in the padding after the data."""
        counts = []
        for size, span, stride, low, high in zip(
            self.sizes, self.spans, self.strides, self.before, self.after, strict=True
        ):
            room = size + low + high - span
            if room < 0 and not ceil:
                raise ValueError(f"a window of {span} does not fit {size + low + high} elements")
            count = (-(-room // stride) if ceil else room // stride) + 1
            starts_outside = ceil and (count - 1) * stride >= size + low
            counts.append(count - 1 if starts_outside else count)
        return tuple(counts)


def resolve(
    sizes: Sequence[int],
    kernel: Sequence[int],
    strides: Sequence[int] | None,
    dilations: Sequence[int] | None,
    pads: Sequence[int] | None,
    auto_pad: str,
) -> Window:
    """Fill in the defaults and turn `auto_pad` into explicit padding (ONNX Conv, MaxPool)."""
    rank = len(kernel)
    stride = tuple(strides or (1,) * rank)
    dilation = tuple(dilations or (1,) * rank)
    if len(sizes) != rank:
        raise ValueError(f"a kernel of {rank} axes on data with {len(sizes)} spatial axes")
    if auto_pad in {"SAME_UPPER", "SAME_LOWER"}:
        totals = [
            max((-(-n // s) - 1) * s + (k - 1) * d + 1 - n, 0)
            for n, k, s, d in zip(sizes, kernel, stride, dilation, strict=True)
        ]
        small, large = [t // 2 for t in totals], [t - t // 2 for t in totals]
        before, after = (small, large) if auto_pad == "SAME_UPPER" else (large, small)
    elif auto_pad == "NOTSET" and pads:
        before, after = list(pads[:rank]), list(pads[rank:])
    else:
        before, after = [0] * rank, [0] * rank
    return Window(tuple(sizes), tuple(kernel), stride, dilation, tuple(before), tuple(after))

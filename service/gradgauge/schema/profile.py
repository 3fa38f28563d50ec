"""What each engine says of a layer: the records both fill and risk reads."""

from dataclasses import dataclass, field
from typing import Literal

Method = Literal["mean_field", "exact_moments", "probed", "not_supported"]


@dataclass(frozen=True, slots=True)
class Quantiles:
    """Quantiles of a sample; q05..q95 are None where the sample has one value (q50 holds it)."""

    q05: float | None
    q25: float | None
    q50: float | None
    q75: float | None
    q95: float | None


@dataclass(frozen=True, slots=True)
class Interval:
    """A confidence interval and how it was made."""

    low: float
    high: float
    level: float
    method: str


@dataclass(frozen=True, slots=True)
class Measurement:
    """A number that has no field of its own."""

    name: str
    value: float | None
    unit: str
    source: Literal["analytic", "sampled"]
    low: float | None = None
    high: float | None = None
    note: str | None = None


@dataclass(frozen=True, slots=True)
class Series:
    """A curve: the gradient by time step, a spectrum."""

    name: str
    unit: str
    x: tuple[float, ...]
    y: tuple[float | None, ...]
    low: tuple[float | None, ...]
    high: tuple[float | None, ...]


@dataclass(frozen=True, slots=True)
class AnalyticLayer:
    """The analytic engine's word on one layer (units: REPORT.md, block `analytic`).

    `log10_grad_act` is log10 of the root mean square over elements of dL/d(layer output), with the
    reference 1 at the graph's output (cotangents of unit variance per output element).
    `log10_grad_param` is the same for the layer's largest parameter, per input. `width_decades` is
    what the widths alone make of `band_decades`, by which the calibration was fitted.
    """

    method: Method
    forward_rms: float | None = None
    forward_gain: float | None = None
    backward_gain: float | None = None
    log10_grad_act: float | None = None
    log10_grad_param: float | None = None
    log10_grad_ratio: float | None = None
    band_decades: float | None = None
    width_decades: float | None = None
    chi: float | None = None
    depth_scale: float | None = None
    sigma_max: float | None = None
    sigma_min: float | None = None
    stable_rank: float | None = None
    assumptions: tuple[str, ...] = ()


@dataclass(frozen=True, slots=True)
class SampledLayer:
    """The sampled engine's word on one layer (units: REPORT.md, block `sampled`).

    `log10_grad_act`: per input the RMS over elements of dL/d(layer output), then quantiles over
    inputs and cotangents. `log10_grad_param`: RMS over elements of the summed weight gradient
    divided by sqrt(batch): the size of one input's weight gradient, whatever the batch.
    `local_log10_gain` is log10 of |dL/d(layer input)| / |dL/d(layer output)| through this layer
    alone (2-norms over all elements of one input), `duplicate_fraction` the units that repeat
    another unit's parameters exactly, `nonfinite_forward` whether the layer's output holds NaN or
    infinity.
    """

    supported: bool
    n: int = 0
    log10_grad_act: Quantiles | None = None
    log10_grad_act_ci: Interval | None = None
    log10_grad_param: Quantiles | None = None
    log10_grad_param_ci: Interval | None = None
    log10_grad_ratio: float | None = None
    log10_grad_norm: float | None = None
    local_log10_gain: float | None = None
    forward_rms: float | None = None
    forward_mean: float | None = None
    forward_variance: float | None = None
    input_correlation: float | None = None
    cosine_between_samples: float | None = None
    dead_fraction: float | None = None
    saturated_fraction: float | None = None
    duplicate_fraction: float | None = None
    nonfinite_fraction: float | None = None
    underflow: dict[str, float] = field(default_factory=dict)
    overflow: dict[str, float] = field(default_factory=dict)
    nonfinite_forward: bool = False
    zero_gradient: bool = False
    structurally_zero: bool = False
    measurements: tuple[Measurement, ...] = ()


@dataclass(frozen=True, slots=True)
class AnalyticProfile:
    """The analytic engine's answer: one record per layer id, in no order.

    `beside` holds what it says of a layer that has no field of its own.
    """

    layers: dict[str, AnalyticLayer]
    nodes_covered: int
    measurements: tuple[Measurement, ...] = ()
    series: tuple[Series, ...] = ()
    beside: dict[str, tuple[Measurement, ...]] = field(default_factory=dict)


@dataclass(frozen=True, slots=True)
class TimeProfile:
    """The gradient by time step of one recurrent layer or one unrolled cell.

    `log10_grad[t]` is the median over inputs of log10 RMS of dL/dx_t (a recurrent node's input)
    or dL/dh_t (an unrolled cell's state), `slope` the fitted decades per step going back in time.
    """

    layer_ids: tuple[str, ...]
    log10_grad: tuple[float | None, ...]
    slope: float | None
    tied_parameter: str | None

    @property
    def curve(self) -> Series:
        """As a series over steps, without intervals."""
        steps = len(self.log10_grad)
        blank = (None,) * steps
        name = f"gradient_by_time_step:{self.layer_ids[-1]}"
        x = tuple(map(float, range(steps)))
        return Series(name, "decades", x, self.log10_grad, blank, blank)


@dataclass(frozen=True, slots=True)
class ForwardCheck:
    """Our forward pass against another runtime's on the same inputs, at the output that fits worst.

    `difference` is max |ours - theirs| / max |theirs| of a float output, the share of elements that
    differ of any other; infinite where one is finite and the other is not, or shapes differ.
    `tolerance` is what it may be, `rounding` the same difference between our own float32 and
    float64 passes (None: not needed). Where nothing was compared, `reason` says why.
    """

    difference: float | None
    tolerance: float
    rounding: float | None = None
    output: str | None = None
    inputs: int = 0
    reason: str | None = None

    @property
    def disagrees(self) -> bool:
        """Whether the two runtimes compute different functions."""
        return self.difference is not None and self.difference > self.tolerance


@dataclass(frozen=True, slots=True)
class SampledProfile:
    """The sampled engine's answer: layers, time profiles, and how it was measured.

    `warnings` are (code, message): what was left out, and why.
    """

    layers: dict[str, SampledLayer]
    nodes_covered: int
    seeds: tuple[int, ...]
    loss: str
    input_kind: str
    dtype: str
    device: str
    unsupported: dict[str, int] = field(default_factory=dict)
    times: tuple[TimeProfile, ...] = ()
    measurements: tuple[Measurement, ...] = ()
    series: tuple[Series, ...] = ()
    stage_ms: dict[str, float] = field(default_factory=dict)
    output_gradient: float | None = None
    warnings: tuple[tuple[str, str], ...] = ()

"""One layer on the wire: who it is, what each engine says of it, and how far to worry."""

from typing import Any, Literal, Self

from pydantic import model_validator

from gradgauge.schema.earlier import completed_layer
from gradgauge.schema.wire import (
    Block,
    Category,
    Count,
    Fraction,
    Interval,
    Listed,
    MeasurementBlock,
    Number,
    Positive,
    Quantiles,
    Severity,
    Text,
)

SampledStatus = Literal["measured", "not_supported", "not_run"]
Dtype = Literal["fp16", "bf16", "fp8_e4m3", "fp8_e5m2"]


class AnalyticBlock(Block):
    """The analytic engine's word on a layer: moments propagated, nothing run."""

    method: Literal["mean_field", "exact_moments", "probed", "not_supported"]
    forward_rms: Positive | None
    """RMS of the layer's output, in activation units."""
    forward_gain: Positive | None
    """Output RMS over input RMS; 1 preserves."""
    backward_gain: Positive | None
    """Gradient RMS at the input over that at the output, this layer alone; 1 preserves."""
    log10_grad_act: Number | None
    """Decades: RMS of the gradient at the layer's output; 0 is 1 at the network's output."""
    log10_grad_param: Number | None
    """Decades: RMS of the gradient of the layer's largest parameter, per input."""
    log10_grad_ratio: Number | None
    """Decades: parameter gradient RMS over parameter RMS."""
    band_decades: Positive | None
    """Decades: how far finite width is expected to scatter around the mean."""
    chi: Positive | None
    """Squared gain of a small perturbation through the layer; 1 is critical."""
    depth_scale: Positive | None
    """Layers over which a perturbation fades by e; null where chi >= 1."""
    sigma_max: Positive | None
    sigma_min: Positive | None
    stable_rank: Positive | None
    assumptions: Listed[Text]


class SampledBlock(Block):
    """The sampled engine's word on a layer: run and differentiated.

    `status` says whether there is one: `not_supported` where the graph holds an op the executor
    lacks, `not_run` where the engine was not asked; every quantity is then null and `n` is 0.
    """

    status: SampledStatus
    n: Count
    """Inputs the gradients were measured on."""
    seeds: Listed[int]
    loss: Text | None
    input_kind: Text | None
    log10_grad_act: Quantiles | None
    """Decades: RMS over the elements of one input's gradient at the output of the layer's op."""
    log10_grad_act_ci: Interval | None
    log10_grad_param: Quantiles | None
    """Decades: RMS of the gradient of the layer's largest parameter."""
    log10_grad_param_ci: Interval | None
    forward_rms: Positive | None
    """RMS of the layer's output, in activation units."""
    input_correlation: Number | None
    """Mean pairwise cosine of the layer's outputs across inputs; 1 is collapsed."""
    cosine_between_samples: Number | None
    """Mean cosine between the parameter gradients of two samples."""
    dead_fraction: Fraction | None
    saturated_fraction: Fraction | None
    underflow: dict[Dtype, Fraction]
    """Share of the gradient that the number format would flush to zero."""
    overflow: dict[Dtype, Fraction]
    """Share of the activations beyond the number format's largest value."""
    nonfinite_fraction: Fraction | None
    zero_gradient: bool | None
    """The gradient is exactly zero, so that its log10 is null."""

    @classmethod
    def without(cls, status: Literal["not_supported", "not_run"]) -> Self:
        """The block of a layer that was not measured."""
        null = dict.fromkeys(cls.model_fields)
        return cls.model_validate(
            null | {"status": status, "n": 0, "seeds": [], "underflow": {}, "overflow": {}}
        )

    @model_validator(mode="after")
    def _says_nothing_unless_measured(self) -> Self:
        told = [
            name
            for name in type(self).model_fields
            if name not in {"status", "seeds", "loss", "input_kind"} and getattr(self, name)
        ]
        if self.status != "measured" and told:
            raise ValueError(f"{self.status}, and yet it carries {', '.join(told)}")
        return self


class AgreementBlock(Block):
    """How far the two engines agree on a layer."""

    delta_log10: Number | None
    """Decades: analytic less sampled."""
    z: Number | None
    """The difference in units of its own standard error."""
    status: Literal["agree", "disagree", "not_comparable"]
    explanation: Text | None


class RiskBlock(Block):
    """How far to worry about a layer, and whether the trouble starts here or passes through."""

    score: Fraction
    severity: Severity
    category: Category | None
    role: Literal["origin", "affected", "none"]
    confidence: Fraction


class LayerBlock(Block):
    """One layer: its identity, and everything said of it."""

    id: Text
    name: Text
    scope: Text
    op: Text
    nodes: Listed[Text]
    params: Listed[Text]
    depth: Count
    """Position along the longest path from the inputs."""
    param_count: Count
    shape_in: Listed[int | Text | None] | None
    shape_out: Listed[int | Text | None] | None
    repeat_group: Text | None
    reads: Listed[Text]
    """Ids of the layers it reads from, through any reshaping between."""
    finding_ids: Listed[Text]
    analytic: AnalyticBlock
    sampled: SampledBlock
    agreement: AgreementBlock
    risk: RiskBlock
    measurements: Listed[MeasurementBlock]

    @model_validator(mode="before")
    @classmethod
    def _of_an_earlier_report(cls, told: Any) -> Any:
        return completed_layer(told) if isinstance(told, dict) else told

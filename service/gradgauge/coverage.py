"""How much of a model was judged: parameters with a known gradient, and why there is no verdict."""

import math
from collections.abc import Iterable

import onnx_ir

from gradgauge.assess import Assessment
from gradgauge.graph.layers import parameters
from gradgauge.schema.report import Coverage, Finding


def count_parameters(values: Iterable[onnx_ir.Value]) -> int:
    """Elements of stored tensors."""
    return sum(math.prod(v.shape.numpy()) for v in values if v.shape is not None)


def measure_coverage(assessment: Assessment) -> Coverage:
    """Parameters count as covered where every engine that was asked for has a gradient for them.

    Those hidden behind a head of zeros have none that says anything about training.
    """
    held = parameters(assessment.graph.model.graph)
    hidden = {key for finding in assessment.findings if hides(finding) for key in finding.affected}
    covered: set[str] = set()
    for layer in assessment.layers:
        if layer.id not in hidden and _covered(layer.id, assessment):
            covered.update(layer.params)
    analytic, sampled = assessment.analytic, assessment.sampled
    return Coverage(
        nodes_total=sum(1 for _ in assessment.graph.model.graph),
        nodes_analytic=analytic.nodes_covered if analytic is not None else 0,
        nodes_sampled=sampled.nodes_covered if sampled is not None else 0,
        params_total=count_parameters(held.values()),
        params_covered=count_parameters(v for name, v in held.items() if name in covered),
        unsupported_ops=dict(sampled.unsupported) if sampled is not None else {},
    )


def hides(finding: Finding) -> bool:
    """Whether it says of its layers that they cannot be judged before the first step."""
    return finding.rule_id == "GF105" and finding.severity == "low"


def doubts(assessment: Assessment) -> list[str]:
    """Why no verdict can be given whatever the findings: unknown is not safe."""
    found = []
    if not assessment.signals.trunk:
        found.append("no dense, convolution, recurrent or embedding layer's gradient is known")
    if assessment.forward is not None and assessment.forward.disagrees:
        found.append("the forward pass differs from onnxruntime's")
    return found


def _covered(key: str, assessment: Assessment) -> bool:
    if assessment.analytic is not None:
        row = assessment.analytic.layers.get(key)
        if row is None or row.method == "not_supported":
            return False
    if assessment.sampled is not None:
        held = assessment.sampled.layers.get(key)
        if held is None or not held.supported:
            return False
    return True

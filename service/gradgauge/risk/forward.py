"""The executor against another runtime: where they differ, nothing that was sampled holds."""

import math

from gradgauge.risk.case import Case, Draft, evidence


def needs_forward(case: Case) -> str | None:
    """Why the two were not compared, or None."""
    if case.forward is None:
        return "not_run: no other runtime was given, or the sampled engine was not asked for"
    return None if case.forward.reason is None else f"not_run: {case.forward.reason}"


def disagreeing(case: Case) -> list[Draft]:
    """A difference beyond what rounding explains; medium, since the verdict is open, not bad."""
    held = case.forward
    if held is None or held.difference is None or not held.disagrees:
        return []
    finite = math.isfinite(held.difference)
    size = f"by {held.difference:.3g}" if finite else "in shape or in which values are finite"
    return [
        Draft(
            severity="medium",
            message=(
                f"output {held.output!r} of the graph as uploaded differs {size} from onnxruntime's"
                f" on the same inputs (tolerance {held.tolerance:.3g}): the sampled sizes may be"
                " those of another function"
            ),
            origins=(),
            affected=(),
            evidence=(
                evidence(
                    "onnxruntime_difference",
                    held.difference if finite else None,
                    held.tolerance,
                    ">",
                    "relative",
                    "sampled",
                ),
            ),
            confidence=0.95,
        )
    ]

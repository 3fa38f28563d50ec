"""Reports made up for tests of what carries and shows them; no number here was measured."""

from typing import Any

BIDI = "\u202egpj.exe"
HOSTILE = (
    "</script><img src=x onerror=alert(1)>|`](javascript:alert(1))\x1b[31m\r\n\u202e@everyone $x$"
)


def layer(index: int, *, op: str = "Gemm", name: str | None = None, **changes: Any) -> dict:
    grad = -0.3 * (20 - index)
    block = {
        "id": f"L{index:04d}",
        "name": name or f"/fc.{index}/{op}",
        "scope": f"/fc.{index}",
        "op": op,
        "nodes": [f"/fc.{index}/{op}"],
        "params": [f"fc.{index}.weight"],
        "depth": index,
        "param_count": 65792,
        "shape_in": ["N", 256],
        "shape_out": ["N", 256],
        "repeat_group": None,
        "reads": [f"L{index - 1:04d}"] if index else [],
        "finding_ids": ["F001"],
        "analytic": analytic(grad),
        "sampled": sampled(grad + 0.05),
        "agreement": {
            "delta_log10": -0.05,
            "z": -1.1,
            "status": "agree",
            "explanation": None,
        },
        "risk": {
            "score": 0.98,
            "severity": "critical",
            "category": "vanishing",
            "role": "affected",
            "confidence": 0.97,
        },
        "measurements": [],
    }
    return block | changes


def analytic(grad: float | None) -> dict:
    return {
        "method": "exact_moments",
        "forward_rms": 0.58,
        "forward_gain": 0.58,
        "backward_gain": 0.29,
        "log10_grad_act": grad,
        "log10_grad_param": grad,
        "log10_grad_ratio": grad,
        "band_decades": 0.12,
        "chi": 0.081,
        "depth_scale": 0.4,
        "sigma_max": 1.98,
        "sigma_min": 0.002,
        "stable_rank": 65.1,
        "assumptions": ["independent_rows"],
    }


def sampled(grad: float) -> dict:
    quantiles = {
        "q05": grad - 0.3,
        "q25": grad - 0.1,
        "q50": grad,
        "q75": grad + 0.1,
        "q95": grad + 0.3,
    }
    ci = {"low": grad - 0.05, "high": grad + 0.05, "level": 0.95, "method": "bootstrap"}
    return {
        "status": "measured",
        "n": 64,
        "seeds": [0],
        "loss": "random_cotangent",
        "input_kind": "synthetic_gaussian",
        "log10_grad_act": quantiles,
        "log10_grad_act_ci": ci,
        "log10_grad_param": quantiles,
        "log10_grad_param_ci": ci,
        "forward_rms": 0.57,
        "input_correlation": 0.99,
        "cosine_between_samples": None,
        "dead_fraction": 0.0,
        "saturated_fraction": 0.02,
        "underflow": {"fp16": 0.4},
        "overflow": {},
        "nonfinite_fraction": 0.0,
        "zero_gradient": False,
    }


def unmeasured(status: str = "not_supported") -> dict:
    null = dict.fromkeys(sampled(0.0))
    return null | {"status": status, "n": 0, "seeds": [], "underflow": {}, "overflow": {}}


def finding(severity: str = "critical", **changes: Any) -> dict:
    return {
        "id": "F001",
        "rule_id": "GF101",
        "title": "Vanishing gradient through saturating activations",
        "message": "backward gain 0.285 per block over 18 sigmoid blocks",
        "severity": severity,
        "category": "vanishing",
        "confidence": 0.97,
        "fingerprint": "b1c0e8f27a4411aa",
        "origins": ["L0018"],
        "affected": [f"L{i:04d}" for i in range(18)],
        "affected_count": 18,
        "evidence": [
            {
                "metric": "sampled.log10_grad_param.q50",
                "value": -11.9,
                "threshold": -7.22,
                "comparator": "<",
                "source": "sampled",
                "unit": "decades",
            }
        ],
        "status": "new",
        "suppression": None,
        "recommendation_ids": ["R1"],
    } | changes


def recommendation(**changes: Any) -> dict:
    effect = {"metric": "summary.spread_decades", "before": 9.8, "unit": "decades"}
    return {
        "id": "R1",
        "action": "replace_activation",
        "title": "Replace Sigmoid with GELU and re-initialise with He gain",
        "targets": ["L0018"],
        "finding_ids": ["F001"],
        "rank": 1,
        "rationale": "the sigmoid's slope is at most 0.25",
        "cost": "retrain",
        "function_preserving": False,
        "expected": [effect | {"after": 0.5}],
        "verification": "verified",
        "verified": [
            effect
            | {
                "after": 0.62,
                "ci_after": {"low": 0.55, "high": 0.7, "level": 0.95, "method": "bootstrap"},
            }
        ],
        "side_effects": ["the output's distribution changes"],
        "patched_model_id": None,
        "snippets": [{"framework": "pytorch", "code": "self.act = nn.GELU()\n# and He"}],
        "references": ["He et al. 2015"],
    } | changes


def report(depth: int = 20, **changes: Any) -> dict:
    """A failing report on a made-up sigmoid net of `depth` layers; `changes` replace blocks."""
    layers = [layer(i) for i in range(depth)]
    layers[min(18, depth - 1)]["risk"] |= {"role": "origin"}
    return {
        "schema_version": "1.0",
        "id": "rep_1",
        "object": "report",
        "model": {
            "id": "mdl_1",
            "name": "deep-sigmoid.onnx",
            "format": "onnx",
            "size_bytes": 3355443,
            "node_count": 41,
            "param_count": 826378,
        },
        "weights": {"state": "fresh", "judged_by": "moments match glorot_uniform"},
        "summary": {
            "score": 23,
            "verdict": "fail",
            "headline": "Gradient vanishes 9.8 decades from loss to input: 18 sigmoid layers",
            "severity_counts": {"critical": 1, "high": 0, "medium": 0, "low": 0, "none": 0},
            "probability_untrainable": None,
            "category_probabilities": None,
            "spread_decades": 9.8,
            "worst_layer": "L0000",
            "agreement_fraction": 0.95,
        },
        "gate": {
            "policy": "default@1",
            "passed": False,
            "fail_on": "high",
            "violating_findings": ["F001"],
            "reason": "1 critical at or above high",
        },
        "findings": [finding()],
        "recommendations": [recommendation()],
        "checks": [
            {"rule_id": "GF101", "title": "Vanishing", "status": "failed", "reason": "F001"},
            {"rule_id": "GF301", "title": "Finite", "status": "passed", "reason": None},
            {"rule_id": "GF220", "title": "Entropy", "status": "not_run", "reason": "none here"},
        ],
        "layers": layers,
        "graph_url": None,
        "coverage": {
            "nodes_total": 41,
            "nodes_analytic": 41,
            "nodes_sampled": 41,
            "params_total": 826378,
            "params_covered": 826378,
            "unsupported_ops": {},
        },
        "warnings": [
            {"code": "W_SYNTHETIC_INPUT", "message": "inputs drawn N(0, 1)", "layer_ids": []}
        ],
        "measurements": [
            {
                "name": "onnxruntime_difference",
                "value": 1.1e-06,
                "low": None,
                "high": None,
                "unit": "relative",
                "source": "sampled",
                "note": "maximum over 4 inputs",
            }
        ],
        "series": [
            {
                "name": "gradient by time step",
                "unit": "decades",
                "x": [0, 1, 2],
                "y": [-2.0, -1.0, 0.0],
                "low": [None, None, None],
                "high": [None, None, None],
            }
        ],
        "provenance": {
            "service_version": "0.1.0",
            "analysis_config_sha256": "6e3b",
            "model_sha256": "9f1c",
            "ir_version": 10,
            "opset": {"ai.onnx": 21},
            "versions": {"torch": "2.13.0"},
            "device": "cpu",
            "dtype": "float64",
            "deterministic": True,
            "seeds": [0],
            "started_at": "2026-11-23T18:00:00Z",
            "finished_at": "2026-11-23T18:00:04Z",
            "stage_ms": {"parse": 31.0, "sampled": 3100.0},
        },
        "compared_to": None,
    } | changes

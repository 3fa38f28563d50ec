"""One example of each call, by its operation's id; tests hold them against the contract."""

from dataclasses import dataclass
from typing import Any

_MODEL_ID = "mdl_01kb0m3t9hq4v6x8z2c5e7g9j1"
_ARCHITECTURE_ID = "arc_01kb0m3t9hq4v6x8z2c5e7g9j2"
_ANALYSIS_ID = "ana_01kb0m3t9hq4v6x8z2c5e7g9j3"
_BASE_ID = "ana_01kb0m3t9hq4v6x8z2c5e7g9j0"
_WHEN = "2026-11-26T16:00:00Z"
_SPEC = {
    "gradgauge": 1,
    "name": "deep-tanh",
    "input": {"shape": [784]},
    "layers": [
        {
            "type": "repeat",
            "times": 50,
            "layers": [
                {"type": "dense", "units": 300},
                {"type": "activation", "function": "tanh"},
            ],
        },
        {"type": "dense", "units": 10},
    ],
    "loss": "cross_entropy",
}
_ANALYSIS = {
    "id": _ANALYSIS_ID,
    "name": "deep-tanh",
    "model_id": None,
    "architecture_id": _ARCHITECTURE_ID,
    "options": {"profile": "quick"},
    "state": "queued",
    "stage": None,
    "progress": 0.0,
    "cached": False,
    "verdict": None,
    "application": None,
    "error": None,
    "created_at": _WHEN,
    "started_at": None,
    "finished_at": None,
}
_DATA = {
    "id": "dat_01kb0m3t9hq4v6x8z2c5e7g9j7",
    "name": "batch.npz",
    "sha256": "9f86d081884c7d659a2feaa0c55ad015a3bf4f1b2b0b822cd15d6c15b0f00a08",
    "size_bytes": 401928,
    "created_at": _WHEN,
}
_APPLYING = _ANALYSIS | {
    "id": "ana_01kb0m3t9hq4v6x8z2c5e7g9j6",
    "application": {
        "analysis_id": _ANALYSIS_ID,
        "recommendation_id": "R1",
        "action": "rescale_init",
        "title": "Rescale the initial weights",
        "finding_ids": ["F1"],
        "model_id": None,
        "changes": [],
        "function_preserving": None,
        "spec": None,
    },
}
_MODEL = {
    "id": _MODEL_ID,
    "name": "net.onnx",
    "sha256": "9f86d081884c7d659a2feaa0c55ad015a3bf4f1b2b0b822cd15d6c15b0f00a08",
    "size_bytes": 3355443,
    "source": None,
    "state": "inspecting",
    "facts": None,
    "problem": None,
    "created_at": _WHEN,
    "updated_at": _WHEN,
}
_ARCHITECTURE = {
    "id": _ARCHITECTURE_ID,
    "name": "deep-tanh",
    "sha256": "60303ae22b998861bce3b28f33eec1be758a213c86c93c076dbe9f558c11c752",
    "spec": _SPEC,
    "created_at": _WHEN,
}
_PART = {
    "number": 1,
    "size_bytes": 1048576,
    "sha256": "30e14955ebf1352266dc2ff8067e68104607e750abb9d3b36582b8af909fcb58",
}
_UPLOAD = {
    "id": "upl_01kb0m3t9hq4v6x8z2c5e7g9j4",
    "name": "net.onnx",
    "size_bytes": 3355443,
    "sha256": None,
    "state": "open",
    "received_bytes": 0,
    "parts": [],
    "model_id": None,
    "created_at": _WHEN,
    "expires_at": "2026-11-27T16:00:00Z",
}
_WEBHOOK = {
    "id": "whk_01kb0m3t9hq4v6x8z2c5e7g9j5",
    "url": "https://ci.example.com/gradgauge",
    "created_at": _WHEN,
}
_KEY = {
    "id": "7q3m9x0c5e2g8j1k",
    "principal": "ci",
    "scope": "write",
    "created_at": _WHEN,
    "expires_at": "2027-02-24T16:00:00Z",
    "revoked_at": None,
    "last_used_at": None,
}
_NEW_KEY = _KEY | {"key": "gg_7q3m9x0c5e2g8j1k_..."}
_ALLOWED = {
    "fingerprint": "b1c0e8f27a4411aa",
    "reason": "known, mended in the next version",
    "expires": "2027-01-31",
}
_POLICY = {
    "name": "release",
    "version": 3,
    "fail_on": "high",
    "min_coverage": 0.95,
    "allow": [_ALLOWED],
    "created_at": _WHEN,
    "updated_at": _WHEN,
}
_GATE = {
    "policy": "release@3",
    "passed": True,
    "fail_on": "high",
    "violating_findings": [],
    "reason": "no finding at or above high",
}
_PAGE = "# GF101 Vanishing gradient through depth\n\n## Cause\n..."
_RULE = {"id": "GF101", "title": "Vanishing gradient through depth"}
_COMPARED = {
    "base": _BASE_ID,
    "head": _ANALYSIS_ID,
    "new": [],
    "existing": [],
    "fixed": [],
    "layers": [
        {
            "name": "layers.3",
            "base_id": "L0003",
            "head_id": "L0003",
            "log10_grad_act": 0.41,
            "log10_grad_param": 0.4,
        }
    ],
    "only_base": [],
    "only_head": ["layers.4"],
    "verdict": "pass",
    "gate": _GATE,
}


@dataclass(frozen=True)
class Example:
    """A request's JSON body and the JSON of what it is answered with; None where there is none."""

    request: dict[str, Any] | None = None
    response: dict[str, Any] | None = None


EXAMPLES: dict[str, Example] = {
    "upload_data": Example(response=_DATA),
    "get_data": Example(response=_DATA),
    "list_data": Example(response={"items": [_DATA], "next_cursor": None}),
    "upload_model": Example(response=_MODEL),
    "fetch_model": Example(
        {"reference": "s3://models/vision/net.onnx"},
        _MODEL | {"source": "s3://models/vision/net.onnx"},
    ),
    "get_model": Example(response=_MODEL),
    "list_models": Example(response={"items": [_MODEL], "next_cursor": None}),
    "create_architecture": Example(_SPEC, _ARCHITECTURE),
    "get_architecture": Example(response=_ARCHITECTURE),
    "list_architectures": Example(response={"items": [_ARCHITECTURE], "next_cursor": None}),
    "create_analysis": Example(
        {"architecture_id": _ARCHITECTURE_ID, "options": {"profile": "quick"}}, _ANALYSIS
    ),
    "get_analysis": Example(response=_ANALYSIS),
    "cancel_analysis": Example(response=_ANALYSIS | {"state": "cancelled", "finished_at": _WHEN}),
    "apply_recommendation": Example(response=_APPLYING),
    "list_analyses": Example(response={"items": [_ANALYSIS], "next_cursor": None}),
    "create_upload": Example({"name": "net.onnx", "size_bytes": 3355443}, _UPLOAD),
    "get_upload": Example(response=_UPLOAD | {"received_bytes": 1048576, "parts": [_PART]}),
    "put_part": Example(response=_PART),
    "complete_upload": Example(response=_MODEL),
    "list_layers": Example(response={"items": [], "next_cursor": 200}),
    "get_graph": Example(
        response={
            "nodes": [
                {
                    "id": f"L000{place}",
                    "name": f"layers.{place}",
                    "scope": "layers",
                    "op": op,
                    "depth": place,
                    "repeat_group": None,
                    "score": 0.98,
                    "severity": "critical",
                    "role": "affected",
                }
                for place, op in enumerate(("Gemm", "Sigmoid"))
            ],
            "edges": [{"source": "L0000", "target": "L0001"}],
        }
    ),
    "get_spectra": Example(
        response={
            "layers": [
                {
                    "id": "L0003",
                    "name": "layers.3",
                    "sigma_max": 1.98,
                    "sigma_min": 0.002,
                    "stable_rank": 65.1,
                }
            ],
            "series": [],
            "measurements": [],
        }
    ),
    "list_rules": Example(response={"items": [_RULE]}),
    "get_rule": Example(
        response=_RULE | {"page": "# GF101 Vanishing gradient through depth\n\n## Cause\n..."}
    ),
    "compare_reports": Example(response=_COMPARED | {"base": "rep_1", "head": "rep_2"}),
    "create_comparison": Example(
        {"base": _BASE_ID, "head": _ANALYSIS_ID, "policy": "release", "only_new": True},
        _COMPARED,
    ),
    "get_gate": Example(
        response={"analysis_id": _ANALYSIS_ID, "findings": [], "verdict": "pass", "gate": _GATE}
    ),
    "put_policy": Example({"fail_on": "high", "min_coverage": 0.95, "allow": [_ALLOWED]}, _POLICY),
    "get_policy": Example(response=_POLICY),
    "list_policies": Example(response={"items": [_POLICY], "next_cursor": None}),
    "create_webhook": Example(
        {"url": _WEBHOOK["url"]},
        _WEBHOOK | {"secret": "whsec_MfKQ9r8GKYqrTwjUPD8ILPZIo2LaLaSw"},
    ),
    "get_webhook": Example(response=_WEBHOOK),
    "list_webhooks": Example(response={"items": [_WEBHOOK], "next_cursor": None}),
    "list_deliveries": Example(
        response={
            "items": [
                {
                    "id": 17,
                    "analysis_id": _ANALYSIS_ID,
                    "outcome": "succeeded",
                    "verdict": "warn",
                    "state": "delivered",
                    "attempts": 1,
                    "answer": "204",
                    "created_at": _WHEN,
                    "next_at": _WHEN,
                    "delivered_at": _WHEN,
                }
            ],
            "next_cursor": None,
        }
    ),
    "create_key": Example({"principal": "ci", "scope": "write", "days": 90}, _NEW_KEY),
    "list_keys": Example(response={"items": [_KEY], "next_cursor": None}),
    "rotate_key": Example({"overlap_hours": 24}, _NEW_KEY),
    "revoke_key": Example(response=_KEY | {"revoked_at": _WHEN}),
    "get_capabilities": Example(
        response={
            "versions": {"service": "0.1.0", "report_schema": "1.0", "spec": 1},
            "profiles": ["quick", "standard", "deep"],
            "engines": ["analytic", "sampled"],
            "target_dtypes": ["fp16", "bf16"],
            "report_formats": [
                "json",
                "markdown",
                "html",
                "sarif",
                "junit",
                "gitlab",
                "github",
                "model-explorer",
            ],
            "ops": [{"domain": "", "op": "Gemm", "since": [1, 7], "kind": "linear"}],
            "limits": {"max_upload_bytes": 2147483648},
            "workers": 1,
        }
    ),
    "live": Example(response={"status": "ok"}),
}

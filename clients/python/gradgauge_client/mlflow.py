"""A report in an MLflow run: its numbers as metrics, its verdict as tags, itself as artifacts."""

import time
from collections.abc import Sequence
from typing import Any

from gradgauge_client._extras import needed
from gradgauge_client._report import Report

PREFIX = "gradgauge"
_LONGEST_TAG = 5000  # MLflow's own limit
_WRITERS = {
    "html": ("html", Report.to_html),
    "markdown": ("md", Report.to_markdown),
    "sarif": ("sarif", Report.to_sarif),
    "junit": ("xml", Report.to_junit),
}


def log_report(
    report: Report,
    *,
    run_id: str | None = None,
    step: int = 0,
    formats: Sequence[str] = ("html",),
) -> str:
    """Log a report to the MLflow run `run_id`, else to the active one, and return the run's id.

    Metrics, of the `step` of training that was analysed: `gradgauge.score` (0 to 100),
    `gradgauge.spread_decades`, `gradgauge.agreement_fraction`, `gradgauge.coverage_fraction` (of
    the parameters), `gradgauge.findings.high` and the other severities, and
    `gradgauge.probability_untrainable.sgd` and `.adam`; what is not known is not logged. Tags:
    `gradgauge.verdict`, `.headline`, `.report_id`, `.model_sha256`, `.service_version`. Artifacts,
    below `gradgauge/`: `report.json`, and the report in `formats` (html, markdown, sarif, junit).

    Nothing is logged where a format cannot be written.

    Raises:
        ImportError: MLflow is not installed.
        ValueError: a format that is none of these, or no run is named and none is active.
        GradgaugeError: what `Report.to_html` raises.
        MlflowException: MLflow refused, or there is no such run.
    """
    mlflow, entities = needed("mlflow", "log_report"), needed("mlflow.entities", "log_report")
    unknown = [form for form in formats if form not in _WRITERS]
    if unknown:
        raise ValueError(f"unknown format {unknown[0]!r}: choose of {', '.join(_WRITERS)}")
    run_id = run_id or _active(mlflow)
    texts = {f"report.{_WRITERS[form][0]}": _WRITERS[form][1](report) for form in formats}
    now = int(1000 * time.time())
    client = mlflow.MlflowClient()
    client.log_batch(
        run_id,
        metrics=[entities.Metric(name, value, now, step) for name, value in _metrics(report)],
        tags=[entities.RunTag(name, text[:_LONGEST_TAG]) for name, text in _tags(report)],
    )
    for name, text in {"report.json": report.to_json(), **texts}.items():
        client.log_text(run_id, text, f"{PREFIX}/{name}")
    return run_id


def _active(mlflow: Any) -> str:
    run = mlflow.active_run()
    if run is None:
        raise ValueError("no MLflow run is active: start one, or give run_id")
    return str(run.info.run_id)


def _metrics(report: Report) -> list[tuple[str, float]]:
    summary, coverage = report.summary, report.coverage
    covered = coverage.params_covered / coverage.params_total if coverage.params_total else None
    told: dict[str, float | None] = {
        "score": summary.score,
        "spread_decades": summary.spread_decades,
        "agreement_fraction": summary.agreement_fraction,
        "coverage_fraction": covered,
    }
    for severity in ("critical", "high", "medium", "low"):
        told[f"findings.{severity}"] = getattr(summary.severity_counts, severity)
    if summary.probability_untrainable is not None:
        for optimizer in ("sgd", "adam"):
            probability = getattr(summary.probability_untrainable, optimizer)
            told[f"probability_untrainable.{optimizer}"] = probability.p
    return [(f"{PREFIX}.{name}", float(v)) for name, v in told.items() if v is not None]


def _tags(report: Report) -> list[tuple[str, str]]:
    told = {
        "verdict": report.summary.verdict,
        "headline": report.summary.headline,
        "report_id": report.id,
        "model_sha256": report.provenance.model_sha256,
        "service_version": report.provenance.service_version,
    }
    return [(f"{PREFIX}.{name}", text) for name, text in told.items()]

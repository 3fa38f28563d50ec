"""What the service counts about itself, for Prometheus: bounded labels, no name from outside.

Every process counts for itself. The parts of one `gradgauge serve` share a folder of counts, which
its supervisor names in PROMETHEUS_MULTIPROC_DIR, so that the API tells those of the worker too; a
worker on a machine of its own tells them at a port of its own.
"""

import os
import re
import time
from collections.abc import Iterable, Sequence
from dataclasses import dataclass
from pathlib import Path

from prometheus_client import (
    CONTENT_TYPE_LATEST,
    REGISTRY,
    CollectorRegistry,
    Counter,
    Histogram,
    generate_latest,
)
from prometheus_client.core import GaugeMetricFamily
from prometheus_client.multiprocess import MultiProcessCollector
from prometheus_client.registry import Collector
from typing_extensions import override

CONTENT_TYPE = CONTENT_TYPE_LATEST
OTHER = "other"

_METHODS = frozenset({"GET", "HEAD", "POST", "PUT", "PATCH", "DELETE", "OPTIONS"})
STAGES = ("read", "inspect", "analytic", "sampled", "remedy")
_CODE = re.compile(r"[a-z][a-z_]{0,39}")
_MOST_CODES = 100
_MIB = 1 << 20

_SHORT_S = (0.001, 0.0025, 0.005, 0.01, 0.025, 0.05, 0.1, 0.25, 0.5, 1, 2.5, 10, 60)
_LONG_S = (0.05, 0.1, 0.25, 0.5, 1, 2.5, 5, 10, 30, 60, 120, 300, 600, 1800, 3600)
_SIZES = tuple(size * _MIB for size in (16, 32, 64, 128, 256, 512, 1024, 2048, 4096, 8192, 16384))

_REQUESTS = Histogram(
    "gradgauge_http_request_seconds",
    "Time from a request's head to the end of its answer.",
    ("method", "route", "status"),
    buckets=_SHORT_S,
)
_UPLOADED = Counter("gradgauge_upload_bytes", "Bytes of models that were received whole.")
_ENDED = Counter(
    "gradgauge_jobs", "Jobs at their end, by outcome and code.", ("task", "outcome", "code")
)
_WAITED = Histogram(
    "gradgauge_job_wait_seconds",
    "Time from a job's request to its first start.",
    ("task",),
    buckets=_LONG_S,
)
_RAN = Histogram("gradgauge_job_run_seconds", "Time of one attempt.", ("task",), buckets=_LONG_S)
_STAGE = Histogram(
    "gradgauge_stage_seconds", "Time in one stage of a child's work.", ("stage",), buckets=_LONG_S
)
_CHILD = Histogram(
    "gradgauge_child_peak_bytes",
    "Most memory of its own that a child held, looked at every 50 ms.",
    ("task",),
    buckets=_SIZES,
)


@dataclass(frozen=True)
class Gauge:
    """A number that is asked for when somebody looks: its name, what it is, and its samples."""

    name: str
    told: str
    labels: tuple[str, ...]
    samples: Sequence[tuple[tuple[str, ...], float]]


def request(verb: str, route: str | None, status: int, seconds: float) -> None:
    """Count a request; `route` is its template, None where it met none."""
    _REQUESTS.labels(method(verb), route or OTHER, str(status)).observe(seconds)


def method(told: str) -> str:
    """A method as a label: one of those that there are, or `other`."""
    return told if told in _METHODS else OTHER


def uploaded(size_bytes: int) -> None:
    """Count an upload that is whole."""
    _UPLOADED.inc(size_bytes)


def waited(task: str, seconds: float) -> None:
    """Count a job's wait."""
    _WAITED.labels(task).observe(max(0.0, seconds))


def ended(task: str, outcome: str, code: str | None, seconds: float) -> None:
    """Count the end of an attempt: `outcome` is ours, `code` may come from a child."""
    _RAN.labels(task).observe(seconds)
    _ENDED.labels(task, outcome, _bounded(code)).inc()


def child(task: str, peak_bytes: int) -> None:
    """Count a child's memory."""
    _CHILD.labels(task).observe(peak_bytes)


class StageClock:
    """Times a child's stages by the progress it tells; those it skips over are not counted."""

    def __init__(self) -> None:
        self._stage: str | None = None
        self._began = 0.0

    def tell(self, stage: str) -> None:
        """The child is in `stage` now."""
        if stage != self._stage:
            self.stop()
            self._stage, self._began = stage, time.monotonic()

    def stop(self) -> None:
        """The child is at its end, or in another stage."""
        if self._stage is not None:
            stage = self._stage if self._stage in STAGES else OTHER
            _STAGE.labels(stage).observe(time.monotonic() - self._began)
            self._stage = None


def exposition(gauges: Sequence[Gauge] = ()) -> bytes:
    """Return all that this process, or this supervised service, has counted, and the gauges."""
    shared = CollectorRegistry()
    try:
        MultiProcessCollector(shared)  # type: ignore[no-untyped-call]
    except ValueError:  # no folder is named: these counts are this process's own
        told = generate_latest(REGISTRY)
    else:
        told = generate_latest(shared)
    asked = CollectorRegistry()
    asked.register(_Asked(gauges))
    return told + generate_latest(asked)


def forget_dead(folder: Path, *, most: int = 32) -> None:
    """Delete what ended processes counted in a shared folder, but for the `most` latest files.

    A part that ends again and again would fill the folder, and each scrape reads all of it.
    """
    dead = [path for path in folder.glob("*_*.db") if not _lives(path.stem.rpartition("_")[2])]
    dead.sort(key=lambda path: path.stat().st_mtime)
    for path in dead[: max(0, len(dead) - most)]:
        path.unlink(missing_ok=True)


def _lives(pid: str) -> bool:
    try:
        os.kill(int(pid), 0)
    except (ValueError, ProcessLookupError):
        return False
    except PermissionError:
        return True
    return True


class _Asked(Collector):
    def __init__(self, gauges: Sequence[Gauge]) -> None:
        self._gauges = gauges

    @override
    def collect(self) -> Iterable[GaugeMetricFamily]:
        for gauge in self._gauges:
            family = GaugeMetricFamily(gauge.name, gauge.told, labels=gauge.labels)
            for labels, value in gauge.samples:
                family.add_metric(labels, value)
            yield family


_codes: set[str] = {"none"}


def _bounded(code: str | None) -> str:
    """A code as a label: one that a child made up cannot make more than so many series."""
    code = code or "none"
    if code not in _codes:
        if len(_codes) >= _MOST_CODES or not _CODE.fullmatch(code):
            return OTHER
        _codes.add(code)
    return code

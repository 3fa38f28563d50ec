"""What runs in the confined child: the engine's two entries, behind plain dictionaries."""

import time
from dataclasses import asdict
from pathlib import Path
from typing import Any

import torch

from gradgauge import pipeline
from gradgauge.sampled.budget import of_analysis
from gradgauge.schema.options import AnalysisOptions
from gradgauge.worker.answer import Report, Task, main
from gradgauge.worker.frames import Request

_SHARE = 0.95  # of the wall clock: what names the node is to come before what kills the child


def analyze(request: Request, report: Report) -> dict[str, Any]:
    """The whole analysis of the file at `request.source`, as the report's JSON."""
    # Only now: a pool started before the confinement would have stayed outside of it.
    torch.set_num_threads(request.threads)
    began = time.monotonic()
    options = AnalysisOptions.model_validate(request.options)
    seconds = None if request.wall_s is None else _SHARE * request.wall_s
    found = pipeline.analyze(
        Path(request.source),
        options,
        on_progress=report,
        budget=of_analysis(request.memory_bytes, seconds, began),
    )
    return found.model_dump(mode="json")


def inspect(request: Request, report: Report) -> dict[str, Any]:
    """What the file at `request.source` holds, checked but not run."""
    report("inspect", 0.0)
    return asdict(pipeline.inspect(Path(request.source)))


TASKS: dict[str, Task] = {"analyze": analyze, "inspect": inspect}

if __name__ == "__main__":
    main(TASKS)

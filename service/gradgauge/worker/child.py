"""What runs in the confined child: the engine's two entries, behind plain dictionaries."""

from dataclasses import asdict
from pathlib import Path
from typing import Any

import torch

from gradgauge import pipeline
from gradgauge.schema.options import AnalysisOptions
from gradgauge.worker.answer import Report, Task, main
from gradgauge.worker.frames import Request


def analyze(request: Request, report: Report) -> dict[str, Any]:
    """The whole analysis of the file at `request.source`, as the report's JSON."""
    # Only now: a pool started before the confinement would have stayed outside of it.
    torch.set_num_threads(request.threads)
    options = AnalysisOptions.model_validate(request.options)
    found = pipeline.analyze(Path(request.source), options, on_progress=report)
    return found.model_dump(mode="json")


def inspect(request: Request, report: Report) -> dict[str, Any]:
    """What the file at `request.source` holds, checked but not run."""
    report("inspect", 0.0)
    return asdict(pipeline.inspect(Path(request.source)))


TASKS: dict[str, Task] = {"analyze": analyze, "inspect": inspect}

if __name__ == "__main__":
    main(TASKS)

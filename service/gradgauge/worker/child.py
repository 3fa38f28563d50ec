"""What runs in a confined child: the engine's entries, and onnxruntime in a child of its own."""

import time
from collections.abc import Mapping
from dataclasses import asdict
from pathlib import Path
from typing import Any

import numpy as np
import onnx_ir
import torch

from gradgauge import pipeline
from gradgauge.errors import LimitExceeded, NotCompared
from gradgauge.remedy.patched import Wanted
from gradgauge.sampled.budget import of_analysis
from gradgauge.sampled.reference import Answer, Runtime
from gradgauge.schema.options import AnalysisOptions
from gradgauge.worker import exchange
from gradgauge.worker.answer import Link, Task, main
from gradgauge.worker.frames import INPUTS, MODEL, MODEL_BYTES, OUTPUTS, Request
from gradgauge.worker.runtime_child import infer

_SHARE = 0.95  # of the wall clock: what names the node is to come before what kills the child


def analyze(request: Request, link: Link) -> dict[str, Any]:
    """The whole analysis of the file at `request.source`, as the report's JSON."""
    # Only now: a pool started before the confinement would have stayed outside of it.
    torch.set_num_threads(request.threads)
    began = time.monotonic()
    options = AnalysisOptions.model_validate(request.options)
    seconds = None if request.wall_s is None else _SHARE * request.wall_s
    found = pipeline.analyze(
        Path(request.source),
        options,
        on_progress=link,
        budget=of_analysis(request.memory_bytes, seconds, began),
        runtime=elsewhere(request, link) if request.exchange else None,
    )
    return found.model_dump(mode="json")


def elsewhere(request: Request, link: Link) -> Runtime:
    """onnxruntime, which never runs in this process: the worker has another child run it."""
    folder = Path(request.exchange)

    def start(model: onnx_ir.Model, fed: Mapping[str, np.ndarray]) -> Answer:
        built = _built(request, model)
        exchange.write(folder / INPUTS, [*built, *fed.items()])
        link.ask()

        def answer() -> list[np.ndarray | None]:
            reason = link.answer().reason
            if reason is not None:
                raise NotCompared("not_compared", reason)
            try:
                return [a for _, a in exchange.read(folder / OUTPUTS)]
            except exchange.Damaged as error:
                raise NotCompared("not_compared", f"the outputs are damaged: {error}") from error

        return answer

    return start


def _built(request: Request, model: onnx_ir.Model) -> list[tuple[str, np.ndarray]]:
    """The graph made of a spec, which the other child would need the whole engine to make."""
    if Path(request.source).suffix.lower() not in pipeline.SPEC_SUFFIXES:
        return []
    held = sum(v.const_value.nbytes for v in model.graph.initializers.values() if v.const_value)
    if held > MODEL_BYTES:
        return []
    proto = onnx_ir.serde.serialize_model(model).SerializeToString()
    return [(MODEL, np.frombuffer(proto, np.uint8))]


def inspect(request: Request, link: Link) -> dict[str, Any]:
    """What the file at `request.source` holds, checked but not run."""
    link("inspect", 0.0)
    return asdict(pipeline.inspect(Path(request.source)))


def patch(request: Request, link: Link) -> dict[str, Any]:
    """Write the patched model of `options["recommendation"]` to the one writable file."""
    torch.set_num_threads(request.threads)
    began = time.monotonic()
    given = dict(request.options)
    wanted = Wanted.model_validate(given.pop("recommendation"))
    seconds = None if request.wall_s is None else _SHARE * request.wall_s
    made = pipeline.patched(
        Path(request.source),
        wanted,
        AnalysisOptions.model_validate(given),
        on_progress=link,
        budget=of_analysis(request.memory_bytes, seconds, began),
    )
    content = made.content()
    if len(content) > request.file_bytes:
        raise LimitExceeded(
            "patched_too_large",
            f"the patched model has {len(content)} bytes",
            limit=f"file_bytes={request.file_bytes}",
            hint="a service's limit is GRADGAUGE_MAX_UPLOAD_BYTES; ONNX's own is 2 GiB",
        )
    Path(request.writable[0]).write_bytes(content)
    return {
        "action": made.action,
        "title": made.title,
        "changes": list(made.changes),
        "targets": list(made.targets),
        "function_preserving": made.function_preserving,
        "size_bytes": len(content),
        "spec": None if made.spec is None else asdict(made.spec),
    }


TASKS: dict[str, Task] = {"analyze": analyze, "infer": infer, "inspect": inspect, "patch": patch}

if __name__ == "__main__":
    main(TASKS)

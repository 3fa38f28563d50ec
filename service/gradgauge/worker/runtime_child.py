"""What runs in the second confined child: onnxruntime on the model and inputs of an analysis."""

import mmap
from collections.abc import Mapping
from pathlib import Path
from typing import Any

import numpy as np

from gradgauge.errors import NotCompared
from gradgauge.worker import exchange
from gradgauge.worker.answer import Link, main
from gradgauge.worker.frames import INPUTS, MODEL, OUTPUTS, Request

_ZIP = b"PK\x03\x04"
_SPECS = {".yaml", ".yml", ".json"}
_SERIOUS = 3
_LINE = 200


def infer(request: Request, link: Link) -> dict[str, Any]:
    """Read the inputs, run the model on one thread and without optimisations, write its outputs.

    Raises:
        NotCompared: onnxruntime cannot load or run it, in its own words.
    """
    del link
    # Only now: the import starts threads, and one from before the confinement stays outside of it.
    import onnxruntime  # noqa: PLC0415

    folder = Path(request.exchange)
    fed = {name: a for name, a in exchange.read(folder / INPUTS) if a is not None}
    built = fed.pop(MODEL, None)
    options = onnxruntime.SessionOptions()
    options.graph_optimization_level = onnxruntime.GraphOptimizationLevel.ORT_DISABLE_ALL
    options.intra_op_num_threads = options.inter_op_num_threads = 1
    options.enable_cpu_mem_arena = False
    options.log_severity_level = _SERIOUS
    try:
        source = Path(request.source)
        model, beside = (
            (built.tobytes(), {})
            if built is not None and source.suffix.lower() in _SPECS
            else _model(source, int(request.options["seed"]))
        )
        bodies = [np.frombuffer(body, np.uint8) for body in beside.values()]
        options.add_external_initializers_from_files_in_memory(
            list(beside), bodies, [body.size for body in bodies]
        )  # which does not keep them: they have to outlive the session's making
        session = onnxruntime.InferenceSession(model, options, ["CPUExecutionProvider"])
        values = {name: _value(onnxruntime, a) for name, a in fed.items()}
        outputs = session.run_with_ort_values(None, values)
    except Exception as fault:  # noqa: BLE001 - its errors share no base class but this
        raise NotCompared("not_compared", _said(fault, request)) from None
    names = [output.name for output in session.get_outputs()]
    made = [_array(value) for value in outputs]
    exchange.write(folder / OUTPUTS, list(zip(names, made, strict=True)))
    return {}


def _model(source: Path, seed: int) -> tuple[str | bytes, Mapping[str, memoryview]]:
    """As it was uploaded: a path, else the bytes of a spec's graph or a zip's model and files."""
    if source.suffix.lower() in _SPECS:
        import onnx_ir  # noqa: PLC0415 - most models need none of these

        from gradgauge.graph.read_spec import read_spec  # noqa: PLC0415

        graph = read_spec(source, seed=seed)
        return bytes(onnx_ir.serde.serialize_model(graph.model).SerializeToString()), {}
    with source.open("rb") as file:
        if file.read(len(_ZIP)) != _ZIP:
            return str(source), {}
        data = memoryview(mmap.mmap(file.fileno(), 0, access=mmap.ACCESS_READ))
    from gradgauge.graph.archive import open_archive  # noqa: PLC0415
    from gradgauge.graph.limits import DEFAULT_LIMITS  # noqa: PLC0415

    archive = open_archive(data, DEFAULT_LIMITS)
    return bytes(archive.model), archive.files.members


def _value(onnxruntime: Any, a: np.ndarray) -> Any:
    if a.dtype.name == "bfloat16":  # which onnxruntime takes by its number in ONNX
        return onnxruntime.OrtValue.ortvalue_from_numpy_with_onnx_type(a.view(np.uint16), 16)
    return onnxruntime.OrtValue.ortvalue_from_numpy(a)


def _array(value: Any) -> np.ndarray | None:
    """None for sequences, strings, what is absent, and element types numpy lacks."""
    if not value.has_value() or not value.is_tensor():
        return None
    try:
        found = value.numpy()
    except RuntimeError:
        return None
    return found if isinstance(found, np.ndarray) else None


def _said(fault: Exception, request: Request) -> str:
    """The first line of what went wrong, without paths of this machine."""
    text = str(fault).replace(request.source, "the model")
    text = text.replace(str(Path(request.source).parent), "")
    lines = text.strip().splitlines() or [type(fault).__name__]
    return f"onnxruntime: {lines[0][:_LINE]}"


if __name__ == "__main__":
    main({"infer": infer})

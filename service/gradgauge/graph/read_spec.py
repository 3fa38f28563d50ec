"""A spec becomes a checked graph whose weights are drawn, lazily, from their initial laws."""

import hashlib
from pathlib import Path

import onnx_ir

from gradgauge.errors import InvalidSpec, LimitExceeded
from gradgauge.graph.model import Graph
from gradgauge.graph.spec_nodes import build
from gradgauge.schema.document import Format
from gradgauge.schema.spec import DEFAULT_LIMITS, ArchSpec, SpecLimits, parse_spec
from gradgauge.schema.spec_shapes import count

_FORMATS: dict[str, Format] = {".json": "json", ".yaml": "yaml", ".yml": "yaml"}
_IR_VERSIONS = {21: 10, 23: 11}  # what each opset was released with


def read_spec(
    spec: ArchSpec | str | bytes | Path,
    *,
    seed: int = 0,
    name: str | None = None,
    limits: SpecLimits = DEFAULT_LIMITS,
) -> Graph:
    """The ONNX graph of a spec with its batch axis `N` first and one law per weight.

    Its opset is 21, or 23 where it holds an rms_norm, whose operator came with that one.

    Every weight is drawn from PCG64 seeded by `seed` and the weight's own name, when it is first
    read. The input's law is in its metadata (`gradgauge.distribution` with `.mean` and `.scale`,
    or `.low` and `.high`), the loss in the model's (`gradgauge.loss`). `sha256` is of the text, or
    of the canonical JSON of a spec that was not read from text.

    Raises:
        InvalidSpec: not a valid spec, or shapes that do not fit; `where` holds the path.
        LimitExceeded: larger than `limits`.
    """
    parsed, text = _parsed(spec, limits)
    count(parsed, limits=limits)
    graph, laws = build(parsed, seed)
    version = _IR_VERSIONS[graph.opset_imports[""]]
    model = onnx_ir.Model(graph, ir_version=version, producer_name="gradgauge")
    model.metadata_props["gradgauge.seed"] = str(seed)
    if parsed.loss is not None:
        model.metadata_props["gradgauge.loss"] = parsed.loss
    return Graph(
        model=model,
        name=name or parsed.name,
        format="spec",
        sha256=hashlib.sha256(text).hexdigest(),
        size_bytes=len(text),
        laws=laws,
        spec=parsed,
    )


def export(graph: Graph, path: Path) -> None:
    """Write the graph as one .onnx file; a spec's limits keep it below protobuf's 2 GiB."""
    onnx_ir.save(graph.model, path)


def _parsed(spec: ArchSpec | str | bytes | Path, limits: SpecLimits) -> tuple[ArchSpec, bytes]:
    if isinstance(spec, ArchSpec):
        return spec, spec.model_dump_json(exclude_unset=True).encode()
    if isinstance(spec, Path):
        text = _content(spec, limits)
        return parse_spec(text, format=_FORMATS.get(spec.suffix.lower()), limits=limits), text
    text = spec.encode("utf-8", "surrogatepass") if isinstance(spec, str) else spec
    return parse_spec(text, limits=limits), text


def _content(path: Path, limits: SpecLimits) -> bytes:
    try:
        with path.open("rb") as file:
            text = file.read(limits.max_bytes + 1)
    except OSError as error:
        raise InvalidSpec(
            "unreadable", f"cannot be read: {error.strerror}", where=str(path)
        ) from error
    if len(text) > limits.max_bytes:
        raise LimitExceeded(
            "spec_too_large",
            f"the file has more than {limits.max_bytes:,} bytes",
            where=str(path),
            limit=f"max_bytes={limits.max_bytes}",
            hint="use `repeat` for repeated layers; a model is given as .onnx",
        )
    return text

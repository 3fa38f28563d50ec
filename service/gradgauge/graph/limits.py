"""What a model may cost before anything is computed: every bound of the reader in one record."""

from dataclasses import dataclass

from gradgauge.errors import LimitExceeded

_MiB = 1 << 20
_GiB = 1 << 30


@dataclass(frozen=True, slots=True)
class Limits:
    """Bounds on one upload; counts unless the name says bytes.

    Subgraphs and function bodies count where they are written; `inlined_nodes` is the count after
    every function call is replaced by its body, computed before it is done.
    """

    model_bytes: int = 2 * _GiB - 1
    nodes: int = 100_000
    inlined_nodes: int = 200_000
    inlined_bytes: int = _GiB
    functions: int = 10_000
    call_depth: int = 64
    nesting_depth: int = 24
    graph_inputs: int = 1_024
    graph_outputs: int = 4_096
    input_bytes: int = 2 * _GiB
    names: int = 4_000_000
    name_bytes: int = 4_096
    text_bytes: int = 64 * _MiB
    metadata_entries: int = 1_000
    attributes: int = 1_000_000
    initializers: int = 200_000
    rank: int = 64
    tensor_bytes: int = 16 * _GiB
    total_tensor_bytes: int = 32 * _GiB
    constant_bytes: int = 256 * _MiB
    densified_bytes: int = _GiB
    external_files: int = 10_000
    external_bytes: int = 32 * _GiB
    external_reuse: int = 4
    archive_members: int = 1_000
    archive_directory_bytes: int = 4 * _MiB
    archive_bytes: int = 32 * _GiB
    archive_ratio: int = 200


DEFAULT_LIMITS = Limits()

_WHAT = {
    "model_bytes": "bytes of the model file",
    "nodes": "nodes, with subgraphs and functions",
    "inlined_nodes": "nodes once functions are inlined",
    "inlined_bytes": "bytes once functions are inlined",
    "functions": "model-local functions",
    "call_depth": "levels of functions calling functions",
    "nesting_depth": "levels of graphs nested in graphs",
    "graph_inputs": "graph inputs without a default",
    "graph_outputs": "graph outputs",
    "input_bytes": "bytes of one declared graph input",
    "names": "names of values",
    "name_bytes": "bytes of one name",
    "text_bytes": "bytes of documentation and metadata",
    "metadata_entries": "metadata entries of the model or of one node",
    "attributes": "attributes",
    "initializers": "initializers",
    "rank": "axes of one tensor",
    "tensor_bytes": "bytes of one tensor",
    "total_tensor_bytes": "bytes of all tensors",
    "constant_bytes": "bytes of tensors in attributes",
    "densified_bytes": "bytes of one sparse tensor made dense",
    "external_files": "external data files",
    "external_bytes": "bytes of all external data files",
    "external_reuse": "times the external data is referenced over its size",
    "archive_members": "members of the archive",
    "archive_directory_bytes": "bytes of the archive's directory",
    "archive_bytes": "bytes the archive unpacks to",
    "archive_ratio": "times one archive member grows when unpacked",
}


def hold(limits: Limits, name: str, asked: int, where: str | None = None) -> None:
    """Let `asked` pass where it is within the limit `name`.

    Raises:
        LimitExceeded: it is not; the error names the limit, its value and what was asked.
    """
    allowed = int(getattr(limits, name))
    if asked <= allowed:
        return
    raise LimitExceeded(
        "limit_exceeded",
        f"the model asks for {_figure(asked)} {_WHAT[name]}; {_figure(allowed)} are allowed",
        where=where,
        limit=f"{name}={allowed}",
        hint=f"make the model smaller, or raise the limit {name}",
    )


def _figure(number: int) -> str:
    """Exact while a person can read it, then its power of ten (no 5,000-digit messages)."""
    return f"{number:,}" if number < 10**15 else f"over 10^{number.bit_length() * 3 // 10 - 1}"

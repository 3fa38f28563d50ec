"""The signals of stored weights read anew into the table: no engine runs, nothing else changes."""

import gzip
import json

from benchmarks.trainability.export import export
from benchmarks.trainability.measure import MODES
from benchmarks.trainability.shards import FOLDER
from benchmarks.trainability.specs import Spec, spec

from gradgauge.graph.layers import find_layers, links
from gradgauge.graph.read_onnx import read_onnx
from gradgauge.risk.features import Evidence, features
from gradgauge.risk.outliers import outliers, scales
from gradgauge.risk.stored import stored

KEPT = ("weights.", "recurrence.")


def main() -> None:
    """Every row of every shard, in each of its modes."""
    for path in sorted(FOLDER.glob("signals-*.jsonl.gz")):
        held = [json.loads(line) for line in gzip.decompress(path.read_bytes()).splitlines()]
        for row in held:
            found = read(spec(int(row["id"][1:])))
            for mode in (*MODES, *(f"{mode}-blind" for mode in MODES)):
                if mode in row:
                    row[mode]["features"] |= found
        text = "".join(json.dumps(row, separators=(",", ":")) + "\n" for row in held)
        path.write_bytes(gzip.compress(text.encode(), mtime=0))
        print(path.name, flush=True)


def read(one: Spec) -> dict[str, float]:
    """Four digits each, as in the rest of the row."""
    model = read_onnx(export(one)).model
    layers = find_layers(model)
    before, sizes = links(model, layers), scales(model, layers)
    told = stored(model, layers, sizes, outliers(model, layers, before, sizes))
    held = features(Evidence(layers, before, None, None, told))
    return {k: float(f"{v:.4g}") for k, v in held.items() if v is not None and k.startswith(KEPT)}

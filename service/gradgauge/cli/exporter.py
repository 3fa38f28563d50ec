"""`gradgauge export`: a spec as an ONNX file, its weights drawn."""

import argparse
import sys
from collections.abc import Sequence
from pathlib import Path

from gradgauge.cli.said import MISSING, say
from gradgauge.errors import GradgaugeError, InvalidInput


def export(words: Sequence[str]) -> int:
    """Write the ONNX model of an architecture spec: 0, 1 where it cannot be written, 2, 5."""
    given = _parser().parse_args(list(words))
    try:
        from gradgauge.graph import read_spec  # noqa: PLC0415 - the worker extra may be missing
    except ImportError as missing:
        return say(f"{MISSING} ({missing})", 2)
    try:
        graph = read_spec.read_spec(given.spec, seed=given.seed)
        read_spec.export(graph, given.output)
    except GradgaugeError as error:
        return say(f"{given.spec.name}: {error}", 2 if isinstance(error, InvalidInput) else 5)
    except OSError as error:
        return say(f"cannot write {given.output}: {error.strerror}", 1)
    size = given.output.stat().st_size
    opset = graph.model.opset_imports[""]
    sys.stderr.write(f"{given.output}: opset {opset}, {size:,} bytes, seed {given.seed}\n")
    return 0


def _parser() -> argparse.ArgumentParser:
    parser = argparse.ArgumentParser(
        prog="gradgauge export",
        description="Write an architecture spec as an ONNX model, its weights drawn from their "
        "initial laws. A Keras to_json() and a Hugging Face config.json are read too.",
    )
    parser.add_argument("spec", type=Path, help="spec in YAML or JSON")
    parser.add_argument("-o", "--output", type=Path, required=True, help="the .onnx file to write")
    parser.add_argument("--seed", type=int, default=0, help="seed of the weights (0)")
    return parser

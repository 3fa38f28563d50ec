"""Gradients by architecture and exporter: python -m benchmarks.gradients [--only NAME]."""

import argparse
import sys
import time

import torch

from tests.architectures.measure import measured_forward, measured_gradients
from tests.architectures.table import ARCHITECTURES, settings
from tests.exports import Exporter

HEAD = (
    "architecture",
    "exporter",
    "opset",
    "nodes",
    "mapped",
    "output, f64",
    "gradient, f64",
    "f32, torch",
    "f32, onnxruntime",
)


def row(name: str, exporter: Exporter, opset: int) -> tuple[str, ...]:
    """What was measured, or the error of the exporter (or of onnxruntime on what it wrote)."""
    architecture = ARCHITECTURES[name]
    if exporter in architecture.refused:
        return (name, exporter, str(opset), f"refused: {architecture.refused[exporter]}")
    found = measured_gradients(architecture, exporter, opset)
    forward = measured_forward(architecture, exporter, opset)
    whole = found.parameters
    return (
        name,
        exporter,
        str(found.opset),
        str(found.nodes),
        f"{whole.parameters - len(whole.unmapped)} of {whole.parameters}",
        f"{found.output:.0e}",
        f"{found.gradient:.0e}",
        f"{forward.torch:.0e}",
        f"{forward.onnxruntime:.0e}",
    )


def main() -> int:
    parser = argparse.ArgumentParser(description=__doc__)
    parser.add_argument("--only", default="", help="only architectures with this in their name")
    options = parser.parse_args()
    torch.set_num_threads(1)
    began = time.process_time()
    print("| " + " | ".join(HEAD) + " |")
    print("|" + " --- |" * len(HEAD))
    for name in ARCHITECTURES:
        if options.only in name:
            for exporter, opset in settings(name):
                cells = row(name, exporter, opset)
                print("| " + " | ".join(cells) + " |" * (1 + len(HEAD) - len(cells)), flush=True)
    print(f"\n{time.process_time() - began:.0f} s of processor time", file=sys.stderr)
    return 0


if __name__ == "__main__":
    sys.exit(main())

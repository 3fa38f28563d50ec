"""What the API and the worker's loop import loads no machine learning."""

import subprocess
import sys
from pathlib import Path

LOADED = """
import sys
import gradgauge.jobs.work, gradgauge.jobs.uploads, gradgauge.store.schema, gradgauge.telemetry
import gradgauge.schema.resources
print(sorted({"torch", "numpy", "onnx", "onnx_ir", "onnxruntime", "pandas"} & set(sys.modules)))
"""


def test_state_and_queue_load_no_framework():
    service = Path(__file__).parents[2] / "service"
    done = subprocess.run(
        [sys.executable, "-c", LOADED],
        env={"PYTHONPATH": str(service)},
        capture_output=True,
        text=True,
        check=True,
    )
    assert done.stdout == "[]\n"

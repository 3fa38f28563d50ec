"""What the zygote has loaded is all that an analysis in its children uses."""

import json
import subprocess
import sys
from pathlib import Path

from gradgauge.worker import spawn

EXAMPLES = Path(__file__).parents[2] / "examples"
SCRIPT = """
import json, os, sys
from pathlib import Path

from gradgauge import pipeline
from gradgauge.worker import warm, zygote

warm.up()
loaded, opened = set(sys.modules), []
threads = len(os.listdir("/proc/self/task"))
sys.addaudithook(lambda event, args: event == "open" and opened.append(str(args[0])))
for name in ("deep-sigmoid.yaml", "pre-ln-transformer.onnx"):
    source = Path(sys.argv[1], name)
    pipeline.analyze(source, pipeline.AnalysisOptions(profile="quick", remediate=False))
late = sorted(set(sys.modules) - loaded)
print(json.dumps({"late": late, "opened": opened, "threads": threads}))
"""


def test_a_quick_analysis_imports_nothing_and_reads_its_source_alone():
    command = [sys.executable, "-P", "-c", SCRIPT, str(EXAMPLES)]
    done = subprocess.run(
        command, env=spawn.environment(), capture_output=True, check=True, text=True
    )
    told = json.loads(done.stdout)
    assert told["late"] == []
    assert told["threads"] == 1  # or the zygote would refuse to fork
    # asked of the import system by inspect.signature, which opens the library's zip, if it is there
    opened = {path for path in told["opened"] if not path.endswith(".zip")}
    assert {Path(path).parent for path in opened} == {EXAMPLES}

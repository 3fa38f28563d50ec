"""How long an analysis child takes to start, confined, and what it costs.

Run: `python benchmarks/child_start.py [jobs]`. Prints one JSON object: milliseconds from the
request to the child's word that it is confined and about to open the model (the first progress
line of a job that does nothing else), to the end of the job, and the same for a spawned child.
"""

import json
import platform
import statistics
import sys
import tempfile
import time
from pathlib import Path

from gradgauge.worker import forks, sandbox, spawn
from gradgauge.worker.frames import Request
from gradgauge.worker.memory import resident

SPEC = """gradgauge: 1
name: smallest
input: {shape: [2]}
layers:
  - {type: dense, units: 2}
"""


def milliseconds(jobs, run, request):
    """Quantiles over `jobs` of the time to the first progress line and to the outcome."""
    starts, ends = [], []
    for _ in range(jobs):
        begun = time.perf_counter()
        first = []
        outcome = run(
            request,
            wall_s=60,
            on_progress=lambda _stage, _, seen=first: seen.append(time.perf_counter()),
        )
        ends.append(1000 * (time.perf_counter() - begun))
        if outcome.problem is not None:
            sys.exit(f"the job failed: {outcome}")
        starts.append(1000 * (first[0] - begun))
    return {"start": quantiles(starts), "whole_inspection": quantiles(ends)}


def quantiles(values):
    ordered = sorted(values)
    p95 = ordered[min(len(ordered) - 1, int(0.95 * len(ordered)))]
    return {"p50": round(statistics.median(ordered), 1), "p95": round(p95, 1)}


def main():
    jobs = int(sys.argv[1]) if len(sys.argv) > 1 else 100
    zygote = forks.Zygote()
    begun = time.perf_counter()
    zygote.start()
    loaded = time.perf_counter() - begun
    states = zygote.probe()
    with tempfile.TemporaryDirectory() as folder:
        spec = Path(folder) / "spec.yaml"
        spec.write_text(SPEC)
        request = Request(
            task="inspect",
            source=str(spec),
            options={},
            read_only=(folder,),
            memory_bytes=1 << 30,
            require=(),
        )
        forked = milliseconds(jobs, zygote.run, request)
        spawned = milliseconds(max(jobs // 50, 2), spawn.run, request)
    found = {
        "machine": f"{platform.system()} {platform.release()} {platform.machine()}",
        "jobs": jobs,
        "zygote_start_s": round(loaded, 2),
        "zygote_private_mib": resident(zygote.pid).private >> 20,
        "forked_ms": forked,
        "spawned_ms": spawned,
        "sandbox_missing": sandbox.missing(states),
    }
    zygote.close()
    print(json.dumps(found, indent=2))


if __name__ == "__main__":
    main()

"""The whole analysis of a model of several GiB: python -m benchmarks.large_weights [--profile P].

A chain of dense layers whose weights lie in external data, analysed in a process of its own: time,
and how much of its memory the weights' pages and everything else took at most.
"""

import argparse
import multiprocessing
import tempfile
import time
from pathlib import Path

import torch
from benchmarks.analytic_cost import Peak, write_chain

from gradgauge.pipeline import analyze
from gradgauge.schema.options import AnalysisOptions

SLACK = 0.75  # GiB of resident memory beyond the weights' own pages


def run(path: Path, profile: str, told: multiprocessing.Queue) -> None:
    """In a process of its own: seconds by the wall and the processor, peak memory, stages."""
    torch.set_num_threads(1)
    options = AnalysisOptions.model_validate({"profile": profile})
    wall, spent = time.perf_counter(), time.process_time()
    with Peak() as peak:
        report = analyze(path, options)
    wall, spent = time.perf_counter() - wall, time.process_time() - spent
    stages = ", ".join(f"{k} {v / 1000:.1f}" for k, v in report.provenance.stage_ms.items())
    told.put((wall, spent, peak.gigabytes("VmRSS"), peak.gigabytes("RssAnon"), stages))


def main() -> None:
    """One sentence."""
    parser = argparse.ArgumentParser()
    parser.add_argument("--gigabytes", type=float, default=4.0)
    parser.add_argument("--profile", choices=("quick", "standard", "deep"), default="quick")
    parser.add_argument("--folder", type=Path, help="where the model is written meanwhile")
    asked = parser.parse_args()
    with tempfile.TemporaryDirectory(dir=asked.folder) as held:
        path = write_chain(Path(held), asked.gigabytes)
        context = multiprocessing.get_context("spawn")
        told = context.Queue()
        child = context.Process(target=run, args=(path, asked.profile, told))
        child.start()
        wall, spent, resident, anonymous, stages = told.get()
        child.join()
    limit = asked.gigabytes + SLACK
    print(
        f"{asked.gigabytes:g} GiB of weights, profile {asked.profile}: {wall:.0f} s, {spent:.0f} s "
        f"of the processor; peak resident memory {resident:.2f} GiB (limit {limit:g}), "
        f"{anonymous:.2f} GiB of it no pages of a file; seconds by stage: {stages}"
    )


if __name__ == "__main__":
    main()

"""How honest the share done is that an analysis tells: python -m benchmarks.progress [--only N].

Five networks at profile standard, in this process. Told against true share of the time at every
word, how the time divides on the engine's stages, and what the sampled engine's own stages cost in
passes (sampled/progress.py's COSTS, worker/runner.py's SHARES).
"""

import argparse
import statistics
import time
from collections import Counter
from pathlib import Path
from typing import ClassVar

import torch

from gradgauge.pipeline import analyze
from gradgauge.sampled import measure
from gradgauge.sampled.progress import COSTS, Pace
from gradgauge.schema.options import AnalysisOptions
from gradgauge.worker.runner import SHARES, overall

NETWORKS = ("deep-sigmoid", "relu-he", "small-resnet", "tiny-llama", "char-lstm")  # examples/


class _Counted(Pace):
    """A pace that is asked afterwards how many passes there were."""

    counts: ClassVar[Counter[str]] = Counter()
    foretold: ClassVar[float] = 0.0
    taken: ClassVar[float] = 0.0

    def passed(self) -> None:
        super().passed()
        self.counts["passes"] += 1
        if self.stages:  # not of a copy that a remedy is tried on
            type(self).foretold = (self.clock() - self._began) / self._told

    def staged(self, name: str) -> None:
        super().staged(name)
        type(self).taken = self.clock() - self._began


def analysed(
    name: str, profile: str
) -> tuple[dict[str, float], list[float], dict[str, float], tuple[float, float]]:
    """Seconds by stage, told minus true shares, costs in passes, seconds foretold and taken."""
    words: list[tuple[float, str, float]] = []
    _Counted.counts.clear()
    since = time.perf_counter()
    report = analyze(
        Path("examples") / f"{name}.yaml",
        AnalysisOptions.model_validate({"profile": profile}),
        on_progress=lambda stage, share: words.append((time.perf_counter(), stage, share)),
    )
    end = time.perf_counter()
    starts = {stage: min(at for at, s, _ in words if s == stage) for _, stage, _ in words}
    order = [*sorted(starts, key=lambda stage: starts[stage])]
    ends = [*(starts[stage] for stage in order[1:]), end]
    spent = {stage: to - starts[stage] for stage, to in zip(order, ends, strict=True)}
    off = [overall(s, share) - (at - since) / (end - since) for at, s, share in words]
    milliseconds = report.provenance.stage_ms
    each = milliseconds["sampled.passes"] / max(1, _Counted.counts["passes"])
    costs = {k: milliseconds.get(f"sampled.{k}", 0.0) / each for k in COSTS}
    return spent, off, costs, (_Counted.foretold, _Counted.taken)


def main() -> None:
    """Two tables and their medians."""
    parser = argparse.ArgumentParser()
    parser.add_argument("--only", default="", help="networks whose names hold this")
    parser.add_argument("--profile", choices=("quick", "standard", "deep"), default="standard")
    asked = parser.parse_args()
    torch.set_num_threads(1)
    measure.Pace = _Counted  # type: ignore[misc]
    names = [name for name in NETWORKS if asked.only in name]
    found = {name: analysed(name, asked.profile) for name in names}
    words = "told - true, median | worst | sampled engine: foretold after its passes, s | taken, s"
    print(f"| network | s | {' | '.join(SHARES)} | {words} |")
    print("|---" * (len(SHARES) + 6) + "|")
    for name, (spent, off, _, (foretold, taken)) in found.items():
        whole = sum(spent.values())
        parts = " | ".join(f"{100 * spent.get(stage, 0.0) / whole:.0f} %" for stage in SHARES)
        worst = max(off, key=abs)
        middle = statistics.median(map(abs, off))
        ends = f"{middle:.2f} | {worst:+.2f} | {foretold:.1f} | {taken:.1f}"
        print(f"| {name} | {whole:.1f} | {parts} | {ends} |")
    print(f"\n| network | {' | '.join(COSTS)} |\n{'|---' * (len(COSTS) + 1)}|")
    for name, (_, _, costs, _) in found.items():
        print(f"| {name} | {' | '.join(f'{v:.1f}' for v in costs.values())} |")
    middles = (statistics.median(costs[k] for _, _, costs, _ in found.values()) for k in COSTS)
    print(f"| median | {' | '.join(f'{v:.1f}' for v in middles)} |")
    print(f"| foretold | {' | '.join(f'{v:.1f}' for v in COSTS.values())} |")


if __name__ == "__main__":
    main()

"""What the sampled engine costs beside a bare pass: python -m benchmarks.sampled [NAME ...].

Every round runs, one after the other, a bare native forward and backward pass twice, the executor's
without a look, and a `quick` pass, and with `--peers` those of `sampled_peers`; times are the
processor's, ratios medians over rounds of pairs within a round. The gate is the time inside the
statistics over the bare native pass, read in a second quick pass: where steps are small that clock
is dear itself. What an analysis does once is in no pass: compiling, the plan of what is looked at,
the layers' records. `--guarded` takes the quick pass in float64, as where sizes leave float32's
range. With `--stages` the stages of profile standard are timed, with `--deep` all of profile deep
from its first pass on, with `--per-sample`
per-input weight gradients against vmap(grad), with `--memory` what a first pass of a fresh process
holds at most beyond what is there before it, pages of files not counted.
"""

import argparse
import gc
import re
import statistics
import subprocess
import sys
import tempfile
import time
import warnings
from collections.abc import Callable
from dataclasses import replace
from functools import partial
from pathlib import Path
from typing import ClassVar

import torch
from benchmarks import sampled_peers
from benchmarks.sampled_nets import NETS, Net
from torch import nn

from gradgauge.graph.layers import find_layers
from gradgauge.graph.read_onnx import read_onnx
from gradgauge.graph.reading import read
from gradgauge.sampled import measure
from gradgauge.sampled.allocator import give_back
from gradgauge.sampled.case import Measured, compiled
from gradgauge.sampled.executor import Executable
from gradgauge.sampled.frame import Setting, feed, find_frame
from gradgauge.sampled.looks import Looks
from gradgauge.sampled.passes import run_pass
from gradgauge.sampled.probes import plan_draws
from gradgauge.sampled.progress import Pace
from gradgauge.sampled.samples import INPUTS, per_input
from gradgauge.sampled.seen import Seen
from gradgauge.sampled.split import by_each, split_pass
from gradgauge.sampled.stages import Wish, with_stages
from gradgauge.sampled.summary import summary
from gradgauge.sampled.tally import Guarded, Plain, Tally
from gradgauge.sampled.watch import watch_plan
from gradgauge.worker.memory import Own
from tests.acceptance.fixtures import export

HEAD = (
    "| network | bare, s | bare against bare | executor without a look | quick pass | "
    "in statistics | gate |\n|---|---|---|---|---|---|---|"
)


def timed(run: Callable[[], object]) -> float:
    gc.collect()
    since = time.process_time()
    run()
    return time.process_time() - since


def exported(net: Net, model: nn.Module) -> bytes:
    training = net.name.startswith("ResNet")
    return export(model, net.example(), axes={net.axis: "N"}, training=training)


def prepared(
    net: Net, model: nn.Module, written: bytes | None = None
) -> tuple[Measured, Executable]:
    example = net.example()
    graph = read_onnx(written or exported(net, model))
    layers, reading = find_layers(graph.model), read(graph.model)
    batch = example.shape[net.axis]
    setting = Setting(torch.float32, 0, "random_cotangent", 0, batch, torch.device("cpu"))
    exe = compiled(graph.model, reading, setting)
    frame = find_frame(exe, layers, reading, setting)
    draws = plan_draws(reading, "quick", batch)
    return Measured(graph.model, layers, reading, setting, frame, draws), exe


def in_float64(case: Measured) -> tuple[Measured, Executable]:
    case = replace(case, setting=replace(case.setting, dtype=torch.float64))
    return case, compiled(case.model, case.reading, case.setting)


def records(case: Measured) -> dict[str, Seen]:
    return {layer.id: Seen() for layer in case.layers}


def rounds(net: Net, count: int, *, guarded: bool, peers: bool) -> None:
    """One row of the table."""
    model = net.build().train()
    case, exe = prepared(net, model)
    if guarded:
        case, exe = in_float64(case)
    gauge = Guarded() if guarded else Plain()
    x, params = net.example(), list(model.parameters())
    generator = torch.Generator()

    def bare() -> None:
        y = model(x)
        torch.autograd.grad(y, params, torch.randn(y.shape), allow_unused=True)

    def unlooked() -> None:
        (y,) = exe(*feed(exe, case.setting, case.reading, generator, 0))
        leaves = list(exe.initializers.values())
        torch.autograd.grad(y, leaves, torch.randn(y.shape), allow_unused=True)

    def quick(seen: dict[str, Seen], tally: Tally) -> None:
        looks = Looks(case.frame, gauge, tally, seen, watch)
        run_pass(exe, case.layers, looks, case.reading, case.setting, 0)
        exe.intercept((), lambda _name, y: y)
        exe.watch_edges(())

    give_back(at_once=False)
    watch = watch_plan(case.model, case.layers)
    bare(), unlooked(), quick(records(case), Tally())
    others = sampled_peers.prepared(model, x) if peers else {}
    steps = {name: step for name, step in others.items() if not isinstance(step, str)}
    theirs: dict[str, list[float]] = {name: [] for name in steps}
    rows = []
    for _ in range(count):
        seen = records(case)
        first, without, whole = timed(bare), timed(unlooked), timed(partial(quick, seen, Tally()))
        second, within = timed(bare), Tally(time.process_time)
        quick(records(case), within)
        for name, step in steps.items():
            theirs[name].append(timed(step) / first)
        rows.append((first, second / first, without / first, whole / first, within.seconds / first))
    middle = [statistics.median(column) for column in zip(*rows, strict=True)]
    gate = "-" if net.most is None else f"{'held' if middle[4] <= net.most else 'MISSED'}"
    print(
        f"| {net.name} | {middle[0]:.3f} | {middle[1]:.2f} | {middle[2]:.2f} | {middle[3]:.2f} "
        f"| {100 * middle[4]:.1f} % | {gate} |",
        flush=True,
    )
    for name, step in others.items():
        told = step if isinstance(step, str) else f"{statistics.median(theirs[name]):.2f}"
        print(f"    {net.name}: {name}: {told}", flush=True)


def memory(net: Net) -> None:
    """Of a bare and a quick pass, each the first of a process of its own."""
    found = []
    with tempfile.NamedTemporaryFile(suffix=".onnx") as file:
        file.write(exported(net, net.build().train()))
        file.flush()
        for what in ("bare", "quick"):
            own = [sys.executable, "-m", "benchmarks.sampled", net.name, "--held", what, file.name]
            found.append(float(subprocess.run(own, check=True, capture_output=True).stdout))
    print(
        f"| {net.name} | {found[0]:.1f} | {found[1]:.1f} | {found[1] / found[0]:.2f} |", flush=True
    )


def held(net: Net, what: str, file: str) -> None:
    """MiB of the weights and of what one pass adds to the memory of the process at its peak."""
    model = net.build().train()
    case, exe = prepared(net, model, Path(file).read_bytes())
    weights = sum(p.numel() * p.element_size() for p in model.parameters())
    x, params = net.example(), list(model.parameters())
    seen = records(case)
    looks = Looks(case.frame, Plain(), Tally(), seen, watch_plan(case.model, case.layers))
    gc.collect()
    give_back(at_once=True)
    own = Own()
    before = own.now().private
    if what == "bare":
        y = model(x)
        torch.autograd.grad(y, params, torch.randn(y.shape), allow_unused=True)
    else:
        run_pass(exe, case.layers, looks, case.reading, case.setting, 0)
    now = own.now()
    print((now.most - now.backed - before + weights) / 2**20)


def stages(net: Net) -> None:
    """Seconds of every stage of profile standard, in bare passes of the same batch."""
    model = net.build().train()
    case, exe = prepared(net, model)
    x, params = net.example(), list(model.parameters())

    def bare() -> None:
        y = model(x)
        torch.autograd.grad(y, params, torch.randn(y.shape), allow_unused=True)

    bare()
    unit = statistics.median(timed(bare) for _ in range(5))
    held = summary(case, records(case))
    spent: dict[str, float] = {}
    since = time.process_time()

    def done(name: str) -> None:
        spent[name] = (time.process_time() - since - sum(spent.values()) * unit) / unit

    with_stages(held, case, exe, "standard", Wish(), done)
    probe = spent.pop("memorisation")
    told = ", ".join(f"{name} {value:.1f}" for name, value in spent.items())
    print(f"| {net.name} | {sum(spent.values()):.1f} | {told} | {probe:.1f} |", flush=True)


class _Followed(Pace):
    """A pace that notes processor seconds by stage, and what was foretold after the passes."""

    marks: ClassVar[dict[str, float]] = {}
    foretold: ClassVar[float] = 0.0

    def passed(self) -> None:
        super().passed()
        self.marks["passes"] = time.process_time()
        type(self).foretold = (self.clock() - self._began) / self._told

    def staged(self, name: str) -> None:
        super().staged(name)
        self.marks[name] = time.process_time()
        print(f"{name} after {time.process_time():.0f} s", file=sys.stderr, flush=True)


def deep(net: Net) -> None:
    """Processor seconds of the sampled engine's profile deep; its foretold time beside the true."""
    model = net.build().train()
    graph = read_onnx(exported(net, model))
    layers, reading = find_layers(graph.model), read(graph.model)
    vars(measure)["Pace"] = _Followed
    _Followed.marks.clear()
    began, since = time.process_time(), time.perf_counter()
    found = measure.profile(graph.model, layers, reading, depth="deep", wish=Wish())
    taken = time.perf_counter() - since
    at, cells = began, []
    for name, mark in _Followed.marks.items():
        cells.append(f"{name} {mark - at:.1f}")
        at = mark
    (top,) = [m for m in found.measurements if m.name == "jacobian_sigma_max"]
    rounds = re.findall(r"after (\d+) rounds", top.note or "") or ["all"]
    words = [net.name, f"{at - began:.0f}", ", ".join(cells), rounds[0]]
    print(f"| {' | '.join(words)} | {_Followed.foretold:.0f} | {taken:.0f} |", flush=True)


def per_sample(net: Net) -> None:
    """Our per-input weight gradients against vmap(grad) of as many inputs; norms by their norm.

    Beside them a backward pass for each input, which is what serves every graph. In evaluation.
    """
    model = net.build().eval()
    case, exe = prepared(replace(net, name=""), model)
    count = min(INPUTS["standard"], case.frame.rows)
    case = case.small(count)
    x, params = net.example()[:count], list(model.parameters())
    leaves = {k: v for k, v in exe.initializers.items() if v.requires_grad}
    told = split_pass(case, exe, leaves, shared=True)

    def bare() -> None:
        y = model(x)
        torch.autograd.grad(y, params, torch.randn(y.shape), allow_unused=True)

    bare()
    theirs = sampled_peers.vmap_of_grad(model, x)
    theirs()
    rows = []
    for _ in range(3):
        unit, ours, other = (
            timed(run) for run in (bare, lambda: per_input(case, exe, "standard", None), theirs)
        )
        loop = timed(lambda: by_each(case, exe, leaves, shared=True))
        rows.append((ours / unit, other / unit, loop / unit, ours / other))
    middle = [statistics.median(column) for column in zip(*rows, strict=True)]
    looped = "all" if told is None else len(told.looped)
    cells = " | ".join(f"{value:.2f}" for value in middle)
    print(f"| {net.name}, {count} inputs | {cells} | {looped} |", flush=True)


def main() -> None:
    """Tables in Markdown."""
    parser = argparse.ArgumentParser(description=__doc__)
    parser.add_argument("names", nargs="*", help="parts of the networks' names; all without")
    parser.add_argument("--rounds", type=int, default=5)
    parser.add_argument("--stages", action="store_true")
    parser.add_argument("--deep", action="store_true")
    parser.add_argument("--per-sample", action="store_true")
    parser.add_argument("--peers", action="store_true")
    parser.add_argument("--guarded", action="store_true")
    parser.add_argument("--memory", action="store_true")
    parser.add_argument("--held", nargs=2, help=argparse.SUPPRESS)
    asked = parser.parse_args()
    torch.set_num_threads(1)
    warnings.simplefilter("ignore")
    chosen = [n for n in NETS if not asked.names or any(part in n.name for part in asked.names)]
    head, row = wanted(asked)
    if head:
        print(head, flush=True)
    for net in chosen:
        row(net)


def wanted(asked: argparse.Namespace) -> tuple[str, Callable[[Net], None]]:
    """The table's head and what makes a row of it."""
    if asked.stages:
        head = "| network | all but the probe, bare passes | by stage | probe |\n|---|---|---|---|"
        return head, stages
    if asked.deep:
        head = (
            "| network | processor s | by stage | rounds, whole network | "
            "foretold after the passes, s | taken, s |\n|---|---|---|---|---|---|"
        )
        return head, deep
    if asked.per_sample:
        head = (
            "| network | per-input gradients, bare passes | vmap(grad) | a pass each | "
            "ours over vmap(grad) | parameters by a pass each |\n|---|---|---|---|---|---|"
        )
        return head, per_sample
    if asked.memory:
        return "| network | bare, MiB | quick, MiB | ratio |\n|---|---|---|---|", memory
    if asked.held:
        return "", partial(held, what=asked.held[0], file=asked.held[1])
    return HEAD, partial(rounds, count=asked.rounds, guarded=asked.guarded, peers=asked.peers)


if __name__ == "__main__":
    main()

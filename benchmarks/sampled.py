"""What the sampled engine costs beside a bare pass: python -m benchmarks.sampled [NAME ...].

Every round runs, one after the other, a bare native forward and backward pass twice, the executor's
without a look, and a `quick` pass; ratios are medians over rounds of pairs within a round. The gate
is the time inside the statistics over the bare native pass. With `--stages` the stages of profile
standard are timed too, with `--per-sample` per-input weight gradients against vmap(grad).
"""

import argparse
import gc
import statistics
import time
import warnings
from collections.abc import Callable

import torch
from benchmarks.sampled_nets import NETS, Net
from torch import nn
from torch.func import functional_call, grad, vmap

from gradgauge.graph.layers import find_layers
from gradgauge.graph.read_onnx import read_onnx
from gradgauge.graph.reading import read
from gradgauge.sampled.case import Measured, compiled
from gradgauge.sampled.executor import Executable
from gradgauge.sampled.frame import Setting, feed, find_frame
from gradgauge.sampled.looks import Looks, Seen, watch_plan
from gradgauge.sampled.passes import run_pass
from gradgauge.sampled.probes import plan_draws
from gradgauge.sampled.samples import inputs_held, per_input
from gradgauge.sampled.stages import Wish, with_stages
from gradgauge.sampled.summary import summary
from gradgauge.sampled.tally import Plain, Tally
from tests.acceptance.fixtures import export

HEAD = (
    "| network | bare, s | bare against bare | executor without a look | quick pass | "
    "in statistics | gate |\n|---|---|---|---|---|---|---|"
)


def timed(run: Callable[[], object]) -> float:
    gc.collect()
    since = time.perf_counter()
    run()
    return time.perf_counter() - since


def prepared(net: Net, model: nn.Module) -> tuple[Measured, Executable]:
    example = net.example()
    written = export(model, example, axes={net.axis: "N"}, training=net.name.startswith("ResNet"))
    graph = read_onnx(written)
    layers, reading = find_layers(graph.model), read(graph.model)
    batch = example.shape[net.axis]
    setting = Setting(torch.float32, 0, "random_cotangent", 0, batch, torch.device("cpu"))
    exe = compiled(graph.model, reading, setting)
    frame = find_frame(exe, layers, reading, setting)
    draws = plan_draws(reading, "quick", batch)
    return Measured(graph.model, layers, reading, setting, frame, draws), exe


def rounds(net: Net, count: int) -> None:
    """One row of the table."""
    model = net.build().train()
    case, exe = prepared(net, model)
    x, params = net.example(), list(model.parameters())
    generator = torch.Generator()

    def bare() -> None:
        y = model(x)
        torch.autograd.grad(y, params, torch.randn(y.shape), allow_unused=True)

    def unlooked() -> None:
        (y,) = exe(*feed(exe, case.setting, case.reading, generator, 0))
        leaves = list(exe.initializers.values())
        torch.autograd.grad(y, leaves, torch.randn(y.shape), allow_unused=True)

    def quick() -> float:
        seen = {layer.id: Seen() for layer in case.layers}
        looks = Looks(case.frame, Plain(), Tally(), seen, watch)
        run_pass(exe, case.layers, looks, case.reading, case.setting, 0)
        exe.intercept((), lambda _name, y: y)
        exe.watch_edges(())
        return looks.tally.seconds

    watch = watch_plan(case.model, case.layers)
    bare(), unlooked(), quick()
    rows = []
    for _ in range(count):
        first, without, inside = timed(bare), timed(unlooked), 0.0
        since = time.perf_counter()
        inside = quick()
        whole = time.perf_counter() - since
        second = timed(bare)
        rows.append((first, second / first, without / first, whole / first, inside / first))
    middle = [statistics.median(column) for column in zip(*rows, strict=True)]
    gate = "-" if net.most is None else f"{'held' if middle[4] <= net.most else 'MISSED'}"
    print(
        f"| {net.name} | {middle[0]:.3f} | {middle[1]:.2f} | {middle[2]:.2f} | {middle[3]:.2f} "
        f"| {100 * middle[4]:.1f} % | {gate} |",
        flush=True,
    )


def stages(net: Net) -> None:
    """Seconds of every stage of profile standard, in bare passes of the same batch."""
    model = net.build().train()
    case, exe = prepared(net, model)
    x, params = net.example(), list(model.parameters())

    def bare() -> None:
        y = model(x)
        torch.autograd.grad(y, params, torch.randn(y.shape), allow_unused=True)

    bare()
    unit = min(timed(bare) for _ in range(3))
    held = summary(case, {layer.id: Seen() for layer in case.layers})
    found = with_stages(held, case, exe, "standard", Wish(), lambda _name: None)
    spent = {k.removeprefix("sampled."): v / 1000 / unit for k, v in found.stage_ms.items()}
    probe = spent.pop("memorisation")
    told = ", ".join(f"{name} {value:.1f}" for name, value in spent.items())
    print(f"| {net.name} | {sum(spent.values()):.1f} | {told} | {probe:.1f} |", flush=True)


def per_sample(net: Net) -> None:
    """Our per-input weight gradients against vmap(grad) of as many inputs."""
    model = net.build().train()
    case, exe = prepared(net, model)
    count = inputs_held(case, exe, "standard")
    case = case.small(count)
    x = net.example()[:count]
    params = {k: v.detach() for k, v in model.named_parameters()}
    sent = torch.randn(model(x).shape[1:])

    def one(held: dict[str, torch.Tensor], row: torch.Tensor) -> torch.Tensor:
        return (functional_call(model, held, (row[None],))[0] * sent).sum()

    every = vmap(grad(one), (None, 0))

    def theirs() -> None:
        found = every(params, x)
        for g in found.values():
            g.flatten(1).norm(dim=1)

    theirs()
    ours = statistics.median(
        timed(lambda: per_input(case, exe, "standard", None)) / timed(theirs) for _ in range(5)
    )
    print(f"| {net.name}, {count} inputs | {ours:.2f} |", flush=True)


def main() -> None:
    """Tables in Markdown."""
    parser = argparse.ArgumentParser(description=__doc__)
    parser.add_argument("names", nargs="*", help="parts of the networks' names; all without")
    parser.add_argument("--rounds", type=int, default=5)
    parser.add_argument("--stages", action="store_true")
    parser.add_argument("--per-sample", action="store_true")
    asked = parser.parse_args()
    torch.set_num_threads(1)
    warnings.simplefilter("ignore")
    chosen = [n for n in NETS if not asked.names or any(part in n.name for part in asked.names)]
    if asked.stages:
        print("| network | all but the probe, bare passes | by stage | probe |\n|---|---|---|---|")
    elif asked.per_sample:
        print("| network | per-input gradients over vmap(grad) |\n|---|---|")
    else:
        print(HEAD)
    for net in chosen:
        if asked.stages:
            stages(net)
        elif asked.per_sample:
            per_sample(net)
        else:
            rounds(net, asked.rounds)


if __name__ == "__main__":
    main()

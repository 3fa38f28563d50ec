"""What running an ONNX file costs over the torch module it came from: time, loading, memory.

Run: `python -m benchmarks.executor` (options below). Every ratio is of two runs next to each other
in one process, in random order; the interval is the bootstrap's 95 % of the median. The column
`native` repeats the native module against itself: what it shows is noise. onnx2torch and
onnx2pytorch join in where they are installed; benchmarks/README.md says how.
"""

import argparse
import gc
import importlib
import json
import multiprocessing
import os
import platform
import random
import subprocess
import sys
import tempfile
import time
from collections.abc import Callable, Iterator, Mapping
from concurrent.futures import ProcessPoolExecutor
from dataclasses import dataclass
from pathlib import Path

import numpy as np
import torch
from benchmarks import contenders
from benchmarks.contenders import PEERS, Contender
from benchmarks.networks import EXPORTERS, NETWORKS, Network, export, fed, native

RESAMPLES = 10_000
TOLERANCE = 1e-3  # of outputs and of each gradient's norm, before anything is timed
STEPS = 3  # forward and backward in a memory child: the first allocates, the others settle
LIMITS = {"speed": 1.10, "embedded": 3.0, "external": 1.5, "memory": 1.10}
FAULTS = (Exception,)  # a peer may fail with anything


@dataclass(frozen=True)
class Interval:
    """A median and where it lies with 95 %."""

    low: float
    median: float
    high: float

    def __str__(self) -> str:
        return f"{self.median:.3f} [{self.low:.3f}, {self.high:.3f}]"


def interval(ratios: list[float]) -> Interval:
    found = np.array(ratios)
    picks = np.random.default_rng(0).integers(0, found.size, (RESAMPLES, found.size))
    low, high = np.quantile(np.median(found[picks], axis=1), [0.025, 0.975])
    return Interval(float(low), float(np.median(found)), float(high))


def paired(
    runs: Mapping[str, Callable[[], object]], rounds: int
) -> dict[str, dict[str, list[float]]]:
    """Seconds by run and clock, one entry a round; each round runs all once, in random order."""
    order = random.Random(0)
    names = list(runs)
    seconds = {name: {"wall": [], "cpu": []} for name in names}
    for name in names:
        runs[name]()
    for _ in range(rounds):
        gc.collect()
        order.shuffle(names)
        for name in names:
            wall, cpu = time.perf_counter(), time.process_time()
            runs[name]()
            seconds[name]["cpu"].append(time.process_time() - cpu)
            seconds[name]["wall"].append(time.perf_counter() - wall)
    return seconds


def ratios(seconds: Mapping[str, Mapping[str, list[float]]], base: str) -> dict[str, dict]:
    """By run and clock: its interval over `base`, paired by round."""
    return {
        name: {
            clock: interval([a / b for a, b in zip(taken, seconds[base][clock], strict=True)])
            for clock, taken in clocks.items()
        }
        for name, clocks in seconds.items()
        if name != base
    }


def attempt(make: Callable[[], Contender], check: Callable[[Contender], None]) -> Contender | str:
    """A peer ready to run, or why it is not."""
    try:
        made = make()
        check(made)
    except FAULTS as fault:
        lines = str(fault).strip().splitlines() or [""]
        return f"{type(fault).__name__}: {lines[0][:120]}"
    return made


def speed(network: Network, path: Path, rounds: int, peers: list[str]) -> dict:
    """Forward and backward over native's, after outputs and gradients were found the same."""
    inputs = fed(network)
    first = contenders.native(native(network))
    first.step(inputs)
    want, norms = first.outputs(inputs)[0].detach(), first.gradient_norms()

    def check(made: Contender) -> None:
        made.step(inputs)
        off = float((made.outputs(inputs)[0].detach() - want).norm() / want.norm())
        if off > TOLERANCE:
            raise ValueError(f"its outputs are {off:.1e} off")
        unmet = contenders.unmet(norms, made.gradient_norms(), TOLERANCE)
        if unmet:
            raise ValueError(f"{unmet} of {len(norms)} gradients are missing or wrong")

    ours = contenders.gradgauge(path, training=network.training)
    check(ours)
    runs = {"native": first, "again": first, "gradgauge": ours}
    failed = {}
    for name in peers:
        made = attempt(lambda name=name: PEERS[name](path, training=network.training), check)
        if isinstance(made, str):
            failed[name] = made
        else:
            runs[name] = made
    steps = {name: (lambda run=run: run.step(inputs)) for name, run in runs.items()}
    seconds = paired(steps, rounds)
    return {"ratio": ratios(seconds, "native"), "failed": failed, "seconds": seconds}


def loading(network: Network, paths: Mapping[str, Path], rounds: int, peers: list[str]) -> dict:
    """From a file to something that runs, over onnx.load of the same file."""
    import onnx

    found = {}
    for kind, path in paths.items():
        runs: dict[str, Callable[[], object]] = {
            "onnx.load": lambda path=path: onnx.load(path),
            "gradgauge": lambda path=path: contenders.gradgauge(path, training=network.training),
        }
        for name in peers:
            make = lambda name=name, path=path: PEERS[name](path, training=False)  # noqa: E731
            if not isinstance(attempt(make, lambda _: None), str):
                runs[name] = make
        seconds = paired(runs, rounds)
        found[kind] = {"ratio": ratios(seconds, "onnx.load"), "seconds": seconds}
    return found


def memory(key: str, paths: Mapping[str, Path], repeats: int) -> dict:
    """Peak resident bytes of fresh processes, by side and by whether malloc returns what is freed.

    By default glibc raises the size from which it maps blocks up to 32 MiB and keeps what lies
    below: then the peak tells in which order blocks were freed besides how many were held.
    """
    sides = {"native": None, **paths}
    return {
        side: {
            "returned": [_child(key, path, _RETURNED) for _ in range(repeats)],
            "kept": [_child(key, path, {}) for _ in range(repeats)],
        }
        for side, path in sides.items()
    }


_RETURNED = {"MALLOC_MMAP_THRESHOLD_": str(1 << 20), "MALLOC_TRIM_THRESHOLD_": str(1 << 20)}


def _child(key: str, path: Path | None, malloc: Mapping[str, str]) -> dict[str, int]:
    command = [sys.executable, "-m", "benchmarks.executor", "--child", key]
    command += ["--threads", str(torch.get_num_threads())]
    if path is not None:
        command += ["--file", str(path)]
    env = {**os.environ, **malloc}  # noqa: TID251 - handed on as it is
    done = subprocess.run(command, capture_output=True, text=True, check=True, env=env)
    return json.loads(done.stdout)


def child(key: str, path: Path | None) -> dict[str, int]:
    """This process's peak after STEPS steps of the native module, or of the file."""
    network = NETWORKS[key]
    if path is None:
        for module in network.imports:
            importlib.import_module(module)
        held = _status("VmRSS")
        made = contenders.native(native(network))
    else:
        import gradgauge.sampled.executor  # noqa: F401

        held = _status("VmRSS")
        made = contenders.gradgauge(path, training=network.training)
    inputs = fed(network)
    for _ in range(STEPS):
        made.step(inputs)
    return {"peak": _status("VmHWM"), "imports": held}


def _status(field: str) -> int:
    """Bytes of this process; getrusage's peak would be the parent's where that was larger."""
    text = Path("/proc/self/status").read_text()
    return 1024 * next(int(n.split()[1]) for n in text.splitlines() if n.startswith(field))


def exported(key: str, folder: Path, exporter: str) -> tuple[Path, Path]:
    """The two files, written by a process of its own.

    Whoever runs a file has not exported it in the same process: dynamo leaves a large heap and a
    slower interpreter behind, in which only what is written in Python takes longer.
    """
    with ProcessPoolExecutor(1, multiprocessing.get_context("spawn")) as pool:
        return pool.submit(_export, key, folder, exporter).result()


def _export(key: str, folder: Path, exporter: str) -> tuple[Path, Path]:
    return export(NETWORKS[key], folder, exporter)


def measure(key: str, options: argparse.Namespace, peers: list[str]) -> dict:
    network = NETWORKS[key]
    with tempfile.TemporaryDirectory() as folder:
        try:
            embedded, external = exported(key, Path(folder), options.exporter)
        except FAULTS as fault:
            return {"skipped": f"the exporter failed: {str(fault).splitlines()[0][:120]}"}
        paths = {"embedded": embedded, "external": external}
        found = {"bytes": embedded.stat().st_size}
        if "memory" in options.stages:
            found["memory"] = memory(key, paths, options.repeats)
        if "load" in options.stages:
            found["load"] = loading(network, paths, options.loads, peers)
        if "speed" in options.stages:
            found["speed"] = speed(network, embedded, options.rounds, peers)
    return found


def lines(key: str, found: Mapping) -> Iterator[str]:
    """Markdown rows: what, who, ratio and interval by wall clock and CPU time, the limit."""
    if "skipped" in found:
        yield f"| {key} | - | {found['skipped']} | | | |"
    if "speed" in found:
        base = np.median(found["speed"]["seconds"]["native"]["wall"])
        yield from _rows(key, f"forward + backward ({base:.3f} s)", found["speed"], "speed")
        for name, why in found["speed"]["failed"].items():
            yield f"| {key} | forward + backward | {name} | {why} | | |"
    for kind, held in found.get("load", {}).items():
        base = np.median(held["seconds"]["onnx.load"]["wall"])
        yield from _rows(key, f"load, {kind} ({1000 * base:.1f} ms)", held, kind)
    if "memory" in found:
        yield from _memory_rows(key, found["memory"])


def _rows(key: str, what: str, held: Mapping, limit: str) -> Iterator[str]:
    for name, clocks in held["ratio"].items():
        bound = f"<= {LIMITS[limit]:.2f}" if name == "gradgauge" else ""
        who = "native (control)" if name == "again" else name
        yield f"| {key} | {what} | {who} | {clocks['wall']} | {clocks['cpu']} | {bound} |"


def _memory_rows(key: str, held: Mapping) -> Iterator[str]:
    """Ratios of median peaks: whole, above the imports, and with malloc as it comes."""

    def ratio(side: str, malloc: str, taken: Callable[[Mapping], int]) -> float:
        ours, its = (np.median([taken(c) for c in held[s][malloc]]) for s in (side, "native"))
        return float(ours / its)

    base = np.median([c["peak"] for c in held["native"]["returned"]]) / 2**20
    for side in held:
        if side == "native":
            continue
        whole = ratio(side, "returned", lambda c: c["peak"])
        above = ratio(side, "returned", lambda c: c["peak"] - c["imports"])
        kept = ratio(side, "kept", lambda c: c["peak"])
        yield (
            f"| {key} | peak memory, {side} ({base:.0f} MiB) | gradgauge | {whole:.3f}; above "
            f"imports {above:.3f} | malloc keeping {kept:.3f} | <= {LIMITS['memory']:.2f} |"
        )


def main() -> int:
    options = arguments()
    torch.set_num_threads(options.threads)
    if options.child:
        print(json.dumps(child(options.child, options.file)))
        return 0
    known = {name: contenders.version(name) for name in PEERS}
    for name, number in known.items():
        print(f"{name}: {number or 'not installed, left out (see benchmarks/README.md)'}")
    print(f"torch {torch.__version__}, {options.threads} thread(s), {options.exporter} exporter")
    print(f"{platform.machine()}, {platform.system()} {platform.release()}\n")
    print("| network | what (native's or onnx.load's) | who | wall clock | CPU time | limit |")
    print("|---|---|---|---|---|---|")
    peers = [name for name, number in known.items() if number]
    for key in NETWORKS:
        if options.only.lower() in key.lower():
            for line in lines(key, measure(key, options, peers)):
                print(line, flush=True)
    return 0


def arguments() -> argparse.Namespace:
    parser = argparse.ArgumentParser(description=__doc__.splitlines()[0])
    parser.add_argument("--only", default="", help="networks with this in their name")
    parser.add_argument("--stages", nargs="+", default=["speed", "load", "memory"])
    parser.add_argument("--exporter", choices=EXPORTERS, default="dynamo")
    parser.add_argument("--rounds", type=int, default=15, help="of forward and backward")
    parser.add_argument("--loads", type=int, default=15, help="rounds of loading")
    parser.add_argument("--repeats", type=int, default=3, help="processes per memory figure")
    parser.add_argument("--threads", type=int, default=1)
    parser.add_argument("--child", help=argparse.SUPPRESS)
    parser.add_argument("--file", type=Path, help=argparse.SUPPRESS)
    return parser.parse_args()


if __name__ == "__main__":
    sys.exit(main())

"""What the analytic engine costs: python -m benchmarks.analytic_cost [--part P].

Moments and gradients of a whole network against one native forward pass at batch 1, processor time,
medians of rounds in which both run one after the other. Then a chain of dense layers whose weights
lie in external data: time against reading that file once, peak memory of the process.
"""

import argparse
import multiprocessing
import statistics
import tempfile
import threading
import time
from collections.abc import Callable
from pathlib import Path
from typing import Self

import numpy as np
import onnx
import torch
from benchmarks.networks import NETWORKS, fed, native
from onnx import TensorProto, helper

from gradgauge.analytic.propagate import profile
from gradgauge.graph.layers import find_layers
from gradgauge.graph.read_onnx import read_onnx
from gradgauge.graph.reading import read
from tests.analytic.autograd import export, to_graph

LIMITS = {"ResNet-50 (8x224x224)": 5.0, "BERT-base (8x128)": 8.0}
WIDTH = 4096
MEMORY = 2.0  # GiB


def timed(run: Callable[[], object]) -> float:
    since = time.process_time()
    run()
    return time.process_time() - since


def against_a_forward(name: str, rounds: int, *, spectra: bool) -> str:
    """One row: both times, their ratio, its limit."""
    network = NETWORKS[name]
    net, (x,) = native(network).eval(), fed(network)
    graph = to_graph(export(net, x[:2], train=True))
    layers, reading = find_layers(graph.model), read(graph.model)
    net.eval()

    def forward() -> None:
        with torch.no_grad():
            net(x[:1])

    def moments() -> None:
        profile(graph, layers, reading, spectra=spectra)

    forward()
    moments()
    pairs = [(timed(forward), timed(moments)) for _ in range(rounds)]
    ratio = statistics.median(b / a for a, b in pairs)
    first, second = (statistics.median(column) for column in zip(*pairs, strict=True))
    limit = "" if spectra else f"{LIMITS[name]:.0f}"
    what = "with spectra" if spectra else "moments"
    short = name.split(" (", maxsplit=1)[0]
    return f"| {short}, {what} | {first:.3f} | {second:.3f} | {ratio:.2f} | {limit} |"


def write_chain(folder: Path, gigabytes: float) -> Path:
    """Square dense layers with ReLU, He weights of one draw each, all in one data file."""
    each = WIDTH * WIDTH * 4
    count = round(gigabytes * 2**30 / each)
    weights, nodes = [], []
    rng = np.random.default_rng(0)
    with (folder / "weights.bin").open("wb") as file:
        for i in range(count):
            W = rng.standard_normal((WIDTH, WIDTH), dtype=np.float32) * np.sqrt(2 / WIDTH)
            file.write(W.astype(np.float32).tobytes())
            held = TensorProto(name=f"W{i}", data_type=TensorProto.FLOAT, dims=[WIDTH, WIDTH])
            held.data_location = TensorProto.EXTERNAL
            for key, value in (("location", "weights.bin"), ("offset", i * each), ("length", each)):
                held.external_data.add(key=key, value=str(value))
            weights.append(held)
            nodes.append(helper.make_node("MatMul", [f"h{i}", f"W{i}"], [f"a{i}"]))
            nodes.append(helper.make_node("Relu", [f"a{i}"], [f"h{i + 1}"]))
    x, y = (
        helper.make_tensor_value_info(name, TensorProto.FLOAT, ["N", WIDTH])
        for name in ("h0", f"h{count}")
    )
    model = helper.make_model(
        helper.make_graph(nodes, "chain", [x], [y], weights),
        opset_imports=[helper.make_opsetid("", 17)],
    )
    onnx.save(model, folder / "chain.onnx")
    return folder / "chain.onnx"


class Peak:
    """The most memory of this process while it is open, looked at fifty times a second."""

    def __init__(self) -> None:
        self._most = {"VmRSS": 0, "RssAnon": 0}
        self._stop = threading.Event()
        self._watcher = threading.Thread(target=self._watch, daemon=True)

    def __enter__(self) -> Self:
        self._watcher.start()
        return self

    def __exit__(self, *_: object) -> None:
        self._stop.set()
        self._watcher.join()

    def gigabytes(self, key: str) -> float:
        """Of VmRSS, all that is resident, or RssAnon, what no file backs; in GiB."""
        return self._most[key] / 2**20

    def _watch(self) -> None:
        while not self._stop.wait(0.02):
            lines = Path("/proc/self/status").read_text().splitlines()
            held = dict(line.split(":", 1) for line in lines)
            for key, most in self._most.items():
                self._most[key] = max(most, int(held[key].split()[0]))


def stream(path: Path, told: multiprocessing.Queue) -> None:
    """In a process of its own: seconds to read, to profile, to read the file once; peak memory."""
    torch.set_num_threads(1)
    with Peak() as peak:
        raw = timed(lambda: _read_once(path.with_name("weights.bin")))
        since = time.process_time()
        graph = read_onnx(path)
        layers, reading = find_layers(graph.model), read(graph.model)
        loaded = time.process_time() - since
        spent = timed(lambda: profile(graph, layers, reading))
    told.put((raw, loaded, spent, peak.gigabytes("VmRSS"), peak.gigabytes("RssAnon")))


def _read_once(path: Path) -> None:
    with path.open("rb", buffering=0) as file:
        block = bytearray(1 << 24)
        while file.readinto(block):
            pass


def main() -> None:
    """Both tables, or one of their parts."""
    parser = argparse.ArgumentParser()
    parser.add_argument("--part", choices=("networks", "spectra", "stream"))
    parser.add_argument("--only", default="", help="networks whose names hold this")
    parser.add_argument("--rounds", type=int, default=5)
    parser.add_argument("--gigabytes", type=float, default=4.0)
    parser.add_argument("--folder", type=Path, help="where the large model is written meanwhile")
    asked = parser.parse_args()
    torch.set_num_threads(1)
    if asked.part != "stream":
        print("| network | forward, s | analytic, s | ratio | limit |\n|---|---|---|---|---|")
    for name in LIMITS:
        for part in ("networks", "spectra"):
            if asked.part in {None, part} and asked.only in name:
                print(against_a_forward(name, asked.rounds, spectra=part == "spectra"), flush=True)
    if asked.part in {None, "stream"}:
        print(streamed(asked.gigabytes, asked.folder))


def streamed(gigabytes: float, folder: Path | None) -> str:
    """What the child tells of a chain of so many gigabytes."""
    with tempfile.TemporaryDirectory(dir=folder) as held:
        path = write_chain(Path(held), gigabytes)
        context = multiprocessing.get_context("spawn")
        told = context.Queue()
        child = context.Process(target=stream, args=(path, told))
        child.start()
        raw, loaded, spent, rss, anonymous = told.get()
        child.join()
    return (
        f"{gigabytes:g} GiB of weights beside the model: the file once {raw:.2f} s; loading and "
        f"checking it {loaded:.2f} s ({loaded / raw:.1f}x), its profile {spent:.2f} s "
        f"({spent / raw:.1f}x); peak memory {rss:.2f} GiB, {anonymous:.2f} GiB of it not the file "
        f"mapped (limit {MEMORY:g})"
    )


if __name__ == "__main__":
    main()

"""How much sooner a queue is empty with two worker processes on one database than with one.

`python -m benchmarks.workers [--waiting] [--rounds N]`. One service; a second worker comes and
goes, so that one and two are measured in turns in the same run. A batch is little analyses or
middling ones, its throughput that from the first start to the last end. Beside them the same for a
loop that needs a processor and nothing else, split over one process and over two: what this machine
has to give just now. Of the ratios the median of the rounds counts; one alone says little.

`--waiting`: children that wait for a second in the middle (0 to 2) instead of computing, one worker
and two with folders of their own on one PostgreSQL and one S3 server (a test double). That shows
what the queue and the store let through where processors are not what is short.
"""

import argparse
import subprocess
import sys
import time
from contextlib import contextmanager
from datetime import datetime
from pathlib import Path
from statistics import median

from tests.faults import fleet
from tests.service import QUICK, SPEC, serving, until

BATCHES = {"little": 30, "middling": 8}
LAYERS = [{"type": "dense", "units": 256}, {"type": "activation", "function": "tanh"}]
MIDDLING = {
    "gradgauge": 1,
    "name": "middling",
    "input": {"shape": [256]},
    "layers": [{"type": "repeat", "times": 16, "layers": LAYERS}, {"type": "dense", "units": 8}],
}
ASKED = {
    "little": {"architecture": SPEC, "options": QUICK, "fresh": True},
    "middling": {
        "architecture": MIDDLING,
        "options": {"profile": "standard", "remediate": False},
        "fresh": True,
    },
}
LOOP = "sum(i * i for i in range({}))"
STEPS = 30_000_000
PATIENCE_S = 1800.0
WAITING = 40  # jobs of a round of `--waiting`


def batch(service, kind):
    """Seconds from the first start to the last end."""
    ids = [service.submit(ASKED[kind]) for _ in range(BATCHES[kind])]
    rows = [service.until(each, limit_s=PATIENCE_S) for each in ids]
    assert {row["state"] for row in rows} == {"succeeded"}
    began = min(datetime.fromisoformat(row["started_at"]) for row in rows)
    ended = max(datetime.fromisoformat(row["finished_at"]) for row in rows)
    return (ended - began).total_seconds()


def loop(processes):
    """Seconds of the same work in so many processes at once."""
    command = [sys.executable, "-c", LOOP.format(STEPS // processes)]
    began = time.monotonic()
    running = [subprocess.Popen(command) for _ in range(processes)]
    assert [each.wait() for each in running] == [0] * processes
    return time.monotonic() - began


@contextmanager
def second(service):
    """Another worker, once it has announced itself."""
    worker = service.worker()
    try:
        until(lambda: service.client.get("/readyz").json()["workers"] == 2)
        yield
    finally:
        worker.terminate()
        worker.wait()
    until(lambda: service.client.get("/readyz").json()["workers"] == 1)


def waiting(rounds):
    """Seconds from the first start to the last end, round for round, and their ratio."""
    ratios = []
    for seed in range(rounds):
        one, two = (
            fleet.trial(jobs=WAITING, kills=0, seed=seed, size=size, does=1.0)["busy_s"]
            for size in (1, 2)
        )
        load = Path("/proc/loadavg").read_text().split()[0]
        print(f"waiting: {one:.1f} s, {two:.1f} s, load {load}", flush=True)
        ratios.append(one / two)
    tell({"waiting": ratios})


def tell(ratios):
    for kind, held in ratios.items():
        print(
            f"{kind}: {median(held):.2f} times the throughput of one ({min(held):.2f} to "
            f"{max(held):.2f})"
        )


def main(arguments):
    parser = argparse.ArgumentParser()
    parser.add_argument("--rounds", type=int, default=3)
    parser.add_argument("--waiting", action="store_true")
    given = parser.parse_args(arguments)
    if given.waiting:
        waiting(given.rounds)
        return
    ratios = {kind: [] for kind in (*BATCHES, "loop")}
    with serving() as service:
        for kind in BATCHES:  # what a first child finds not loaded
            service.until(service.submit(ASKED[kind]), limit_s=PATIENCE_S)
        for _ in range(given.rounds):
            one = {kind: batch(service, kind) for kind in BATCHES} | {"loop": loop(1)}
            with second(service):
                for kind in BATCHES:  # its own first children
                    service.until(service.submit(ASKED[kind]), limit_s=PATIENCE_S)
                two = {kind: batch(service, kind) for kind in BATCHES} | {"loop": loop(2)}
            load = Path("/proc/loadavg").read_text().split()[0]
            for kind, held in ratios.items():
                held.append(one[kind] / two[kind])
                print(f"{kind}: {one[kind]:.1f} s, {two[kind]:.1f} s, load {load}", flush=True)
    tell(ratios)


if __name__ == "__main__":
    main(sys.argv[1:])

"""How long from a submitted analysis to its child at work, and what each process holds in memory.

Starts a whole service with `gradgauge serve`, submits one little analysis at a time and asks the
kernel when the child was born: `python -m benchmarks.submit_latency [ROUNDS]`.
"""

import os
import statistics
import sys
import time
from pathlib import Path

from tests.service import QUICK, SPEC, children, serving

PARTS = ("supervisor", "api", "worker", "zygote", "postmaster")


def main(rounds):
    with serving() as service:
        zygote = service.zygote()
        samples = [one(service, zygote, seed) for seed in range(rounds + 3)][3:]
        report(samples)
        pids = {
            "supervisor": service.process.pid,
            "api": service.part("api"),
            "worker": service.part("worker"),
            "zygote": zygote,
            "postmaster": service.postmaster(),
        }
        print(f"{'process':12} {'RSS':>8} {'PSS':>8}   MiB")
        for name in PARTS:
            held = memory(pids[name])
            print(f"{name:12} {held['Rss']:8.1f} {held['Pss']:8.1f}")
        backends = [memory(pid) for pid in children(pids["postmaster"])]
        total = sum(held["Pss"] for held in backends)
        print(f"{'backends':12} {'':8} {total:8.1f}   ({len(backends)} of PostgreSQL)")


def one(service, zygote, seed):
    """(seconds to the 202, to the child, to the end) of one analysis on an idle worker."""
    body = {"architecture": SPEC, "options": QUICK | {"seed": seed}, "fresh": True}
    asked = time.monotonic()
    answer = service.client.post("/v1/analyses", json=body)
    accepted = time.monotonic()
    while not children(zygote):
        assert time.monotonic() < asked + 10, "no child"
    started = time.monotonic()
    service.until(answer.json()["id"])
    ended = time.monotonic()
    time.sleep(0.1)
    return accepted - asked, started - asked, ended - asked


def report(samples):
    print(f"{len(samples)} analyses, one at a time, {os.cpu_count()} processors; milliseconds")
    for name, values in zip(
        ("accepted", "child started", "succeeded"), zip(*samples, strict=True), strict=True
    ):
        p50, p95 = statistics.median(values), sorted(values)[int(0.95 * len(values))]
        print(f"{name:14} p50 {1000 * p50:7.1f}   p95 {1000 * p95:7.1f}")


def memory(pid):
    """Resident and proportional set size in MiB."""
    rows = (line.split() for line in Path(f"/proc/{pid}/smaps_rollup").read_text().splitlines()[1:])
    return {
        row[0].rstrip(":"): int(row[1]) / 1024 for row in rows if len(row) > 1 and row[1].isdigit()
    }


if __name__ == "__main__":
    main(int(sys.argv[1]) if len(sys.argv) > 1 else 50)

"""A whole service under mixed load for a while: do memory, descriptors or zombies grow?

`python -m benchmarks.soak [--minutes N] [--rows FILE]`: uploads, analyses, their reports, lists,
cancellations, deletions and refused requests, over and over; each part's resident memory, open
descriptors and dead children are read every few seconds. Told are the medians of the second and of
the last fifth of the time (the first warms up). Exits 1 where a request was answered by a 5xx, a
zombie stayed, or the last fifth holds over a tenth and 16 MiB, or 8 descriptors, more.
"""

import argparse
import json
import random
import sys
import time
from collections import Counter, defaultdict
from contextlib import suppress
from pathlib import Path
from statistics import median

from tests.faults.nets import net
from tests.service import QUICK, SPEC, children, serving

EVERY_S = 3.0
MIB = 1 << 20


def main(arguments):
    parser = argparse.ArgumentParser()
    parser.add_argument("--minutes", type=float, default=30.0)
    parser.add_argument("--rows", type=Path)
    given = parser.parse_args(arguments)
    rows, answers = [], Counter()
    with serving(quota_queued=200) as service:
        ends = time.monotonic() + 60 * given.minutes
        draw, at = random.Random(0), 0.0
        while (now := time.monotonic()) < ends:
            load(service, draw, answers)
            if now >= at:
                at = now + EVERY_S
                rows.append(looked(service))
    if given.rows:
        given.rows.write_text("".join(json.dumps(row) + "\n" for row in rows))
    print(f"{given.minutes:g} minutes; requests by what they were answered: {dict(answers)}")
    grown = told(rows)
    failed = sum(count for answer, count in answers.items() if answer.startswith("5"))
    return 1 if grown or failed else 0


def load(service, draw, answers):
    """One user's round: a model, its analyses, looks at them, and some mistakes."""

    def ask(method, path, **more):
        answer = service.client.request(method, path, **more)
        answers[str(answer.status_code)] += 1
        return answer

    model = ask("POST", "/v1/models", content=net(draw.randrange(1 << 30))).json()
    body = {"model_id": model["id"], "options": QUICK, "fresh": True}
    made = [ask("POST", "/v1/analyses", json=body).json()["id"]]
    spec = {"architecture": SPEC, "options": QUICK | {"seed": draw.randrange(4)}}
    made.append(ask("POST", "/v1/analyses", json=spec).json()["id"])
    ask("POST", "/v1/models", content=b"\x08" * draw.randrange(1, 4000))
    ask("POST", "/v1/analyses", content=b"{", headers={"Content-Type": "application/json"})
    ask("GET", "/v1/models/mdl_nothing")
    ask("POST", f"/v1/analyses/{made[-1]}:cancel")
    for each in made:
        while ask("GET", f"/v1/analyses/{each}").json()["state"] in {"queued", "running"}:
            time.sleep(0.05)
        ask("GET", f"/v1/analyses/{each}/report?format={draw.choice(['json', 'html', 'markdown'])}")
        with service.client.stream("GET", f"/v1/analyses/{each}/events") as events:
            answers[str(events.status_code)] += len(events.read()) > 0
    for path in ("/v1/analyses", "/v1/models", "/v1/capabilities", "/metrics", "/", "/readyz"):
        ask("GET", path)
    ask("DELETE", f"/v1/models/{model['id']}?reports=true")


def looked(service):
    """Memory of its own, descriptors and dead children of each part."""
    parts = {
        "serve": service.process.pid,
        "api": service.part("api"),
        "worker": service.part("worker"),
        "zygote": service.zygote(),
    }
    return {name: process(pid) for name, pid in parts.items()} | {"at": round(time.monotonic(), 1)}


def process(pid):
    status = Path(f"/proc/{pid}/status").read_text()
    held = next(line.split()[1] for line in status.splitlines() if line.startswith("RssAnon"))
    dead = 0
    for child in children(pid):
        with suppress(OSError):
            dead += "\nState:\tZ" in Path(f"/proc/{child}/status").read_text()
    descriptors = len(list(Path(f"/proc/{pid}/fd").iterdir()))
    return {"bytes": int(held) << 10, "descriptors": descriptors, "zombies": dead}


def told(rows):
    """Print what each part held early and late; whether one grew."""
    fifth, grown = max(1, len(rows) // 5), False
    seen = defaultdict(dict)
    for name in ("serve", "api", "worker", "zygote"):
        for what in ("bytes", "descriptors"):
            early = median(row[name][what] for row in rows[fifth : 2 * fifth])
            seen[name][what] = early, median(row[name][what] for row in rows[-fifth:])
        (was, now), (had, has) = seen[name]["bytes"], seen[name]["descriptors"]
        zombies = median(row[name]["zombies"] for row in rows[-fifth:])
        grown = grown or now > max(1.1 * was, was + 16 * MIB) or has > had + 8 or zombies > 0
        print(
            f"{name}: {was / MIB:.1f} MiB early, {now / MIB:.1f} MiB late; descriptors "
            f"{had:g} and {has:g}; zombies {zombies:g}"
        )
    return grown


if __name__ == "__main__":
    sys.exit(main(sys.argv[1:]))

"""Processes killed at seeded random points: is anything acknowledged lost or done twice?

`python -m benchmarks.faults service|fleet [--rounds N] [--seed S] [--journal FILE]`. A round of
`service` is a whole service with real children: a dozen little analyses, and ten kills spread over
API, worker, the worker's zygote, the running child and the database. A round of `fleet` is three
workers with folders of their own on one PostgreSQL and one S3 server (a test double), with scripted
children: 100 jobs, 40 workers killed or frozen. Every job has to end once, succeeded, its report
readable. A finished round is a line of the journal: started again, the run goes on. Exits 1 where
a round lost or doubled anything.
"""

import argparse
import json
import os
import random
import signal
import sys
import time
from collections import Counter
from contextlib import contextmanager, suppress
from pathlib import Path

import httpx2

from tests.faults import fleet
from tests.service import HASTY, QUICK, SPEC, TASKS, children, serving, task, until

KILLS, JOBS = 10, 12  # of a round of `service`
STRIKES, FLEET_JOBS = 40, 100  # of a round of `fleet`
PARTS = ("api", "worker", "zygote", "child", "postmaster")
PATIENCE_S = 600.0


def service_round(service, seed):
    """Kills in one service, which goes on afterwards; what was acknowledged and what became."""
    draw, killed, ids, answers = random.Random(seed), Counter(), [], Counter()
    for _ in range(KILLS):
        while len(ids) < JOBS and draw.random() < 0.7:
            submit(service, draw.randrange(1 << 30), ids, answers)
        time.sleep(draw.uniform(0, 2.0))
        part = draw.choice(PARTS)
        pid = victim(service, part)
        if pid is None:
            part = "worker"
            pid = service.part("worker")
        with suppress(ProcessLookupError):
            os.kill(pid, signal.SIGKILL)
            killed[part] += 1
        until(lambda: service.client.get("/readyz").status_code == 200, PATIENCE_S)
    states, ends, unread = Counter(), Counter(), 0
    for each in ids:
        states[service.until(each, limit_s=PATIENCE_S)["state"]] += 1
        ends[len(service.ends(each))] += 1
        unread += service.client.get(f"/v1/analyses/{each}/report").status_code != 200
    return {
        "jobs": len(ids),
        "states": dict(states),
        "ends_told": {str(number): count for number, count in ends.items()},
        "unreadable": unread,
        "kills": dict(killed),
        "answers": dict(answers),
    }


def submit(service, seed, ids, answers):
    """Ask for a little analysis; its id counts as acknowledged with the 202 alone."""
    body = {"architecture": SPEC, "options": QUICK | {"seed": seed}, "fresh": True}
    try:
        answer = service.client.post("/v1/analyses", json=body)
    except httpx2.TransportError:
        answers["cut off"] += 1
        return
    answers[str(answer.status_code)] += 1
    if answer.status_code == 202:
        ids.append(answer.json()["id"])


def victim(service, part):
    """The process to kill; None where there is no child at work just now."""
    if part == "child":
        with suppress(AssertionError, OSError):
            return next((p for p in children(service.zygote()) if task(p) in TASKS), None)
        return None
    return service.part(part) if part in {"api", "worker"} else getattr(service, part)()


def sound(row):
    """Whether every acknowledged job ended once and succeeded, and no answer was another 5xx."""
    jobs = row["jobs"]
    if set(row.get("answers", ())) - {"202", "503", "cut off"}:
        return False
    if jobs == 0:
        return True
    once = row["ends_told"] == {"1": jobs} and row["unreadable"] == 0
    return once and row["states"] == {"succeeded": jobs}


@contextmanager
def opened(what):
    """How a round of this kind is run."""
    if what == "fleet":
        yield lambda seed: fleet.trial(jobs=FLEET_JOBS, kills=STRIKES, seed=seed)
        return
    with serving(**HASTY, max_deaths=1000) as service:
        yield lambda seed: service_round(service, seed)


def run(what, rounds, seed, journal):
    """Every round that the journal does not hold yet; all rows."""
    done = {}
    if journal.exists():
        done = {row["round"]: row for row in map(json.loads, journal.read_text().splitlines())}
    left = [number for number in range(rounds) if number not in done]
    if left:
        with opened(what) as one, journal.open("a") as out:
            for number in left:
                began = time.monotonic()
                row = {"round": number, **one(f"{seed}/{number}")}
                row["wall_s"] = round(time.monotonic() - began, 1)
                done[number] = row
                out.write(json.dumps(row) + "\n")
                out.flush()
    return list(done.values())


def main(arguments):
    parser = argparse.ArgumentParser()
    parser.add_argument("what", choices=["service", "fleet"])
    parser.add_argument("--rounds", type=int, default=10)
    parser.add_argument("--seed", type=int, default=0)
    parser.add_argument("--journal", type=Path)
    given = parser.parse_args(arguments)
    journal = given.journal or Path("out") / f"faults-{given.what}-{given.seed}.jsonl"
    journal.parent.mkdir(parents=True, exist_ok=True)
    rows = run(given.what, given.rounds, given.seed, journal)
    kills, states = Counter(), Counter()
    for row in rows:
        kills.update(row["kills"])
        states.update(row["states"])
    bad = [row["round"] for row in rows if not sound(row)]
    by = ", ".join(f"{name} {count}" for name, count in sorted(kills.items()))
    print(f"{given.what}: {len(rows)} rounds, {sum(kills.values())} kills ({by})")
    print(f"{sum(row['jobs'] for row in rows)} jobs acknowledged; their ends: {dict(states)}")
    print(f"rounds that lost or doubled one, or failed one: {bad or 'none'}")
    return 1 if bad else 0


if __name__ == "__main__":
    sys.exit(main(sys.argv[1:]))

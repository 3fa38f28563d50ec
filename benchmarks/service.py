"""The service against a bare FastAPI app on the same machine and database: `--out FILE`.

Both servers are asked in turns by one client over kept-alive connections. Of each the processor
time of its process per request is told (user and system, of /proc/PID/stat, in hundredths of a
second: hundreds of requests for one figure) and the wall-clock median; a ratio is ours over theirs.
"""

import argparse
import json
import os
import statistics
import subprocess
import sys
import time
from concurrent.futures import ThreadPoolExecutor
from contextlib import contextmanager
from functools import partial
from pathlib import Path

import httpx2
import psycopg

from tests.postgres import open_folder
from tests.service import QUICK, Service, until

# Queued analyses like one that is there, and their jobs, as the service would have written them.
CROWD = (
    """INSERT INTO analyses (id, project_id, architecture_id, name, options, cache_key)
       SELECT 'ana_' || lpad(n::text, 26, '0'), project_id, architecture_id, name, options, 'crowd'
         FROM analyses, generate_series(1, %(jobs)s) n WHERE id = %(id)s""",
    """INSERT INTO procrastinate_jobs (queue_name, task_name, priority, args)
       SELECT 'analyse', 'analyse', -row_number() OVER (), jsonb_build_object('row_id', id)
         FROM analyses WHERE cache_key = 'crowd'""",
    """UPDATE analyses SET job_id = job.id FROM procrastinate_jobs job
        WHERE cache_key = 'crowd' AND job.args ->> 'row_id' = analyses.id""",
)
TICK = os.sysconf("SC_CLK_TCK")
BARE = """
import hashlib, os, sys, tempfile, threading, asyncio, json
from contextlib import asynccontextmanager
from fastapi import FastAPI, Request
from psycopg_pool import AsyncConnectionPool
import uvicorn

POOL = AsyncConnectionPool(sys.argv[1], min_size=2, max_size=8, open=False)

@asynccontextmanager
async def open_all(app):
    async with POOL:
        async with POOL.connection() as c:
            await c.execute("CREATE TABLE IF NOT EXISTS bare (id text PRIMARY KEY, body text)")
            await c.execute("INSERT INTO bare VALUES ('a', 'b') ON CONFLICT DO NOTHING")
        yield

app = FastAPI(lifespan=open_all)

@app.get("/point/{name}")
async def point(name: str):
    async with POOL.connection() as c:
        row = await (await c.execute("SELECT id, body FROM bare WHERE id = %s", [name])).fetchone()
    return {"id": row[0], "body": row[1]}

@app.post("/insert", status_code=201)
async def insert(request: Request):
    body = await request.json()
    async with POOL.connection() as c:
        await c.execute("INSERT INTO bare VALUES (gen_random_uuid()::text, %s)", [json.dumps(body)])
    return {"ok": True}

@app.post("/upload", status_code=201)
async def upload(request: Request):
    digest, size = hashlib.sha256(), 0
    path = os.path.join(sys.argv[3], "bare.bin")
    with open(path, "wb") as file:
        async for chunk in request.stream():
            size += len(chunk)
            await asyncio.to_thread(digest.update, chunk)
            await asyncio.to_thread(file.write, chunk)
    os.unlink(path)
    return {"sha256": digest.hexdigest(), "size": size}

uvicorn.run(app, port=int(sys.argv[2]), log_level="warning", access_log=False, http="h11")
"""


def processor_s(pid):
    fields = Path(f"/proc/{pid}/stat").read_text().rpartition(")")[2].split()
    return (int(fields[11]) + int(fields[12])) / TICK


def resident(pid):
    told = Path(f"/proc/{pid}/status").read_text()
    return next(int(line.split()[1]) for line in told.splitlines() if line.startswith("VmRSS"))


class Side:
    """One of the two servers: what its requests have cost."""

    def __init__(self, pid, ask):
        self.pid, self.ask = pid, ask
        self.walls, self.cpu, self.count = [], 0.0, 0

    def turn(self, count):
        began = processor_s(self.pid)
        for _ in range(count):
            start = time.perf_counter()
            answer = self.ask()
            self.walls.append(time.perf_counter() - start)
            assert answer.status_code < 300, answer.text
        self.cpu += processor_s(self.pid) - began
        self.count += count

    def told(self):
        ordered = sorted(self.walls)
        return {
            "requests": self.count,
            "processor_ms": round(1000 * self.cpu / self.count, 3),
            "wall_p50_ms": round(1000 * statistics.median(ordered), 2),
            "wall_p99_ms": round(1000 * ordered[int(0.99 * (len(ordered) - 1))], 2),
        }


def paired(ours, theirs, *, turns, each):
    for side in (ours, theirs):
        for _ in range(20):
            side.ask()
    for _ in range(turns):
        ours.turn(each)
        theirs.turn(each)
    a, b = ours.told(), theirs.told()
    ratio = round(a["processor_ms"] / b["processor_ms"], 2)
    walls = round(a["wall_p50_ms"] / b["wall_p50_ms"], 2)
    return {"ours": a, "bare": b, "processor_ratio": ratio, "wall_p50_ratio": walls}


def database_of(service):
    folder = service.folder / "data" / "postgres"
    lines = (folder / "data" / "postmaster.pid").read_text().splitlines()
    return f"postgresql://gradgauge@/gradgauge?host={lines[4]}&port={lines[3]}"


@contextmanager
def bare(service, port=18377):
    command = [sys.executable, "-c", BARE, database_of(service), str(port), str(service.folder)]
    process = subprocess.Popen(command)
    client = httpx2.Client(base_url=f"http://127.0.0.1:{port}", timeout=600)
    try:
        until(lambda: client.get("/point/a").status_code == 200)
        yield process.pid, client
    finally:
        client.close()
        process.terminate()
        process.wait(30)


def reads(service, plain, pid):
    """A status read, and an analysis that is answered from an earlier one, against a point read."""
    done = service.until(service.submit())
    body = {"architecture_id": done["architecture_id"], "options": QUICK}
    first = service.client.post("/v1/analyses", json=body).json()
    service.until(first["id"])
    api = service.part("api")
    status = Side(api, lambda: service.client.get(f"/v1/analyses/{done['id']}"))
    point = Side(pid, lambda: plain.get("/point/a"))
    told = {"status": paired(status, point, turns=10, each=60)}
    cached = Side(api, lambda: service.client.post("/v1/analyses", json=body))
    again = Side(api, lambda: service.client.get(f"/v1/analyses/{done['id']}"))
    told["cached_over_status"] = paired(cached, again, turns=6, each=40)
    told["half_load"] = half_load(service, done["id"])
    return told, done


def writes(service, plain, pid, architecture):
    """A submission nobody takes, against an insert."""
    body = {"architecture_id": architecture, "options": QUICK, "fresh": True}
    api = service.part("api")
    submit = Side(api, lambda: service.client.post("/v1/analyses", json=body))
    insert = Side(pid, lambda: plain.post("/insert", json=body))
    return paired(submit, insert, turns=8, each=40)


def crowded(service, plain, pid, analysis_id, jobs=10_000):
    """A status read before and after `jobs` others are queued, each against a point read.

    At once, while the disk still takes what was written, and once the database has settled.
    """
    api = service.part("api")
    url = database_of(service)

    def measured():
        status = Side(api, lambda: service.client.get(f"/v1/analyses/{analysis_id}"))
        return paired(status, Side(pid, lambda: plain.get("/point/a")), turns=8, each=60)

    before = measured()
    with psycopg.connect(url) as connection:
        for statement in CROWD:
            connection.execute(statement, {"jobs": jobs, "id": analysis_id})
    at_once = measured()
    with psycopg.connect(url, autocommit=True) as connection:
        connection.execute("VACUUM ANALYZE")
        connection.execute("CHECKPOINT")
    after = measured()
    return {
        "jobs": jobs,
        "before": before,
        "at_once": at_once,
        "after": after,
        "ratio_at_once": round(at_once["wall_p50_ratio"] / before["wall_p50_ratio"], 2),
        "ratio": round(after["wall_p50_ratio"] / before["wall_p50_ratio"], 2),
    }


def half_load(service, analysis_id, threads=4, seconds=6):
    """Status reads at half of the rate at which they saturate the service, counted from when each
    was due: a request that waits for its turn is late, not absent."""

    def run(rate):
        ends = time.perf_counter() + seconds
        with ThreadPoolExecutor(threads) as pool:
            one = partial(asking, service.url, analysis_id, ends, rate)
            told = pool.map(one, range(threads))
            return sorted(each for latencies in told for each in latencies)

    saturated = len(run(None)) / seconds
    late = run(saturated / 2 / threads)
    return {
        "saturation_per_s": round(saturated, 1),
        "asked_per_s": round(len(late) / seconds, 1),
        "p50_ms": round(1000 * statistics.median(late), 2),
        "p99_ms": round(1000 * late[int(0.99 * (len(late) - 1))], 2),
    }


def asking(url, analysis_id, ends, rate, number):
    """One connection's latencies, at `rate` requests a second or (None) without a pause."""
    latencies = []
    with httpx2.Client(base_url=url, timeout=60) as client:
        due = time.perf_counter() + (number / 4 / rate if rate else 0.0)
        while time.perf_counter() < ends:
            if rate is not None:
                time.sleep(max(0.0, due - time.perf_counter()))
            else:
                due = time.perf_counter()
            assert client.get(f"/v1/analyses/{analysis_id}").status_code == 200
            latencies.append(time.perf_counter() - due)
            due += 1 / rate if rate else 0.0
    return latencies


def uploads(service, plain, pid, size, rounds=2):
    """A body of `size` bytes, of a content that is new each time."""
    api = service.part("api")
    block = os.urandom(1 << 20)

    def body():
        yield os.urandom(16)
        for _ in range(size >> 20):
            yield block

    told = {"ours": [], "bare": []}
    before = peak = resident(api)
    for _ in range(rounds):
        for name, where, client, process in (
            ("bare", "/upload", plain, pid),
            ("ours", "/v1/models", service.client, api),
        ):
            cpu, wall = processor_s(process), time.perf_counter()
            answer = client.post(where, content=body(), timeout=600)
            assert answer.status_code == 201, answer.text
            told[name].append((processor_s(process) - cpu, time.perf_counter() - wall))
            peak = max(peak, resident(api))
    mean = {
        name: [statistics.mean(each) for each in zip(*runs, strict=True)]
        for name, runs in told.items()
    }
    return {
        "bytes": size,
        "processor_s": {name: round(each[0], 2) for name, each in mean.items()},
        "wall_s": {name: round(each[1], 2) for name, each in mean.items()},
        "processor_ratio": round(mean["ours"][0] / mean["bare"][0], 2),
        "rate_of_bare": round(mean["bare"][1] / mean["ours"][1], 2),
        "memory_growth_mib": round((peak - before) / 1024, 1),
    }


def main():
    parser = argparse.ArgumentParser(description=__doc__)
    parser.add_argument("--out", type=Path)
    parser.add_argument("--upload-mib", type=int, default=1024)
    asked = parser.parse_args()
    with open_folder() as folder:
        service = Service(folder, log_level="warning").start()
        try:
            with bare(service) as (pid, plain):
                told, done = reads(service, plain, pid)
            service.stop()
            service.flags = ("--api-only",)
            service.start()
            with bare(service) as (pid, plain):
                told["submit"] = writes(service, plain, pid, done["architecture_id"])
                if asked.upload_mib:
                    told["upload"] = uploads(service, plain, pid, asked.upload_mib << 20)
                told["crowded"] = crowded(service, plain, pid, done["id"])
        finally:
            service.stop()
    text = json.dumps(told, indent=2)
    print(text)
    if asked.out:
        asked.out.write_text(text + "\n")


if __name__ == "__main__":
    main()

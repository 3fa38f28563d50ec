"""Worker processes with folders of their own, on one PostgreSQL and one S3-compatible store, and
a hand that kills them at random.

The store is moto's server, a test double that keeps objects in memory: what is held here is that
nothing but the two is shared, not how a real store behaves under load. The children are scripted.
"""

import asyncio
import json
import os
import random
import signal
import subprocess
import sys
import time
from collections import Counter
from contextlib import ExitStack, contextmanager, suppress
from pathlib import Path
from unittest import mock

import boto3
from moto.server import ThreadedMotoServer

from gradgauge.jobs.queue import Queue
from gradgauge.settings import Settings
from gradgauge.store.blobs import BlobStore
from gradgauge.store.database import Database
from gradgauge.store.embedded import EmbeddedPostgres
from gradgauge.store.ids import DEFAULT_PROJECT
from gradgauge.store.repository import analyses
from gradgauge.store.schema import migrate
from gradgauge.store.tables import FINAL_STATES
from tests.postgres import open_folder
from tests.rows import analysis_of, ready_model
from tests.service import HASTY, gone, until

ROOT = Path(__file__).parents[2]
AWS = {"AWS_ACCESS_KEY_ID": "x", "AWS_SECRET_ACCESS_KEY": "x", "AWS_REGION": "us-east-1"}
queue = Queue()


class Fleet:
    """The workers, by number; one that is killed comes back with the same folder."""

    def __init__(self, folder, size, shared):
        self.folder = folder
        self.shared = shared
        with (folder / "workers.log").open("ab") as log:
            self.nursery = subprocess.Popen(
                [sys.executable, "-m", "tests.faults.nursery"],
                cwd=ROOT,
                env={"PATH": os.getenv("PATH", ""), "PYTHONPATH": f"{ROOT / 'service'}:{ROOT}"},
                stdin=subprocess.PIPE,
                stdout=subprocess.PIPE,
                stderr=log,
                text=True,
            )
        self.workers = [self._started(number) for number in range(size)]
        self.frozen = {}

    def _started(self, number):
        own = {"GRADGAUGE_DATA_DIR": str(self.folder / f"worker-{number}")}
        environment = {"PATH": os.getenv("PATH", ""), **self.shared, **own}
        self.nursery.stdin.write(json.dumps(environment) + "\n")
        self.nursery.stdin.flush()
        return int(self.nursery.stdout.readline())

    def kill(self, number):
        self._end(self.workers[number])
        self.workers[number] = self._started(number)

    def freeze(self, number):
        os.kill(self.workers[number], signal.SIGSTOP)
        self.frozen[number] = time.monotonic()

    def thaw(self, older_s):
        for number, since in list(self.frozen.items()):
            if time.monotonic() - since >= older_s:
                os.kill(self.workers[number], signal.SIGCONT)
                del self.frozen[number]

    def close(self):
        for pid in self.workers:
            self._end(pid)
        self.nursery.stdin.close()
        self.nursery.wait()
        self.nursery.stdout.close()

    @staticmethod
    def _end(pid):
        with suppress(ProcessLookupError):
            os.kill(pid, signal.SIGKILL)
        until(lambda: gone(pid))


@contextmanager
def running(size, **settings):
    """A fleet, and settings that reach what it shares."""
    with ExitStack() as stack:
        stack.enter_context(mock.patch.dict(os.environ, AWS))  # noqa: TID251 - for obstore
        folder = stack.enter_context(open_folder())
        embedded = stack.enter_context(EmbeddedPostgres(folder / "postgres"))
        migrate(embedded.url)
        s3 = ThreadedMotoServer(ip_address="127.0.0.1", port=0, verbose=False)
        s3.start()
        stack.callback(s3.stop)
        endpoint = "http://{}:{}".format(*s3.get_host_and_port())
        client = boto3.client("s3", endpoint_url=endpoint, region_name="us-east-1")
        client.create_bucket(Bucket="fleet")
        chosen = {
            **HASTY,
            "max_deaths": 1000,
            "database_url": embedded.url,
            "storage_url": "s3://fleet/main",
            "storage_endpoint": endpoint,
            **settings,
        }
        shared = AWS | {f"GRADGAUGE_{name.upper()}": str(each) for name, each in chosen.items()}
        fleet = Fleet(folder, size, shared)
        stack.callback(fleet.close)
        yield fleet, Settings(data_dir=folder / "api", **chosen)


def trial(*, jobs, kills, seed, size=3, does=0.1, limit_s=600.0):
    """Have a fleet do `jobs` while `kills` of its workers are killed or frozen; what was seen."""
    with running(size) as (fleet, settings):
        return asyncio.run(_trial(fleet, settings, random.Random(seed), jobs, kills, does, limit_s))


async def _trial(fleet, settings, draw, jobs, kills, does, limit_s):
    database = Database(settings.database_url.get_secret_value())
    try:
        async with database.session() as session:
            model = await ready_model(session)
        ids = []
        for _ in range(jobs):
            async with database.session() as session:
                new = analysis_of(model, does=draw.uniform(0, 2 * does))
                ids.append((await queue.submit_analysis(session, new, fresh=True)).analysis.id)
        began, done = time.monotonic(), Counter()
        while True:
            async with database.session() as session:
                rows = [await analyses.get(session, DEFAULT_PROJECT, each) for each in ids]
            ended = [row for row in rows if row.state in FINAL_STATES]
            if len(ended) == jobs and sum(done.values()) >= kills:
                break
            assert time.monotonic() - began < limit_s, f"{jobs - len(ended)} of {jobs} left"
            if sum(done.values()) < kills and (ended or done):
                done[await asyncio.to_thread(_strike, fleet, draw)] += 1
            fleet.thaw(2 * settings.stall_s)
            await asyncio.sleep(draw.uniform(0, 1.0))
        return await _tally(database, BlobStore.open(settings), rows) | {
            "kills": dict(done),
            "seconds": round(time.monotonic() - began, 1),
        }
    finally:
        await database.close()


def _strike(fleet, draw):
    """Kill or freeze one of the workers that are not frozen."""
    number = draw.choice([n for n in range(len(fleet.workers)) if n not in fleet.frozen])
    if draw.random() < 0.25 and len(fleet.frozen) < len(fleet.workers) - 1:
        fleet.freeze(number)
        return "frozen"
    fleet.kill(number)
    return "killed"


async def _tally(database, blobs, rows):
    states = Counter(row.state for row in rows)
    ends, unreadable, by = Counter(), 0, Counter()
    for row in rows:
        async with database.session() as session:
            told = await analyses.events(session, DEFAULT_PROJECT, row.id)
        ends[sum(event.state in FINAL_STATES for event in told)] += 1
        try:
            by[json.loads(await blobs.get(row.report_key))["by"]] += 1
        except Exception:  # noqa: BLE001 - any is a loss
            unreadable += 1
    return {
        "jobs": len(rows),
        "states": dict(states),
        "ends_told": {str(number): count for number, count in ends.items()},
        "unreadable": unreadable,
        "worker_processes_that_finished_some": len(by),
        "attempts": sum(row.attempts for row in rows),
        "busy_s": (
            max(row.finished_at for row in rows) - min(row.started_at for row in rows)
        ).total_seconds(),
    }

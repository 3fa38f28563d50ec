"""Mutants of hostile and of sound models: does anything but an answer or a refusal come of one?

`python -m benchmarks.fuzz validator|inspection|service [--count N] [--seed S] [--journal FILE]
[--corpus FOLDER]`, with the corpus of hostile models in FOLDER, or in ../shared/bench/hostile where
it lies beside the checkout. The validator and the inspection run in this one process; the service
is a whole one, mutants uploaded to it, several under way. Mutants are drawn in rounds, each of a
seed of its own, and a finished round is a line of the journal: started again, the run goes on, and
a round that kills the process can be drawn again. Exits 1 where a mutant was met by an exception of
another kind, an answer of 5xx, a dead child, or took longer than its limit (such mutants are kept
beside the journal), and where a process of the service was another after a round than before.
"""

import argparse
import hashlib
import json
import random
import sys
import tarfile
import time
import traceback
from collections import Counter
from concurrent.futures import ThreadPoolExecutor
from contextlib import contextmanager
from dataclasses import asdict
from pathlib import Path

import onnx
from google.protobuf.message import DecodeError

from gradgauge import pipeline
from gradgauge.errors import GradgaugeError
from gradgauge.graph.archive import open_archive
from gradgauge.graph.container import ZIP, parse
from gradgauge.graph.external import NoFiles
from gradgauge.graph.limits import DEFAULT_LIMITS
from gradgauge.graph.validate import validate
from gradgauge.schema.resources import ModelFacts
from tests.hostile import mutants
from tests.hostile.sound import SEEDS
from tests.service import serving

CORPUS = Path(__file__).parents[2] / "shared" / "bench" / "hostile"
ROUND = {"validator": 1_000, "inspection": 1_000, "service": 250}
MOST_BYTES = 8 << 10  # of a seed: larger ones would be most of the time
LIMIT_S = 5.0  # of processor time for one mutant in this process
SERVICE_LIMIT_S = 30.0  # from upload to the end of the inspection, with others under way
AT_ONCE = 16
POLL_S = (0.5, 2.0)  # first, at most: asked more often, the questions would be most of the work


def seeds(corpus=CORPUS):
    """(all seeds, those that are models): the sound ones, and the corpus's small ones if there."""
    found = list(SEEDS)
    if (corpus / "hostile.tar.gz").exists():
        with tarfile.open(corpus / "hostile.tar.gz") as archive:
            for member in archive:
                small = member.isfile() and 0 < member.size <= MOST_BYTES
                if small and member.name.endswith((".onnx", ".zip")):
                    found.append(archive.extractfile(member).read())
    return found, [data for data in found if is_model(data)]


def is_model(data):
    try:
        return bool(onnx.ModelProto.FromString(data).graph.node)
    except DecodeError:
        return False


def drawn(whole, models, seed, index, size):
    """The mutants of one round: of bytes and of fields in turn."""
    rng = random.Random(f"{seed}/{index}")
    for at in range(size):
        if at % 2:
            yield mutants.of_fields(models, rng)
        else:
            yield mutants.of_bytes(whole, rng)


def check(data):
    """The validator alone: container, archive and every check before the first library."""
    view, files = memoryview(data), NoFiles()
    if view[:4] == ZIP:
        archive = open_archive(view, DEFAULT_LIMITS)
        view, files = archive.model, archive.files
    validate(parse(view, DEFAULT_LIMITS), files)


def inspect(data):
    """All that an inspection does of it: validator, libraries, facts and their check."""
    facts = asdict(pipeline.inspect(data))
    ModelFacts.told(json.loads(json.dumps(facts)))


def in_process(task, batch, keep):
    """What `task` made of each mutant, by code."""
    told, slowest = Counter(), 0.0
    for data in batch:
        began = time.process_time()
        try:
            task(data)
            code = "accepted"
        except GradgaugeError as refusal:
            code = refusal.code
        except Exception:  # noqa: BLE001 - any is what is looked for
            code = "CRASH"
            keep(data, traceback.format_exc())
        took = time.process_time() - began
        slowest = max(slowest, took)
        if took > LIMIT_S and code != "CRASH":
            code = "SLOW"
            keep(data, f"{took:.1f} s")
        told[code] += 1
    return told, slowest


def through_service(service, batch, keep):
    """What a whole service made of each mutant, by answer and by problem; DEAD for each process of
    the service that did not outlive them."""
    before = processes(service)

    def one(data):
        began = time.monotonic()
        answer = service.client.post("/v1/models", content=data)
        if answer.status_code >= 400:
            code = f"answered {answer.status_code}"
            if answer.status_code >= 500:
                code = "CRASH"
                keep(data, answer.text)
            return code, time.monotonic() - began
        path, pause = f"/v1/models/{answer.json()['id']}", POLL_S[0]
        while (model := service.client.get(path).json())["state"] == "inspecting":
            if time.monotonic() - began > SERVICE_LIMIT_S:
                keep(data, "hung")
                return "SLOW", time.monotonic() - began
            time.sleep(pause)
            pause = min(1.5 * pause, POLL_S[1])
        code = "accepted" if model["state"] == "ready" else model["problem"]["code"]
        if code.endswith("_died") or code in {"internal_error", "garbled_facts"}:
            keep(data, json.dumps(model["problem"]))
            code = "CRASH"
        return code, time.monotonic() - began

    with ThreadPoolExecutor(AT_ONCE) as pool:
        ended = list(pool.map(one, batch))
    told = Counter(code for code, _ in ended)
    after = processes(service)
    told.update("DEAD" for name, pid in before.items() if after[name] != pid)
    return told, max(took for _, took in ended)


def processes(service):
    return {
        "api": service.part("api"),
        "worker": service.part("worker"),
        "zygote": service.zygote(),
        "database": service.postmaster(),
    }


def run(what, count, seed, journal, corpus):
    """Every round that the journal does not hold yet; the tally of all."""
    done = {}
    if journal.exists():
        done = {row["round"]: row for row in map(json.loads, journal.read_text().splitlines())}
    kept = journal.with_suffix(".kept")

    def keep(data, why):
        kept.mkdir(exist_ok=True)
        name = hashlib.sha256(data).hexdigest()[:16]
        (kept / f"{name}.onnx").write_bytes(data)
        (kept / f"{name}.txt").write_text(why)

    whole, models = seeds(corpus)
    size = min(ROUND[what], count)
    with opened(what) as answer, journal.open("a") as out:
        for index in range(-(-count // size)):
            if index in done:
                continue
            began = time.process_time()
            told, slowest = answer(drawn(whole, models, seed, index, size), keep)
            row = {
                "round": index,
                "told": dict(told),
                "slowest_s": round(slowest, 3),
                "cpu_s": round(time.process_time() - began, 2),
            }
            done[index] = row
            out.write(json.dumps(row) + "\n")
            out.flush()
    return list(done.values()), len(whole)


@contextmanager
def opened(what):
    """How rounds are answered: in this process, or by a service started for them."""
    if what != "service":
        task = check if what == "validator" else inspect
        yield lambda batch, keep: in_process(task, batch, keep)
        return
    with serving(max_deaths=1, inspection_slots=2) as service:
        yield lambda batch, keep: through_service(service, batch, keep)


def main(arguments):
    parser = argparse.ArgumentParser()
    parser.add_argument("what", choices=["validator", "inspection", "service"])
    parser.add_argument("--count", type=int, default=10_000)
    parser.add_argument("--seed", type=int, default=0)
    parser.add_argument("--journal", type=Path)
    parser.add_argument("--corpus", type=Path, default=CORPUS)
    given = parser.parse_args(arguments)
    journal = given.journal or Path("out") / f"fuzz-{given.what}-{given.seed}.jsonl"
    journal.parent.mkdir(parents=True, exist_ok=True)
    rounds, held = run(given.what, given.count, given.seed, journal, given.corpus)
    told = Counter()
    for row in rounds:
        told.update(row["told"])
    faults = {"CRASH", "SLOW", "DEAD"}
    total = sum(told.values()) - told["DEAD"]
    cpu = sum(row["cpu_s"] for row in rounds)
    print(
        f"{given.what}: {total} mutants of {held} seeds, {told['accepted']} accepted, "
        f"{len(told.keys() - faults - {'accepted'})} kinds of refusal, {told['CRASH']} crashes, "
        f"{told['DEAD']} dead processes, {told['SLOW']} past the limit; "
        f"slowest {max(row['slowest_s'] for row in rounds):.2f} s, {cpu:.0f} s of processor time"
    )
    return 1 if faults & told.keys() else 0


if __name__ == "__main__":
    sys.exit(main(sys.argv[1:]))

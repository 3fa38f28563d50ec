"""Disks that are full: the store's, the spool's and the database's, each a little tmpfs of its own.

Whoever asks is told so in order (507 or 503), nothing is left behind, and the next job works.
"""

import os
import subprocess
import time
from contextlib import ExitStack, contextmanager, suppress

import httpx2
import pytest

from tests.api.problem import problem
from tests.faults.nets import net
from tests.postgres import open_folder
from tests.service import HASTY, QUICK, Service, until

pytestmark = [pytest.mark.slow, pytest.mark.timeout(400)]
MIB = 1 << 20


@contextmanager
def disk(folder, mib):
    """A file system of its own at `folder`."""
    folder.mkdir(parents=True)
    mounted = subprocess.run(
        ["mount", "-t", "tmpfs", "-o", f"size={mib}m,mode=0711", "tmpfs", folder],
        check=False,
        capture_output=True,
    )
    if mounted.returncode:
        pytest.skip("no file system can be mounted here")
    try:
        yield folder
    finally:
        subprocess.run(["umount", "-l", folder], check=True)


@contextmanager
def full(folder, *, but=0):
    """Nothing more can be written there, except for `but` bytes."""
    filler = folder / "filler"
    with filler.open("wb", buffering=0) as file, suppress(OSError):
        while True:
            file.write(b"\0" * 4096)
    if but:
        os.truncate(filler, max(0, filler.stat().st_size - but))
    try:
        yield
    finally:
        filler.unlink()


@pytest.fixture(scope="module")
def disks():
    """A service whose store, spool and database are each on a disk of its own."""
    with ExitStack() as stack:
        folder = stack.enter_context(open_folder())
        (folder / "data").mkdir(mode=0o711)
        places = {
            "store": stack.enter_context(disk(folder / "store", 48)),
            "spool": stack.enter_context(disk(folder / "data" / "spool", 4)),
            "database": stack.enter_context(disk(folder / "pg", 256)),
        }
        service = Service(
            folder,
            **HASTY,
            storage_url=f"file://{places['store']}",
            pg_dir=places["database"] / "postgres",
        ).start()
        stack.callback(service.stop)
        yield service, places


def works(service, seed):
    """An upload and an analysis of it, as if nothing had been."""
    model = service.model(net(seed))
    assert model["state"] == "ready", model
    asked = {"model_id": model["id"], "options": {"profile": "quick", "remediate": False}}
    done = service.until(service.client.post("/v1/analyses", json=asked).json()["id"], limit_s=120)
    assert done["state"] == "succeeded", done
    path = f"/v1/analyses/{done['id']}/report"
    assert service.client.get(path).status_code == 200


def files(folder):
    return {path for path in folder.rglob("*") if path.is_file()}


def test_a_full_store_refuses_uploads_and_fails_reports_and_nothing_stays(disks):
    service, places = disks
    works(service, 1)
    before = files(places["store"])
    running = service.submit(seed=5)
    with full(places["store"]):
        problem(service.client.post("/v1/models", content=net(2)), 507, "storage_full")
        ended = service.until(running, limit_s=120)
        late = service.until(service.submit(seed=6), limit_s=120)
    assert late["state"] == "failed"
    assert late["error"]["code"] == "storage_full"
    assert ended["state"] in {"succeeded", "failed"}
    left = files(places["store"]) - before
    assert len(left) == (ended["state"] == "succeeded")
    assert files(places["spool"]) == set()
    works(service, 2)


def test_a_full_spool_refuses_uploads_and_keeps_no_piece(disks):
    service, places = disks
    for room in (0, MIB):
        with full(places["spool"], but=room):
            answer = service.client.post("/v1/models", content=os.urandom(2 * MIB))
            problem(answer, 507, "storage_full")
            assert files(places["spool"]) == {places["spool"] / "filler"}
    works(service, 3)


@pytest.mark.parametrize("room", [0, MIB // 2])
def test_a_full_database_refuses_and_loses_nothing_that_was_acknowledged(disks, room):
    """With a little room an analysis is acknowledged, and its worker then finds none."""
    service, places = disks
    acknowledged, answers, refused = [], set(), 0
    with full(places["database"], but=room):
        for seed in range(2000):
            if refused == 20:
                break
            try:
                body = {"architecture": _spec(room + seed), "options": QUICK}
                answer = service.client.post("/v1/analyses", json=body)
            except httpx2.TransportError:
                answers.add("cut off")
                continue
            answers.add(answer.status_code)
            refused += answer.status_code >= 500
            if answer.status_code == 202:
                acknowledged.append(answer.json()["id"])
        assert service.client.get("/healthz").status_code == 200
        time.sleep(10)  # in which workers meet the end of the room over and over
    assert refused == 20
    assert answers <= {202, 503, 507, "cut off"}
    until(lambda: service.client.get("/readyz").status_code == 200, 120)
    for each in acknowledged:
        assert service.until(each, limit_s=240)["state"] == "succeeded"
        assert service.ends(each) == ["succeeded"]
    works(service, 4 + room)


def _spec(seed):
    """A spec that is some kilobytes in the database."""
    layers = [{"type": "dense", "units": 2 + (seed + n) % 7} for n in range(60)]
    return {"gradgauge": 1, "name": f"large {seed}", "input": {"shape": [2]}, "layers": layers}

"""A whole service in processes of its own, started by the real command, for tests that watch,
fill and kill it."""

import json
import os
import re
import signal
import socket
import subprocess
import sys
import time
from contextlib import contextmanager, suppress
from pathlib import Path

import httpx2
import pytest

from gradgauge.store import postmaster
from tests.postgres import open_folder

ROOT = Path(__file__).parents[1]
TASKS = {"analyze", "inspect", "patch"}
FINAL = {"succeeded", "failed", "cancelled"}
PATIENCE_S = 180.0  # with a machine that has other things to do
SPEC = {
    "gradgauge": 1,
    "name": "little",
    "input": {"shape": [8]},
    "layers": [{"type": "dense", "units": 8}, {"type": "activation", "function": "tanh"}],
}
QUICK = {"profile": "quick", "remediate": False}
# Minutes of work, unless somebody stops it.
SLOW = {
    "architecture": {
        "gradgauge": 1,
        "name": "slow",
        "input": {"shape": [256]},
        "layers": [
            {
                "type": "repeat",
                "times": 200,
                "layers": [
                    {"type": "dense", "units": 256},
                    {"type": "activation", "function": "tanh"},
                ],
            }
        ],
    },
    "options": {"profile": "deep", "samples": 1_000_000},
    "fresh": True,
}
# Death is noticed within two seconds.
HASTY = {
    "heartbeat_s": 0.3,
    "stall_s": 1.5,
    "reap_s": 0.3,
    "poll_s": 0.3,
    "shutdown_s": 0.5,
    "progress_interval_s": 0.0,
}
# For a service that stays up while others are tested: what HASTY costs it with nothing to do is a
# tenth of a core.
PATIENT = HASTY | {"heartbeat_s": 1.0, "stall_s": 5.0, "reap_s": 2.0, "poll_s": 1.0}
READY = re.compile(r"gradgauge is ready at (http://\S+)")


class Service:
    """`gradgauge serve` over one data folder, as often as it is started."""

    def __init__(self, folder, *, extra=(), environment=None, **settings):
        self.folder = folder
        self.flags = extra
        self.log = folder / "service.log"
        self.settings = settings
        self.environment = {
            "PATH": os.getenv("PATH", ""),
            "PYTHONPATH": str(ROOT / "service"),
            "GRADGAUGE_DATA_DIR": str(folder / "data"),
            **{f"GRADGAUGE_{k.upper()}": str(v) for k, v in settings.items()},
            **(environment or {}),
        }
        self.process = None
        self.client = None
        self.url = ""
        self.near = None  # the port on this machine that it fetches models from

    def start(self):
        command = [sys.executable, "-m", "gradgauge.cli", "serve", "--port", "0", *self.flags]
        with self.log.open("ab") as log:
            self.process = subprocess.Popen(
                command, cwd=ROOT, env=self.environment, stdout=subprocess.PIPE, stderr=log
            )
        for line in self.process.stdout:
            if found := READY.search(line.decode()):
                self.url = found[1]
                self.client = httpx2.Client(base_url=self.url, timeout=60)
                return self
        raise AssertionError(f"not started: {self.log.read_text()[-3000:]}")

    def stop(self):
        """Ctrl-C; the exit code."""
        self.client.close()
        if self.process.poll() is None:
            self.process.send_signal(signal.SIGINT)
        code = self.process.wait(PATIENCE_S)
        self.process.stdout.close()
        return code

    def worker(self):
        """A second worker on the same data; its process."""
        command = [sys.executable, "-m", "gradgauge.cli", "worker"]
        with self.log.open("ab") as log:
            return subprocess.Popen(command, cwd=ROOT, env=self.environment, stderr=log)

    def part(self, name):
        """Process id of the running `api` or `worker`."""
        return until(lambda: next((p for p in children(self.process.pid) if runs(p, name)), None))

    def zygote(self):
        """Process id of the zygote, of whichever worker there is by then."""
        return until(
            lambda: next((p for p in children(self.part("worker")) if runs(p, "zygote")), None)
        )

    def analysing(self, zygote=None):
        """Process id of a confined child at work, but for the one that runs onnxruntime."""
        return until(
            lambda: next(
                (p for p in children(zygote or self.zygote()) if task(p) in TASKS and not gone(p)),
                None,
            )
        )

    def postmaster(self):
        return postmaster.find(self.folder / "data" / "postgres" / "data")

    def submit(self, body=None, **options):
        """The id of a new analysis, of a little network unless `body` says more."""
        body = body or {"architecture": SPEC, "options": QUICK | options, "fresh": True}
        answer = self.client.post("/v1/analyses", json=body)
        assert answer.status_code == 202, answer.text
        return answer.json()["id"]

    def analysis(self, analysis_id):
        answer = self.client.get(f"/v1/analyses/{analysis_id}")
        assert answer.status_code == 200, answer.text
        return answer.json()

    def until(self, analysis_id, states=FINAL, limit_s=PATIENCE_S):
        return until(
            lambda: (now := self.analysis(analysis_id))["state"] in states and now, limit_s, 1.2
        )

    def running(self, analysis_id, limit_s=PATIENCE_S):
        """Wait until the child itself has spoken of the analysis."""
        return until(lambda: (now := self.analysis(analysis_id))["stage"] and now, limit_s)

    def ends(self, analysis_id):
        """The final states its events tell: one, if all is well."""
        with self.client.stream("GET", f"/v1/analyses/{analysis_id}/events") as answer:
            told = [
                json.loads(line[6:]) for line in answer.iter_lines() if line.startswith("data: ")
            ]
        return [event["state"] for event in told if event["state"] in FINAL]

    def model(self, content, name="net.onnx"):
        """Upload a model and wait for the end of its inspection."""
        answer = self.client.post("/v1/models", params={"name": name}, content=content)
        assert answer.status_code in {200, 201}, answer.text
        path = f"/v1/models/{answer.json()['id']}"
        return until(
            lambda: (now := self.client.get(path).json())["state"] != "inspecting" and now,
            slower=1.2,
        )


@contextmanager
def serving(**settings):
    """A started service in a folder of its own; stopped, and the folder gone, at the end."""
    with open_folder() as folder:
        service = Service(folder, **settings).start()
        try:
            yield service
        finally:
            service.stop()


def children(pid):
    """Of all its threads: whichever of them started them."""
    found = []
    for task in Path(f"/proc/{pid}/task").glob("*/children"):
        with suppress(OSError):
            found += [int(word) for word in task.read_text().split()]
    return found


def runs(pid, word):
    try:
        return word in Path(f"/proc/{pid}/cmdline").read_text()
    except OSError:
        return False


def task(pid):
    """What a confined child does, by the name it gives itself; None where it is gone."""
    with suppress(OSError):
        return Path(f"/proc/{pid}/comm").read_text().strip()


def gone(pid):
    try:
        return Path(f"/proc/{pid}/stat").read_text().rpartition(")")[2].split()[0] in "ZX"
    except OSError:
        return True


def until(found, limit_s=PATIENCE_S, slower=1.0):
    """The first thing `found` gives that is not nothing, asked ever `slower`, at least each 0.3 s:
    a question to a service takes its time."""
    deadline, pause = time.monotonic() + limit_s, 0.03
    while True:
        try:
            if (result := found()) not in (None, False):
                return result
        except httpx2.TransportError:
            pass
        assert time.monotonic() < deadline, "waited too long"
        time.sleep(pause)
        pause = min(0.3, pause * slower)


def free_port():
    """A port that nobody listens at."""
    with socket.socket() as held:
        held.bind(("127.0.0.1", 0))
        return held.getsockname()[1]


@pytest.fixture(scope="session")
def service():
    """One service for all tests of a session that only talk to it."""
    limits = {"max_upload_bytes": 4 << 20, "max_json_bytes": 1 << 20}
    near = free_port()
    limits |= {"fetch_from": f"http://127.0.0.1:{near}", "fetch_private": True}
    with serving(**PATIENT, **limits, webhooks="any") as started:
        started.near = near
        yield started


@pytest.fixture
def api(service):
    return service.client

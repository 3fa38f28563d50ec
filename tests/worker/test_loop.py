"""The worker process: what it demands of its sandbox, and how it starts and ends."""

import os
import signal
import socket

import httpx2
import pytest

from gradgauge.errors import Unavailable
from gradgauge.settings import Settings
from gradgauge.worker.loop import _metrics, required
from gradgauge.worker.sandbox import REQUIRED
from tests.service import HASTY, serving, until

COMPLETE = dict.fromkeys(REQUIRED, "on")
LACKING = COMPLETE | {"landlock": "missing: old kernel"}
ELSEWHERE = {"database_url": "postgresql://elsewhere/db"}


@pytest.mark.parametrize("settings", [{}, ELSEWHERE, {"allow_unsandboxed": True}])
def test_a_complete_sandbox_is_demanded_of_every_child(settings):
    assert required(COMPLETE, Settings(**settings)) == REQUIRED


def test_a_missing_layer_is_lived_with_on_a_machine_of_ones_own():
    assert required(LACKING, Settings()) == ()


def test_a_missing_layer_is_refused_elsewhere_unless_allowed():
    with pytest.raises(Unavailable, match="landlock: missing: old kernel"):
        required(LACKING, Settings(**ELSEWHERE))
    assert required(LACKING, Settings(**ELSEWHERE, allow_unsandboxed=True)) == ()


def test_a_worker_announces_itself_and_takes_leave():
    with serving(**HASTY) as service:
        second = service.worker()
        try:
            until(lambda: service.client.get("/readyz").json()["workers"] == 2)
            second.send_signal(signal.SIGTERM)
            assert second.wait(120) == 0
            until(lambda: service.client.get("/readyz").json()["workers"] == 1)
        finally:
            second.kill()
            second.wait()
        os.kill(service.part("worker"), signal.SIGKILL)
        until(lambda: service.client.get("/readyz").json()["workers"] == 0)
        until(lambda: service.client.get("/readyz").json()["status"] == "ready")


def test_a_worker_tells_its_own_metrics_where_it_has_a_port():
    with socket.socket() as taken:
        taken.bind(("127.0.0.1", 0))
        taken.listen()
        port = taken.getsockname()[1]
        held = _metrics(Settings(worker_metrics_port=port))
        with pytest.raises(Unavailable, match="cannot tell metrics at"), held:
            pass
    with _metrics(Settings(worker_metrics_port=port)):
        told = httpx2.get(f"http://127.0.0.1:{port}/metrics").text
    assert "gradgauge_job_run_seconds" in told
    with _metrics(Settings()):
        pass

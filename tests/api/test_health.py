"""Liveness, readiness, and what the API process holds in memory."""

from pathlib import Path

import pytest

from gradgauge.worker.sandbox import REQUIRED
from tests.service import serving

FRAMEWORKS = ("torch", "numpy", "onnx", "onnx_ir", "onnxruntime", "scipy")


def test_a_running_service_is_live_and_ready_and_says_how_it_is_confined(api):
    assert api.get("/healthz").json() == {"status": "ok"}
    answer = api.get("/readyz")
    assert answer.status_code == 200
    told = answer.json()
    assert (told["status"], told["database"], told["store"], told["worker"]) == (
        "ready",
        "ok",
        "ok",
        "ok",
    )
    assert told["workers"] == 1
    layers = told["sandboxes"][0]["layers"]
    assert set(REQUIRED) <= set(layers)
    full = all(state.startswith("on") for state in layers.values())
    assert told["sandbox"] == ("full" if full else "partial")


@pytest.mark.skipif(not Path("/proc/self/maps").exists(), reason="reads /proc")
def test_neither_the_api_nor_the_workers_loop_has_a_framework_in_its_memory(api, service):
    # First everything the API does, so that nothing is left to be loaded later.
    done = service.until(service.submit(seed=61))
    for form in ("json", "markdown", "html"):
        assert api.get(f"/v1/analyses/{done['id']}/report", params={"format": form}).text
    assert api.get("/").status_code == 200
    for part in ("api", "worker"):
        maps = Path(f"/proc/{service.part(part)}/maps").read_text()
        assert "pydantic_core" in maps  # the oracle sees packages at all
        assert [name for name in FRAMEWORKS if f"site-packages/{name}" in maps] == []
    assert "site-packages/torch" in Path(f"/proc/{service.zygote()}/maps").read_text()


def test_without_a_worker_the_service_is_live_but_not_ready():
    with serving(stall_s=1, heartbeat_s=0.2, extra=["--api-only"]) as service:
        assert service.client.get("/healthz").status_code == 200
        answer = service.client.get("/readyz")
        assert answer.status_code == 503
        told = answer.json()
        assert (told["status"], told["sandbox"], told["workers"]) == ("not_ready", "unknown", 0)
        assert (told["database"], told["store"]) == ("ok", "ok")

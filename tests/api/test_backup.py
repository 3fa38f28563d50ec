"""A service that goes on from a backup of another: keys, files, what waited, and the audit log."""

import subprocess
import sys

import pytest
from sqlalchemy import text

from tests.api.keyed import bearer, key, on
from tests.postgres import open_folder
from tests.service import HASTY, QUICK, SPEC, Service


def command(service, name, *words):
    return subprocess.run(
        [sys.executable, "-m", "gradgauge.cli", name, *map(str, words)],
        env=service.environment,
        capture_output=True,
        text=True,
        check=False,
    )


async def forge(session):
    await session.execute(text("DELETE FROM audit_log"))


@pytest.mark.slow
def test_what_was_saved_of_a_running_service_is_restored_and_what_waited_is_done(keyed):
    mine = bearer(key(keyed, "saved")[1])
    asked = {"architecture": SPEC, "options": QUICK | {"seed": 5}, "fresh": True}
    model = keyed.client.post("/v1/models", content=b"no model", headers=mine).json()["id"]
    waits = keyed.client.post("/v1/analyses", json=asked, headers=mine).json()["id"]
    with open_folder() as folder:
        saved = command(keyed, "backup", folder / "saved")
        assert saved.returncode == 0, saved.stderr
        late = keyed.client.post("/v1/analyses", json=asked, headers=mine).json()["id"]
        assert command(keyed, "backup", folder / "saved").returncode == 2
        full = command(keyed, "restore", folder / "saved")
        assert (full.returncode, "holds something" in full.stderr) == (1, True)

        second = Service(folder, **HASTY, require_keys=True)
        restored = command(second, "restore", folder / "saved")
        assert restored.returncode == 0, restored.stderr
        second.start()
        try:
            second.client.headers.update(mine)
            assert second.until(waits, limit_s=240)["state"] == "succeeded"
            told = second.client.get(f"/v1/models/{model}").json()
            assert told["size_bytes"] == len(b"no model")
            assert second.client.get(f"/v1/analyses/{late}").status_code == 404
            with pytest.raises(Exception, match="only grows"):
                on(second, forge)
        finally:
            second.stop()

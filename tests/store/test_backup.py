"""A backup, and a service that lives on from it."""

import json

import pytest

from gradgauge.errors import InvalidInput, Unavailable
from gradgauge.store import backup
from tests.api.keyed import bearer, key, on
from tests.postgres import open_folder
from tests.service import HASTY, Service, serving


def command(service, name, *words):
    import subprocess
    import sys

    return subprocess.run(
        [sys.executable, "-m", "gradgauge.cli", name, *map(str, words)],
        env=service.environment,
        capture_output=True,
        text=True,
        check=False,
    )


def test_a_service_lives_on_from_its_backup_with_its_keys_models_and_reports():
    with serving(**HASTY, require_keys=True) as first, open_folder() as folder:
        mine = bearer(key(first, "mine")[1])
        first.client.headers.update(mine)
        model = first.model(b"not a model")
        done = first.until(first.submit(seed=5))
        assert done["state"] == "succeeded"
        report = first.client.get(f"/v1/analyses/{done['id']}/report").content
        saved = command(first, "backup", folder / "saved")
        assert saved.returncode == 0, saved.stderr
        assert "2 files saved" in saved.stderr
        waits = first.submit(seed=6)
        assert command(first, "backup", folder / "saved").returncode == 2
        full = command(first, "restore", folder / "saved")
        assert full.returncode == 1
        assert "holds something" in full.stderr

        second = Service(folder, **HASTY, require_keys=True)
        restored = command(second, "restore", folder / "saved")
        assert restored.returncode == 0, restored.stderr
        second.start()
        try:
            second.client.headers.update(mine)
            kept = second.client.get(f"/v1/analyses/{done['id']}/report")
            assert kept.content == report
            assert second.client.get(f"/v1/models/{model['id']}").json() == model
            assert second.client.get(f"/v1/analyses/{waits}").status_code == 404
            assert second.until(second.submit(seed=7))["state"] == "succeeded"
            with pytest.raises(Exception, match="only grows"):
                on(second, _forge)
        finally:
            second.stop()


async def _forge(session):
    from sqlalchemy import text

    await session.execute(text("DELETE FROM audit_log"))


def test_what_is_no_backup_or_goes_nowhere_is_refused(database_url, tmp_path):
    with pytest.raises(InvalidInput, match="no whole backup"):
        backup.load(tmp_path)
    (tmp_path / backup.MANIFEST).write_text('{"version": "1"}')
    with pytest.raises(InvalidInput, match="no whole backup"):
        backup.load(tmp_path)
    told = {"version": "1", "created_at": "now", "files": 3}
    (tmp_path / backup.MANIFEST).write_text(json.dumps(told))
    with pytest.raises(InvalidInput, match="no folder"):
        backup.restore(tmp_path, database_url, None)
    with pytest.raises(Unavailable, match="holds a gradgauge already"):
        backup.restore(tmp_path, database_url, tmp_path / "blobs")


def test_a_database_that_cannot_be_dumped_is_told_without_its_password(tmp_path):
    with pytest.raises(Unavailable, match="pg_dump ended with") as failed:
        backup.save("postgresql://u:hunter2@127.0.0.1:1/nothing", None, tmp_path / "saved")
    assert "hunter2" not in str(failed.value)
    assert not (tmp_path / "saved" / backup.MANIFEST).exists()

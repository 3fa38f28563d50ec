"""Backups that are none, and databases that cannot be saved; tests/api saves and restores one."""

import json

import pytest

from gradgauge.errors import InvalidInput, Unavailable
from gradgauge.store import backup


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

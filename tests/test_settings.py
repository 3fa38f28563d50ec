"""Settings come from the environment, are checked, and tell no secrets."""

import pytest
from pydantic import ValidationError

from gradgauge.settings import Settings


def test_settings_are_read_from_their_variables(monkeypatch):
    monkeypatch.setenv("GRADGAUGE_PORT", "9000")
    monkeypatch.setenv("GRADGAUGE_DATA_DIR", "/somewhere")
    settings = Settings()
    assert settings.port == 9000
    assert str(settings.postgres_dir) == "/somewhere/postgres"
    assert str(settings.blob_dir) == "/somewhere/blobs"


def test_the_database_may_live_apart_from_the_data(monkeypatch):
    monkeypatch.setenv("GRADGAUGE_PG_DIR", "/var/lib/gradgauge")
    assert str(Settings().postgres_dir) == "/var/lib/gradgauge"


def test_a_database_password_is_not_shown():
    settings = Settings(database_url="postgresql://u:hunter2@h/d")
    assert "hunter2" not in repr(settings)
    assert "hunter2" not in settings.model_dump_json()


@pytest.mark.parametrize("name", ["GRADGAUGE_STORAGE_ENDPOINT", "AWS_ENDPOINT_URL"])
def test_an_s3_endpoint_is_known_by_either_name(monkeypatch, name):
    monkeypatch.setenv(name, "http://store:9000")
    assert Settings().storage_endpoint == "http://store:9000"


def test_a_stall_time_that_one_late_heartbeat_would_reach_is_refused(monkeypatch):
    monkeypatch.setenv("GRADGAUGE_STALL_S", "6")
    with pytest.raises(ValidationError, match="at least twice GRADGAUGE_HEARTBEAT_S"):
        Settings()


def test_settings_do_not_change_once_they_are_read():
    with pytest.raises(ValidationError, match="frozen"):
        Settings().port = 1


def test_every_setting_says_what_it_is_for():
    silent = [name for name, field in Settings.model_fields.items() if not field.description]
    assert silent == []

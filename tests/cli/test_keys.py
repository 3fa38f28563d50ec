"""`gradgauge keys` on a database of its own."""

import json

import pytest

from gradgauge import cli
from gradgauge.store import keys


@pytest.fixture
def command(database_url, monkeypatch, capsys):
    monkeypatch.setenv("GRADGAUGE_DATABASE_URL", database_url)
    # a command in this process would leave every later test's log on its own, closed, stderr
    monkeypatch.setattr(cli.telemetry, "set_up", lambda **_: None)

    def run(*words, code=0):
        assert cli.keys(words) == code
        return capsys.readouterr()

    return run


def listed(command, *project):
    return [json.loads(line) for line in command(*project, "list").out.splitlines()]


def test_a_key_is_made_told_once_rotated_and_revoked(command):
    vision = ("--project", "vision")
    text = command(*vision, "create", "ci", "--scope", "read", "--days", "30").out.strip()
    key_id = keys.id_of(text)
    (row,) = listed(command, *vision)
    assert (row["id"], row["principal"], row["scope"]) == (key_id, "ci", "read")
    assert row["expires_at"] > row["created_at"]
    assert row["last_used_at"] is None
    assert text not in command(*vision, "list").out

    new = keys.id_of(command(*vision, "rotate", key_id, "--overlap-hours", "1").out.strip())
    assert new != key_id
    assert "two" not in command(*vision, "revoke", key_id).err
    rows = {row["id"]: row for row in listed(command, *vision)}
    assert rows[key_id]["revoked_at"] is not None
    assert rows[new]["revoked_at"] is None
    assert listed(command) == []


def test_a_third_live_key_and_an_unknown_project_are_refused(command):
    command("create", "ci")
    command("create", "ci")
    assert "revoke one of them first" in command("create", "ci", code=1).err
    assert "no project nowhere" in command("--project", "nowhere", "list", code=1).err
    assert "no key unknown" in command("revoke", "unknown", code=1).err


def test_days_are_of_this_world(command):
    with pytest.raises(SystemExit):
        command("create", "ci", "--days", "0")


def test_a_projects_quotas_are_told_set_and_taken_back(command):
    command("--project", "vision", "create", "ci")

    def quota(*words):
        return json.loads(command("--project", "vision", "quota", *words).out)

    assert quota()["models"] == {"held": 0, "allowed": None}
    told = quota("--models", "5", "--running", "2")
    assert (told["models"]["allowed"], told["running"]["allowed"]) == (5, 2)
    assert quota("--models", "usual")["models"]["allowed"] is None
    assert quota()["running"]["allowed"] == 2
    with pytest.raises(SystemExit):
        quota("--models", "-1")

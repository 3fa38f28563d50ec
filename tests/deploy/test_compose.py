"""The compose file and the Dockerfile name nothing that the code does not have."""

import re
from pathlib import Path

import pytest
import yaml

from gradgauge.cli import COMMANDS
from gradgauge.settings import Settings

ROOT = Path(__file__).parents[2]
DOCKERFILE = (ROOT / "Dockerfile").read_text()
COMPOSE = yaml.safe_load((ROOT / "deploy" / "compose.yaml").read_text())
SERVICES = COMPOSE["services"]
OURS = {name: told for name, told in SERVICES.items() if "build" in told}


def test_every_setting_is_one_of_the_services():
    known = {f"GRADGAUGE_{name.upper()}" for name in Settings.model_fields}
    given = {key for told in OURS.values() for key in told["environment"]}
    given |= set(re.findall(r"^(?:ENV|   ) *(GRADGAUGE_\w+)=", DOCKERFILE, re.MULTILINE))
    assert {key for key in given if not key.startswith("AWS_")} <= known
    assert "GRADGAUGE_DATABASE_URL" in given
    assert "GRADGAUGE_DATA_DIR" in given


def test_the_settings_of_the_compose_file_are_valid(monkeypatch):
    for key, value in OURS["worker"]["environment"].items():
        monkeypatch.setenv(key, re.sub(r"\$\{[^}]*\}", "x", value))
    settings = Settings()
    assert settings.storage_endpoint == "http://storage:7070"
    assert settings.database_url.get_secret_value().endswith("@database:5432/gradgauge")


@pytest.mark.parametrize("name", sorted(OURS))
def test_every_target_is_in_the_dockerfile(name):
    assert re.search(rf"^FROM \w+ AS {OURS[name]['build']['target']}$", DOCKERFILE, re.MULTILINE)


def test_every_command_is_one_of_the_services():
    ran = re.findall(r'^CMD \["gradgauge", "(\w+)"', DOCKERFILE, re.MULTILINE)
    assert sorted(ran) == ["serve", "worker"]
    assert set(ran) <= set(COMMANDS)


def test_what_the_images_copy_is_in_the_build_context():
    ignored = (ROOT / ".dockerignore").read_text().splitlines()
    for line in re.findall(r"^COPY (?!--from)(.+)$", DOCKERFILE, re.MULTILINE):
        for source in line.split()[:-1]:
            assert (ROOT / source).exists()
            assert f"!{source}" in ignored


@pytest.mark.parametrize("name", sorted(SERVICES))
def test_no_port_leaves_this_machine(name):
    assert all(port.startswith("127.0.0.1:") for port in SERVICES[name].get("ports", []))


@pytest.mark.parametrize("name", [*sorted(OURS), "door"])
def test_our_containers_hold_no_privileges(name):
    told = SERVICES[name]
    assert told["cap_drop"] == ["ALL"]
    assert told["read_only"] is True
    assert told["security_opt"] == ["no-new-privileges:true"]
    assert "privileged" not in told


def test_no_secret_is_written_down():
    text = (ROOT / "deploy" / "compose.yaml").read_text()
    assert not re.search(r"(PASSWORD|SECRET\w*): (?!\$\{\w+:\?)", text)

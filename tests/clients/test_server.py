"""The server's commands are the service's own, reached by entry points."""

import os
import subprocess
import sys
from importlib.metadata import EntryPoint

import pytest
from typer.testing import CliRunner

from gradgauge import cli as commands
from gradgauge_client import _server, cli


def run(*words):
    return CliRunner().invoke(cli.app, words)


@pytest.fixture
def installed(monkeypatch):
    """The entry points as pyproject.toml has to declare them."""

    def points(*, group, name):
        return [EntryPoint(name, f"gradgauge.cli:{name}", group)]

    monkeypatch.setattr(_server, "entry_points", points)


def test_the_client_knows_every_command_of_the_service():
    assert {*_server.HELP, "patch", "explain"} == set(commands.COMMANDS)


@pytest.mark.parametrize("name", sorted(_server.HELP))
def test_a_command_without_the_service_says_what_to_install(monkeypatch, name):
    monkeypatch.setattr(_server, "entry_points", lambda **_: [])
    result = run(name, "--port", "1")
    assert result.exit_code == 2
    assert 'pip install "gradgauge[worker]"' in result.stderr


def test_the_words_arrive_as_they_were_said(monkeypatch):
    seen = []
    monkeypatch.setattr(_server, "_load", lambda name: lambda words: seen.append((name, words)))
    run("serve", "--port", "0", "--api-only", "x y", "--help")
    assert seen == [("serve", ["--port", "0", "--api-only", "x y", "--help"])]


@pytest.mark.parametrize("code", [0, 1, 2])
def test_the_exit_code_is_the_commands(monkeypatch, code):
    monkeypatch.setattr(_server, "_load", lambda _: lambda _words: code)
    assert run("worker").exit_code == code


@pytest.mark.parametrize("name", sorted(_server.HELP))
def test_the_help_of_a_command_is_the_services(installed, name, capsys):
    result = run(name, "--help")
    assert result.exit_code == 0
    assert f"usage: gradgauge {name}" in result.stdout


def test_wrong_words_exit_2(installed):
    assert run("serve", "--bogus").exit_code == 2


def test_the_help_lists_the_servers_commands_without_loading_the_service():
    code = "from gradgauge_client import cli; cli.main()"
    told = subprocess.run(
        [sys.executable, "-X", "importtime", "-c", code, "--help"],
        env={"PYTHONPATH": os.pathsep.join(sys.path)},
        capture_output=True,
        text=True,
        check=True,
    )
    assert all(name in told.stdout for name in _server.HELP)
    assert "gradgauge.settings" not in told.stderr

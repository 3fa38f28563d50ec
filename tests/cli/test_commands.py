"""The server-side commands: what they refuse, say and leave behind."""

import os
import signal
import socket
import subprocess
import sys

import psycopg
import pytest

from gradgauge import cli
from tests.postgres import open_folder
from tests.service import HASTY, PATIENCE_S, ROOT, Service, gone, serving, until

EXAMPLES = sorted(p.name for p in (ROOT / "examples").glob("*") if p.suffix in {".yaml", ".onnx"})


@pytest.fixture
def folder():
    with open_folder() as made:
        yield made


def command(*words, **settings):
    variables = {f"GRADGAUGE_{name.upper()}": str(value) for name, value in settings.items()}
    return subprocess.run(
        [sys.executable, "-m", "gradgauge.cli", *words],
        cwd=ROOT,
        env={"PYTHONPATH": str(ROOT / "service"), "PATH": os.getenv("PATH", ""), **variables},
        capture_output=True,
        text=True,
        timeout=PATIENCE_S,
        check=False,
    )


def test_every_command_is_there_and_explains_itself(capsys):
    named = {"serve", "worker", "migrate", "doctor", "export", "patch", "keys"}
    named |= {"explain", "backup", "restore"}
    assert set(cli.COMMANDS) == named
    for name in cli.COMMANDS:
        with pytest.raises(SystemExit) as ended:
            cli.main([name, "--help"])
        assert ended.value.code == 0
        assert f"gradgauge {name}" in capsys.readouterr().out
    assert cli.main(["nothing"]) == 2
    assert command().returncode == 2


def test_the_supervisor_loads_neither_the_api_nor_the_engine():
    script = "import sys; from gradgauge.cli import supervisor; print(*sys.modules)"
    done = subprocess.run([sys.executable, "-c", script], capture_output=True, check=True)
    assert not {"fastapi", "uvicorn", "torch", "numpy"} & set(done.stdout.decode().split())


def test_an_address_open_to_others_is_refused(folder):
    done = command("serve", "--host", "0.0.0.0", "--data", str(folder / "data"))
    assert done.returncode == 2
    assert "no API keys are asked for" in done.stderr
    assert not (folder / "data").exists()


def test_a_taken_port_is_refused_before_anything_is_started(folder):
    with socket.create_server(("127.0.0.1", 0)) as taken:
        port = str(taken.getsockname()[1])
        done = command("serve", "--port", port, "--data", str(folder / "data"))
    assert done.returncode == 2
    assert f"127.0.0.1:{port}" in done.stderr
    assert not (folder / "data").exists()


def test_a_wrong_setting_is_named():
    done = command("serve", stall_s="soon")
    assert done.returncode == 2
    assert "GRADGAUGE_STALL_S" in done.stderr
    assert "Traceback" not in done.stderr


@pytest.mark.parametrize("words", [["serve", "--port", "0"], ["migrate"]])
def test_a_database_that_is_not_there_is_said(folder, words):
    url = "postgresql://127.0.0.1:1/none"
    done = command(*words, "--data", str(folder), database_url=url)
    assert done.returncode == 1, done.stderr
    assert "the database cannot be reached" in done.stderr
    assert "Traceback" not in done.stderr


def test_migrate_brings_a_fresh_database_up_to_date_and_again_does_nothing(server):
    control = server.url.replace("/gradgauge?", "/postgres?")
    url = server.url.replace("/gradgauge?", "/test_migrate?")
    with psycopg.connect(control, autocommit=True) as connection:
        connection.execute("CREATE DATABASE test_migrate")
    for _ in range(2):
        done = command("migrate", database_url=url)
        assert done.returncode == 0, done.stderr
    with psycopg.connect(url) as connection:
        tables = connection.execute("SELECT tablename FROM pg_tables WHERE schemaname = 'public'")
        names = {name for (name,) in tables}
    assert {"models", "analyses", "worker_processes", "procrastinate_jobs"} <= names


def test_doctor_names_every_part(folder):
    done = command("doctor", "--data", str(folder / "data"))
    for part in ("python", "database", "store", "engine", "sandbox landlock", "sandbox seccomp"):
        assert f" {part}: " in done.stdout, done.stdout
    assert done.returncode == (1 if "missing " in done.stdout else 0)


def test_a_service_that_cannot_make_a_worker_says_so_and_ends(folder):
    service = Service(folder, **HASTY)
    # Something else under the engine's name: what a half-installed machine looks like.
    broken = folder / "broken"
    (broken / "torch").mkdir(parents=True)
    (broken / "torch" / "__init__.py").write_text("raise ImportError('no torch here')")
    environment = service.environment | {"GRADGAUGE_DATA_DIR": str(folder / "data")}
    done = subprocess.run(
        [sys.executable, "-c", _WITHOUT_ENGINE, str(broken)],
        cwd=ROOT,
        env=environment,
        capture_output=True,
        text=True,
        timeout=PATIENCE_S,
        check=False,
    )
    assert done.returncode == 1, done.stderr
    assert "child_not_started" in done.stderr


# The zygote's environment is made anew, so the broken package has to come in by its path.
_WITHOUT_ENGINE = """
import asyncio, sys
from gradgauge.settings import Settings
from gradgauge.store.embedded import EmbeddedPostgres
from gradgauge.store.schema import migrate
from gradgauge.worker import forks, loop, spawn
path = spawn.environment()["PYTHONPATH"]
forks.environment = lambda: {**spawn.environment(), "PYTHONPATH": sys.argv[1] + ":" + path}
settings = Settings()
with EmbeddedPostgres(settings.postgres_dir) as embedded:
    migrate(embedded.url)
    sys.exit(loop.run(settings))
"""


@pytest.mark.parametrize("count", [2, pytest.param(len(EXAMPLES), marks=pytest.mark.slow)])
def test_the_demonstration_prints_a_verdict_for_each_example(folder, count):
    service = Service(folder, **HASTY, demo=True).start()
    told = {}
    try:
        for line in service.process.stdout:
            name, _, rest = line.decode().strip().partition(": ")
            if name in EXAMPLES:
                told[name] = rest.partition(",")[0]
            if len(told) == count:
                break
    finally:
        service.stop()
    assert list(told) == EXAMPLES[:count]
    assert told["deep-sigmoid.yaml"] == "fail"
    assert told.get("pre-ln-transformer.onnx", "pass") == "pass"


def test_the_curl_line_that_is_printed_works(folder):
    service = Service(folder, **HASTY, extra=("--api-only",)).start()
    try:
        lines = []
        for line in service.process.stdout:
            lines.append(line.decode())
            if "Ctrl-C" in lines[-1]:
                break
        start = next(i for i, line in enumerate(lines) if "curl" in line)
        done = subprocess.run(
            "".join(lines[start : start + 2]),
            shell=True,
            capture_output=True,
            text=True,
            check=True,
        )
        assert '"state":"queued"' in done.stdout
    finally:
        assert service.stop() == 0


def test_parts_end_with_their_supervisor_even_where_it_is_killed():
    with serving(**HASTY) as service:
        parts = [service.part("api"), service.part("worker"), service.zygote()]
        os.kill(service.process.pid, signal.SIGKILL)
        until(lambda: all(gone(pid) for pid in parts), 15)
        service.process.wait()

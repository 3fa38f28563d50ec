"""The worker's side of a child: whatever the child does, one outcome comes back, in time."""

import functools
import mmap
import os
import sys
import time
from pathlib import Path

import pytest

from gradgauge.worker import confined, endings, forks, frames, spawn
from gradgauge.worker.frames import Request
from tests.worker.processes import alive

MISBEHAVING = (sys.executable, "-P", str(Path(__file__).with_name("misbehaving.py")))
MIB = 1 << 20


@pytest.fixture(scope="module")
def zygote():
    zygote = forks.Zygote((*MISBEHAVING, "zygote"))
    yield zygote
    zygote.close()


@pytest.fixture(scope="module")
def source(tmp_path_factory):
    path = tmp_path_factory.mktemp("job") / "model.onnx"
    path.write_text("a model")
    return path


def starter(start, source):
    def run(task, *, wall_s=180.0, on_progress=None, cancelled=None, options=None, **request):
        request = Request(
            task=task,
            source=str(source),
            options=options or {},
            read_only=(str(source.parent),),
            require=(),
            **request,
        )
        return start(request, wall_s=wall_s, on_progress=on_progress, cancelled=cancelled)

    return run


@pytest.fixture
def run(zygote, source):
    """A job in a child forked by a zygote."""
    return starter(zygote.run, source)


@pytest.fixture(params=["forked", "spawned"])
def either(request, zygote, source):
    """A job in a child forked by a zygote, and in one started from nothing."""
    spawned = functools.partial(spawn.run, command=MISBEHAVING)
    return starter(zygote.run if request.param == "forked" else spawned, source)


@pytest.mark.parametrize(
    ("task", "code", "exit_code"),
    [
        ("invalid", "bad_dims", 2),
        ("over_limit", "too_many_nodes", 5),
        ("failed", "diverged", 5),
        ("unsupported", "unsupported_ops", 3),
        ("unforeseen", "internal_error", 5),
        ("not_a_number", "internal_error", 5),
        ("bad_options", "invalid_options", 2),
        ("no_such_task", "internal_error", 5),
    ],
)
def test_an_error_of_the_job_comes_back_as_a_problem(run, task, code, exit_code):
    problem = run(task).problem
    assert (problem.code, problem.exit) == (code, exit_code)


def test_an_unforeseen_error_tells_the_log_more_than_the_caller(run):
    outcome = run("unforeseen")
    assert "/srv/secret/path" in outcome.log
    assert "/srv/secret/path" not in outcome.problem.model_dump_json()


def test_what_a_library_prints_cannot_reach_the_result(either):
    outcome = either("print_noise")
    assert outcome.result == {"ok": True}
    assert outcome.log == "noise on stdout\nmore noise\na word for the log\n"


@pytest.mark.parametrize("name", ["SIGFPE", "SIGSEGV", "SIGKILL", "SIGABRT", "SIGTERM"])
def test_a_child_that_dies_of_a_signal_is_said_to(run, name):
    outcome = run("die", options={"signal": name})
    assert outcome.problem.code == "child_crashed"
    assert outcome.problem.message == f"the analysis child died of {name}"
    assert outcome.problem.exit == 5


def test_a_crash_in_native_code_leaves_its_stack_in_the_log(either):
    outcome = either("crash")
    assert outcome.problem.message == "the analysis child died of SIGSEGV"
    assert "string_at" in outcome.log


def test_a_child_that_leaves_without_a_word_is_a_crash(either):
    assert "ended with code 7" in either("quit_silently").problem.message


def test_a_loop_without_end_is_stopped_by_the_wall_clock(either):
    started = time.monotonic()
    problem = either("spin", wall_s=1.0).problem
    assert problem.code == "time_limit"
    assert problem.limit == "time_limit_s=1"
    assert 1.0 <= time.monotonic() - started < 20.0


def test_a_child_that_hangs_up_and_stays_is_stopped(either):
    started = time.monotonic()
    assert either("hang_up", wall_s=30.0).problem.code == "child_crashed"
    assert time.monotonic() - started < 25.0


def test_a_gigabyte_of_result_is_cut_off_at_the_limit(either):
    started = time.monotonic()
    problem = either("flood", result_bytes=MIB).problem
    assert problem.code == "result_too_large"
    assert problem.limit == f"result_bytes={MIB}"
    assert time.monotonic() - started < 25.0


def test_a_gigabyte_of_log_keeps_its_end_only(run):
    outcome = run("chatter")
    assert outcome.result == {"ok": True}
    assert len(outcome.log) <= 64 << 10
    assert outcome.log.endswith("the end")


def test_an_honest_result_over_the_limit_says_its_size(run):
    problem = run("large", options={"bytes": 5000}, result_bytes=1000).problem
    assert problem.code == "result_too_large"
    assert "5" in problem.message


@pytest.mark.parametrize(
    "line",
    [
        b"no json\n",
        b"\n",
        b"[]\n",
        b"{}\n",
        b'{"result": {"a": NaN}}\n',
        b'{"result": {"a": 1e999}}\n',
        b'{"result": {"a": "\\ud800"}}\n',
        b'{"result": []}\n',
        b'{"result": {}, "problem": {"code": "x", "message": "y"}}\n',
        b'{"result": {}, "more": 1}\n',
        b'{"problem": {"code": "x", "message": "y", "exit": 0}}\n',
        b'{"progress": {"stage": "x", "fraction": 7}}\n',
        b'{"result": ' + b'{"a":' * 5000 + b"1" + b"}" * 5000 + b"}\n",
        b'{"result": {"a": ' + b"9" * 5000 + b"}}\n",
        b"\x80\x04\x95 a pickle, or its beginning.\n",
    ],
)
def test_what_is_not_a_result_is_not_believed(run, line):
    problem = run("raw", options={"hex": line.hex()}).problem
    assert (problem.code, problem.exit) == ("malformed_result", 5)


def test_half_a_result_is_no_result(run):
    problem = run("raw", options={"hex": b'{"result": {}}'.hex()}).problem
    assert problem.code == "child_crashed"


def test_what_comes_after_the_result_is_not_read(run):
    lines = b'{"result": {"n": 1}}\n{"result": {"n": 2}}\nrubbish\n'
    assert run("raw", options={"hex": lines.hex()}).result == {"n": 1}


def test_what_a_child_inherited_counts_neither_before_it_has_started_nor_after(source):
    laden = forks.Zygote((*MISBEHAVING, "zygote", "laden"))
    try:
        outcome = starter(laden.run, source)("analyze", memory_bytes=16 * MIB)
    finally:
        laden.close()
    assert outcome.problem is None
    assert outcome.peak_bytes < 16 * MIB


def test_a_child_cannot_say_again_what_it_started_with(run):
    line = frames.encode("started", {"sandbox": {"seccomp": "on"}, "held_bytes": 1 << 40})
    outcome = run("raw", options={"hex": line.hex()})
    assert outcome.problem.code == "malformed_result"
    assert outcome.problem.message.endswith("it started twice")
    assert len(outcome.sandbox) > 1


def test_progress_without_end_is_stopped(run):
    seen = []
    problem = run("nag", on_progress=lambda *step: seen.append(step)).problem
    assert problem.code == "malformed_result"
    assert 1000 < len(seen) < 200_000


def test_a_cancelled_child_is_gone_long_before_its_time_is_over(either):
    pids = []
    outcome = either(
        "spin",
        wall_s=300.0,
        on_progress=lambda stage, _: pids.append(int(stage)),
        cancelled=lambda: bool(pids),
    )
    assert outcome.problem.code == "cancelled"
    assert not alive(pids[0])


def test_an_interrupt_leaves_no_child_behind(either):
    pids = []

    def interrupt(stage, _fraction):
        pids.append(int(stage))
        raise KeyboardInterrupt

    with pytest.raises(KeyboardInterrupt):
        either("spin", on_progress=interrupt)
    assert not alive(pids[0])


def test_no_descriptor_is_left_open(either):
    before = len(os.listdir("/proc/self/fd"))  # noqa: PTH208
    either("analyze")
    either("spin", wall_s=0.5)
    assert len(os.listdir("/proc/self/fd")) == before  # noqa: PTH208


def test_a_large_request_arrives_whole(either):
    options = {"inputs": "x" * (1 << 20)}
    assert either("analyze", options=options).result["options"] == options


def test_memory_held_for_a_moment_is_told(either):
    assert 64 * MIB <= either("burst").peak_bytes < 160 * MIB


def test_a_mapped_file_is_no_memory_of_its_own(zygote, tmp_path):
    file = tmp_path / "weights"
    file.write_bytes(b"\1" * (64 * MIB))
    outcome = starter(zygote.run, file)("map_file")
    assert outcome.result == {"sum": 64 * MIB // mmap.PAGESIZE}
    assert outcome.peak_bytes < 16 * MIB


def test_torchs_word_for_no_memory_is_understood():
    from gradgauge.worker import answer

    said = RuntimeError(
        "[enforce fail at alloc_cpu.cpp:124] err == 0. DefaultCPUAllocator: can't allocate "
        "memory: you tried to allocate 4000000000 bytes. Error code 12 (Cannot allocate memory)"
    )
    assert answer.explain(said).code == "memory_limit"


def test_a_child_lost_with_its_zygote_is_no_crash_of_its_own():
    assert endings.death(None).code == "child_lost"


def test_a_signal_without_a_name_is_numbered():
    assert endings.death(-40).message == "the analysis child died of signal 40"


def test_a_text_too_long_for_the_wire_is_cut():
    from gradgauge.errors import InvalidModel

    told = frames.problem(InvalidModel("x", "m" * 10_000, where="w" * 10_000))
    assert len(told.message) == len(told.where) == frames.TEXT_LIMIT


def test_emoji_and_backslashes_in_names_are_not_lone_surrogates():
    names = {"name": "\\ud800 \U0001f600 \\\\udfff"}
    assert frames.decode(frames.encode("result", names).rstrip()).result == names


def test_the_pipes_close_once():
    pipes = confined.PipePair()
    pipes.drop_childs()
    pipes.drop_childs()
    pipes.close()
    with pytest.raises(OSError, match="Bad file descriptor"):
        os.fstat(pipes.ours.result)

"""A confined child whose jobs misbehave in every way the tests of the worker's side need."""

import mmap
import os
import resource
import signal
import stat
import sys
import time
from pathlib import Path

from pydantic import TypeAdapter

from gradgauge.errors import AnalysisFailed, InvalidModel, LimitExceeded, UnsupportedOps
from gradgauge.worker import answer, forkserver, sandbox


def echo(request, report):
    report("read", 0.25)
    text = Path(request.source).read_text()
    report("done", 1.0)
    return {"text": text, "options": request.options}


def raw(request, report):
    """Write bytes past the sender, as a child that was taken over would."""
    line = bytes.fromhex(request.options["hex"])
    os.write(_result_pipe(), line)
    os._exit(0)


def flood(request, report):
    """A gigabyte of one line."""
    block = b"x" * (1 << 20)
    for _ in range(1024):
        os.write(_result_pipe(), block)
    return {}


def _result_pipe():
    """The first pipe past the standard three: where child.main moved the result to."""
    return next(fd for fd in range(3, 64) if _is_pipe(fd))


def _is_pipe(fd):
    try:
        return stat.S_ISFIFO(os.fstat(fd).st_mode)
    except OSError:
        return False


def invalid(request, report):
    raise InvalidModel("bad_dims", "a dimension is negative", where="tensor w", hint="fix it")


def over_limit(request, report):
    raise LimitExceeded("too_many_nodes", "200001 nodes", limit="nodes=200000")


def failed(request, report):
    raise AnalysisFailed("diverged", "no finite sample", where="node 3", op="Div")


def unforeseen(request, report):
    raise KeyError("/srv/secret/path")


def spin(request, report):
    report(str(os.getpid()), 0.1)
    while True:
        pass


def nag(request, report):
    line = b'{"progress":{"stage":"nag","fraction":0.5}}\n'
    while True:
        os.write(_result_pipe(), line * 100)


def chatter(request, report):
    for _ in range(200):
        os.write(2, b"chatter\n" * (1 << 17))
    os.write(2, b"the end")
    return {"ok": True}


MEMORY = []


def remember(request, report):
    before = MEMORY[-1] if MEMORY else None
    MEMORY.append(request.options["word"])
    return {"before": before}


def descriptors(request, report):
    return {"open": [fd for fd in range(128) if _is_open(fd)]}


def _is_open(fd):
    try:
        os.fstat(fd)
    except OSError:
        return False
    return True


def hang_up(request, report):
    os.close(_result_pipe())
    time.sleep(60)
    return {}


def large(request, report):
    return {"text": "x" * request.options["bytes"]}


def unsupported(request, report):
    raise UnsupportedOps([("Foo", "", 17, "node 1")])


def bad_options(request, report):
    TypeAdapter(int).validate_python("x")


def hold(request, report):
    held = []
    while True:
        held.append(bytearray(os.urandom(1 << 20) * 16))
        report("hold", 0.5)


def burst(request, report):
    """64 MiB for a moment."""
    mmap.mmap(-1, 64 << 20).write(b"x" * (64 << 20))
    return {}


FILES = []


def map_file(request, report):
    """The whole source, kept to the end."""
    file = os.open(request.source, os.O_RDONLY)
    FILES.append(mmap.mmap(file, 0, prot=mmap.PROT_READ))
    return {"sum": sum(FILES[-1][:: mmap.PAGESIZE])}


def print_noise(request, report):
    sys.stdout.write("noise on stdout\n")
    sys.stdout.flush()
    os.write(1, b"more noise\n")
    sys.stderr.write("a word for the log\n")
    return {"ok": True}


def not_a_number(request, report):
    return {"value": float("nan")}


def die(request, report):
    os.kill(os.getpid(), getattr(signal, request.options["signal"]))
    time.sleep(10)
    return {}


def crash(request, report):
    import ctypes

    ctypes.string_at(0)
    return {}


def quit_silently(request, report):
    os._exit(7)


def environment(request, report):
    raw = Path("/proc/self/environ").read_bytes().decode().rstrip("\0").split("\0")
    return {"environ": sorted(raw), "cwd": [str(entry) for entry in Path().iterdir()]}


def limits(request, report):
    names = ("RLIMIT_AS", "RLIMIT_CPU", "RLIMIT_FSIZE", "RLIMIT_NOFILE", "RLIMIT_CORE")
    return {name: list(resource.getrlimit(getattr(resource, name))) for name in names}


TASKS = {
    "analyze": echo,
    **{
        task.__name__: task
        for task in (
            raw, flood, invalid, over_limit, failed, unsupported, bad_options, unforeseen, spin,
            hold, nag, chatter, remember, descriptors, hang_up, large, print_noise,
            burst, map_file, not_a_number, die, crash, quit_silently, environment, limits,
        )
    },
}  # fmt: skip

if __name__ == "__main__":
    if "--unconfined" in sys.argv:
        states = dict.fromkeys(sandbox.REQUIRED, "missing: no kernel for it")
        sandbox.enter = lambda _policy: states
    if "laden" in sys.argv:  # 64 MiB that every child inherits, and enters late with
        ballast = os.urandom(1 << 20) * 64
        entered = sandbox.enter
        sandbox.enter = lambda policy: time.sleep(0.5) or entered(policy)
    if "spin" in sys.argv:
        TASKS["analyze"] = spin
    (forkserver if "zygote" in sys.argv else answer).main(TASKS)

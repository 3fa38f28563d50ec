"""Confinement of the calling process, layer by layer, each with its state said plainly.

Landlock and the filter of system calls bind the calling thread and what it starts, so this runs
while there is one thread only. Nothing here needs root, and as root nothing of root is left.
"""

import os
import platform
import resource
import site
import sys
import sysconfig
from collections.abc import Callable, Iterator
from dataclasses import dataclass
from pathlib import Path

import gradgauge
from gradgauge.worker import kernel, landlock, seccomp
from gradgauge.worker.memory import mapped_bytes
from gradgauge.worker.syscalls import ARCHITECTURES

ON, MISSING = "on", "missing"

# What has to hold before a stranger's model is opened; the rest is a second line.
REQUIRED = (
    "one_thread",
    "process_group",
    "parent_death",
    "limits",
    "no_new_privileges",
    "landlock",
    "seccomp",
)

_CAP_DAC_READ_SEARCH = 1 << 2
_THREAD_BYTES = 80 << 20  # of address space: an 8 MiB stack and a 64 MiB malloc arena
_CPU_GRACE_S = 2  # between the signal that names the limit and the one that cannot be caught

_LIBRARIES = ("/lib", "/lib64", "/usr/lib", "/usr/lib64", "/usr/local/lib", "/etc/ld.so.cache")
_MACHINE = ("/proc/cpuinfo", "/proc/meminfo", "/sys/devices/system/cpu", "/sys/devices/system/node")


@dataclass(frozen=True, slots=True)
class Policy:
    """What a confined process may touch; see frames.Request for the units."""

    read_only: tuple[str, ...] = ()
    writable: tuple[str, ...] = ()
    memory_bytes: int | None = None
    cpu_s: int | None = None
    file_bytes: int = 0
    open_files: int = 128
    threads: int = 1


def enter(policy: Policy) -> dict[str, str]:
    """Confine this process for good: the state of each layer, "on..." or "missing: why".

    A layer the system refuses does not stop the others; whether what is on is enough is for the
    caller to say (`missing`).
    """
    return {name: _state(layer, policy) for name, layer in _LAYERS.items()}


def missing(states: dict[str, str], required: tuple[str, ...] = REQUIRED) -> list[str]:
    """Those of the `required` layers that are not on, with the reason."""
    return [
        f"{name}: {states.get(name, MISSING)}"
        for name in required
        if not states.get(name, "").startswith(ON)
    ]


def library_roots() -> Iterator[str]:
    """Where Python, its packages and the system's libraries are: what a late import reads."""
    paths = sysconfig.get_paths()
    yield from {paths[name] for name in ("stdlib", "platstdlib", "purelib", "platlib")}
    yield from site.getsitepackages()
    yield str(Path(gradgauge.__file__).parent)
    yield str(Path(sys.base_prefix) / "lib")
    yield from _LIBRARIES


def _state(layer: Callable[[Policy], str], policy: Policy) -> str:
    try:
        return layer(policy)
    except (OSError, ValueError, KeyError) as error:
        reason = error.strerror if isinstance(error, OSError) else None
        return f"{MISSING}: {reason or error}"[:200]


def _one_thread(_policy: Policy) -> str:
    threads = len(list(Path("/proc/self/task").iterdir()))
    return ON if threads == 1 else f"{MISSING}: {threads} threads; the others stay unconfined"


def _process_group(_policy: Policy) -> str:
    if os.getsid(0) != os.getpid():
        os.setsid()
    return ON


def _limits(policy: Policy) -> str:
    memory = None
    if policy.memory_bytes is not None:
        memory = mapped_bytes() + policy.memory_bytes + policy.threads * _THREAD_BYTES
    wanted = (
        (resource.RLIMIT_CORE, 0),
        (resource.RLIMIT_FSIZE, policy.file_bytes),
        (resource.RLIMIT_NOFILE, policy.open_files),
        (resource.RLIMIT_CPU, policy.cpu_s),
        (resource.RLIMIT_AS, memory),
    )
    for limit, value in wanted:
        if value is not None:
            _, hard = resource.getrlimit(limit)
            top = _lower(value + (_CPU_GRACE_S if limit == resource.RLIMIT_CPU else 0), hard)
            resource.setrlimit(limit, (_lower(value, hard), top))
    return ON


def _lower(value: int, hard: int) -> int:
    return value if hard == resource.RLIM_INFINITY else min(value, hard)


def _first_to_go(_policy: Policy) -> str:
    """A machine out of memory takes this process, not the worker or the database."""
    Path("/proc/self/oom_score_adj").write_text("1000")
    return ON


def _network_namespace(_policy: Policy) -> str:
    """A network of its own with nothing in it; the filter denies sockets even without."""
    root = os.geteuid() == 0
    kernel.unshare(
        kernel.CLONE_NEWNET | kernel.CLONE_NEWIPC | (0 if root else kernel.CLONE_NEWUSER)
    )
    return ON


def _parent_death(_policy: Policy) -> str:
    """After `_network_namespace`: a change of credentials forgets the signal."""
    kernel.prctl(kernel.PR_SET_PDEATHSIG, 9, what="parent death signal")
    kernel.prctl(kernel.PR_SET_DUMPABLE, 0, what="dumpable")
    return ON


def _no_new_privileges(_policy: Policy) -> str:
    kernel.prctl(kernel.PR_SET_NO_NEW_PRIVS, 1, what="no_new_privs")
    return ON


def _landlock(policy: Policy) -> str:
    abi = landlock.version()
    if abi == 0:
        return f"{MISSING}: this kernel has no Landlock (Linux 5.13 and later), or it is off"
    landlock.restrict(abi, _grants(policy))
    return f"{ON}: version {abi}"


def _grants(policy: Policy) -> Iterator[tuple[str, int]]:
    yield from ((path, landlock.READ) for path in (*library_roots(), *_MACHINE, *policy.read_only))
    yield from ((path, landlock.WRITE) for path in policy.writable)
    yield "/dev/urandom", landlock.READ
    yield "/dev/null", landlock.WRITE


def _capabilities(_policy: Policy) -> str:
    """Root keeps reading what others own, inside what Landlock grants, and nothing else."""
    confined = landlock.version() > 0 and platform.machine() in ARCHITECTURES
    keep = os.geteuid() == 0 and confined
    kernel.keep_capabilities(_CAP_DAC_READ_SEARCH if keep else 0)
    return ON


def _seccomp(_policy: Policy) -> str:
    machine = platform.machine()
    if machine not in ARCHITECTURES:
        return f"{MISSING}: no table of system calls for {machine}"
    seccomp.install(machine, os.getpid())
    return f"{ON}: {machine}"


# In this order: what a later layer forbids, an earlier one may need.
_LAYERS: dict[str, Callable[[Policy], str]] = {
    "one_thread": _one_thread,
    "process_group": _process_group,
    "limits": _limits,
    "first_to_go": _first_to_go,
    "network_namespace": _network_namespace,
    "parent_death": _parent_death,
    "no_new_privileges": _no_new_privileges,
    "landlock": _landlock,
    "capabilities": _capabilities,
    "seccomp": _seccomp,
}

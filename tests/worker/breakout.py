"""A confined child that tries to break out, one way per attempt, and says how each ended.

With `--unconfined` it stays outside of the sandbox: what shows that an attempt would succeed.
With `--as-nobody` it gives up root first.
"""

import ctypes
import errno
import fcntl
import mmap
import os
import resource
import signal
import socket
import struct
import subprocess
import sys
import threading
from pathlib import Path

from gradgauge.worker import answer, sandbox

LIBC = ctypes.CDLL(None, use_errno=True)
PARENT = os.getppid()


def syscall(number, *arguments):
    result = LIBC.syscall(ctypes.c_long(number), *[ctypes.c_long(value) for value in arguments])
    if result < 0:
        raise OSError(ctypes.get_errno(), "syscall")
    return result


def fork():
    pid = os.fork()
    if pid == 0:
        os._exit(0)
    os.waitpid(pid, 0)


def fork_bomb():
    """Not a real one: it stops at twenty, where it gets that far."""
    for _ in range(20):
        fork()


def abstract_socket():
    with socket.socket(socket.AF_UNIX) as unix:
        unix.bind("\0gradgauge-breakout")


def write(path):
    with Path(path).open("a") as file:
        file.write("x")


def sigio_to_parent():
    read, _ = os.pipe()
    fcntl.fcntl(read, fcntl.F_SETOWN, PARENT)


def raise_limit():
    resource.setrlimit(resource.RLIMIT_NOFILE, (4096, 4096))


def thread():
    done = threading.Event()
    threading.Thread(target=done.set).start()
    if not done.wait(5):
        raise OSError(errno.ETIMEDOUT, "thread")


def attempts(own, neighbour):
    """By name; `own` is the job's file, `neighbour` one that is none of the job's business."""
    folder, near = Path(own).parent, Path(neighbour).parent
    return {
        # What a job needs, to prove that the sandbox does not simply break everything.
        "read_own_file": lambda: Path(own).read_bytes(),
        "list_own_folder": lambda: list(folder.iterdir()),
        "start_a_thread": thread,
        "import_late": lambda: __import__("sndhdr" if sys.version_info < (3, 13) else "cmd"),
        # Files.
        "read_neighbour": lambda: Path(neighbour).read_bytes(),
        "read_by_dotdot": (folder / ".." / near.name / Path(neighbour).name).read_bytes,
        "read_by_symlink": (folder / "link").read_bytes,
        "list_neighbour": lambda: list(near.iterdir()),
        "list_root": lambda: list(Path("/").iterdir()),
        "read_passwd": lambda: Path("/etc/passwd").read_bytes(),
        "read_parent_environment": lambda: Path(f"/proc/{PARENT}/environ").read_bytes(),
        "open_parent_memory": lambda: Path(f"/proc/{PARENT}/mem").open("rb").close(),
        "write_own_file": lambda: write(own),
        "write_neighbour": lambda: write(neighbour),
        "create_in_own_folder": lambda: write(folder / "new"),
        "create_in_working_directory": lambda: write("new"),
        "create_in_shared_memory": lambda: write("/dev/shm/gradgauge-breakout"),
        "unlink": (folder / "spare").unlink,
        "rename": lambda: (folder / "spare").rename(folder / "other"),
        "hard_link": lambda: (folder / "hard").hardlink_to(own),
        "symlink": lambda: (folder / "soft").symlink_to("/"),
        "make_directory": (folder / "made").mkdir,
        "make_fifo": lambda: os.mkfifo(folder / "fifo"),
        "truncate": lambda: os.truncate(neighbour, 0),
        "change_mode": lambda: Path(neighbour).chmod(0o644),
        "change_owner": lambda: os.chown(neighbour, os.getuid(), -1),
        "change_times": lambda: os.utime(neighbour, (0, 0)),
        "set_attribute": lambda: os.setxattr(neighbour, "user.breakout", b"1"),
        "memory_file": lambda: os.memfd_create("breakout"),
        # The network.
        "tcp_socket": lambda: socket.socket().close(),
        "udp_socket": lambda: socket.socket(socket.AF_INET, socket.SOCK_DGRAM).close(),
        "unix_socket": lambda: socket.socket(socket.AF_UNIX).close(),
        "netlink_socket": lambda: socket.socket(socket.AF_NETLINK, socket.SOCK_RAW).close(),
        "socket_pair": lambda: [end.close() for end in socket.socketpair()],
        "abstract_socket": abstract_socket,
        # Programs and processes.
        "run_a_program": lambda: subprocess.run(["/bin/true"], check=True),
        "spawn_a_program": lambda: os.posix_spawn("/bin/true", ["true"], {}),
        "fork": fork,
        "fork_bomb": fork_bomb,
        "signal_parent": lambda: os.kill(PARENT, signal.SIGCONT),
        "signal_everyone": lambda: os.kill(-1, 0),
        "signal_own_group": lambda: os.killpg(0, 0),
        "signal_by_pidfd": lambda: os.pidfd_open(PARENT),
        "signal_by_file_owner": sigio_to_parent,
        "look_at_parents_limits": lambda: resource.prlimit(PARENT, resource.RLIMIT_NOFILE),
        "slow_parent_down": lambda: os.setpriority(os.PRIO_PROCESS, PARENT, 0),
        "pin_parent": lambda: os.sched_setaffinity(PARENT, os.sched_getaffinity(PARENT)),
        "leave_the_group": os.setsid,
        "raise_limit": raise_limit,
        # The kernel. Numbers of x86_64; the parent is seized, never stopped.
        "trace_parent": lambda: syscall(101, 0x4206, PARENT, 0, 0),
        "outlive_parent": lambda: syscall(157, 1, 0, 0, 0, 0),
        "become_dumpable": lambda: syscall(157, 4, 1, 0, 0, 0),
        "new_user_namespace": lambda: syscall(272, 0x10000000),
        "shared_segment": lambda: syscall(29, 0, 4096, 0o1600),
        "key_ring": lambda: syscall(250, 0, 0xFFFFFFFD, 1, 0, 0),
        "userfaultfd": lambda: syscall(323, 1),
        "io_uring": lambda: syscall(425, 1, ctypes.addressof(ctypes.create_string_buffer(120))),
        "bpf": lambda: syscall(321, 5, 0, 0),
        "unknown_call": lambda: syscall(463, 0, 0, 0),
    }


def outcome(attempt):
    try:
        attempt()
    except OSError as error:
        return errno.errorcode.get(error.errno or 0, str(error))
    except (ValueError, ImportError) as error:
        return f"{type(error).__name__}: {error}"
    return "done"


def try_all(request, report):
    names = request.options.get("only")
    table = attempts(request.source, request.options["neighbour"])
    return {name: outcome(table[name]) for name in names or table}


def belongings(request, report):
    """What came along from the worker."""
    open_files = [fd for fd in range(256) if outcome(lambda fd=fd: os.fstat(fd)) == "done"]
    return {
        "environment": sorted(name.decode() for name in os.environb),
        "open_files": open_files,
        "working_directory": outcome(lambda: list(Path().iterdir())),
    }


def run_machine_code(request, report):
    """Bytes of x86 machine code, as an exploit would bring along."""
    code = bytes.fromhex(request.options["hex"])
    page = mmap.mmap(-1, 4096, prot=mmap.PROT_READ | mmap.PROT_WRITE | mmap.PROT_EXEC)
    page.write(code)
    address = ctypes.addressof(ctypes.c_char.from_buffer(page))
    return {"returned": ctypes.CFUNCTYPE(ctypes.c_long)(address)()}


def x32_call(request, report):
    return {"returned": syscall(0x40000000 | 39)}


def allocate(request, report):
    return {"held": len(bytearray(request.options["bytes"]))}


def map_file(request, report):
    with Path(request.source).open("rb") as file:
        return {"mapped": len(mmap.mmap(file.fileno(), 0, access=mmap.ACCESS_READ))}


def spin(request, report):
    while True:
        pass


def grow(request, report):
    """Touch memory bit by bit, never so much at once that an allocation fails."""
    held = []
    while True:
        held.append(struct.pack("Q", len(held)) * (1 << 17))


TASKS = {
    task.__name__: task
    for task in (try_all, belongings, run_machine_code, x32_call, allocate, map_file, grow, spin)
}

if __name__ == "__main__":
    if "--as-nobody" in sys.argv:
        os.setgroups([])
        os.setgid(65534)
        os.setuid(65534)
    if "--unconfined" in sys.argv:
        sandbox.enter = lambda _policy: {}
    answer.main(TASKS)

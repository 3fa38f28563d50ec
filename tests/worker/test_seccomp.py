"""The filter of system calls, run by an interpreter of its own, and its table against Linux's."""

import errno
import re
from pathlib import Path

import pytest

from gradgauge.worker import seccomp
from gradgauge.worker.syscalls import ARCHITECTURES, CONDITIONAL, DENIED, NEWEST

PID = 4321
ALLOW, KILL = 0x7FFF0000, 0x80000000
PERMISSION, NO_CALL = 0x00050000 | errno.EPERM, 0x00050000 | errno.ENOSYS
READ = {"x86_64": 0, "aarch64": 63}
HEADERS = {
    "x86_64": Path("/usr/include/x86_64-linux-gnu/asm/unistd_64.h"),
    "aarch64": Path("/usr/include/asm-generic/unistd.h"),
}


def judge(machine, number, *arguments, architecture=None):
    """What a kernel does with the program: classic BPF over struct seccomp_data."""
    data = {0: number, 4: architecture or ARCHITECTURES[machine]}
    for index, value in enumerate(arguments):
        data[16 + 8 * index] = value & 0xFFFFFFFF
    tests = {
        0x15: lambda a, k: a == k,
        0x35: lambda a, k: a >= k,
        0x25: lambda a, k: a > k,
        0x45: lambda a, k: a & k,
    }
    program = seccomp.program(machine, PID)
    at = accumulator = 0
    while True:
        code, true, false, constant = program[at]
        at += 1
        if code == 0x06:
            return constant
        if code == 0x20:
            accumulator = data.get(constant, 0)
        else:
            at += true if tests[code](accumulator, constant) else false


@pytest.fixture(params=ARCHITECTURES)
def machine(request):
    return request.param


@pytest.fixture
def number(machine):
    column = list(ARCHITECTURES).index(machine)
    return lambda name: (CONDITIONAL | DENIED)[name][column]


def test_the_numbers_are_those_of_linux(machine, number):
    header = HEADERS[machine]
    if not header.exists():
        pytest.skip(f"no {header}: install linux-libc-dev")
    pattern = r"#define __NR(?:3264)?_(\w+)\s+(\d+)\s*$"
    real = {name: int(n) for name, n in re.findall(pattern, header.read_text(), re.MULTILINE)}
    ours = {name: number(name) for name in CONDITIONAL | DENIED}
    assert ours == {name: real.get(name) for name in ours}


def test_no_number_is_in_the_table_twice(machine, number):
    numbers = [number(name) for name in CONDITIONAL | DENIED if number(name) is not None]
    assert len(numbers) == len(set(numbers))
    assert max(numbers) <= NEWEST


def test_every_denied_call_gets_eperm(machine, number):
    known = [number(name) for name in DENIED if number(name) is not None]
    assert {judge(machine, known_number) for known_number in known} == {PERMISSION}


def test_reading_passes_and_what_is_newer_than_the_table_does_not_exist(machine):
    assert judge(machine, READ[machine]) == ALLOW
    assert judge(machine, NEWEST) == ALLOW
    assert judge(machine, NEWEST + 1) == NO_CALL


def test_another_architecture_is_killed(machine):
    other = next(value for name, value in ARCHITECTURES.items() if name != machine)
    assert judge(machine, READ[machine], architecture=other) == KILL


def test_the_x32_interface_is_killed_on_x86_64():
    assert judge("x86_64", 0x40000000 | 39) == KILL


def test_clone_makes_threads_and_clone3_makes_nothing(machine, number):
    thread_of_glibc = 0x3D0F00
    fork_of_glibc = 0x1200011
    assert judge(machine, number("clone"), thread_of_glibc) == ALLOW
    assert judge(machine, number("clone"), fork_of_glibc) == PERMISSION
    assert judge(machine, number("clone3"), 0) == NO_CALL


@pytest.mark.parametrize(
    ("call", "arguments", "verdict"),
    [
        ("kill", (PID, 9), ALLOW),
        ("kill", (PID + 1, 9), PERMISSION),
        ("kill", (-PID, 9), PERMISSION),
        ("kill", (-1, 9), PERMISSION),
        ("tgkill", (PID, PID, 6), ALLOW),
        ("tgkill", (1, 1, 6), PERMISSION),
        ("prlimit64", (0, 7), ALLOW),
        ("prlimit64", (PID + 1, 7), PERMISSION),
        ("prctl", (15,), ALLOW),
        ("prctl", (1, 0), PERMISSION),
        ("fcntl", (3, 1), ALLOW),
        ("fcntl", (3, 8, 1), PERMISSION),
        ("fcntl", (3, 15), PERMISSION),
        ("ioctl", (0, 0x5413), ALLOW),
        ("ioctl", (0, 0x5412), PERMISSION),
    ],
)
def test_arguments_decide(machine, number, call, arguments, verdict):
    assert judge(machine, number(call), *arguments) == verdict


def test_an_unknown_machine_has_no_filter():
    with pytest.raises(KeyError):
        seccomp.program("riscv64", PID)

"""The filter of system calls: a table of rules, compiled to the kernel's small machine code.

A list of what is denied: a list of what is allowed would be stricter, and would break with every
release of torch or libc. What is newer than the table does not exist. See seccomp(2), and
Documentation/userspace-api/seccomp_filter.rst in Linux.
"""

import ctypes
import errno
import struct
from dataclasses import dataclass

from gradgauge.worker import kernel
from gradgauge.worker.syscalls import ARCHITECTURES, CONDITIONAL, DENIED, NEWEST, X32

_ALLOW, _KILL, _ERRNO = 0x7FFF0000, 0x80000000, 0x00050000
_LOAD, _JEQ, _JGE, _JGT, _JSET, _RETURN = 0x20, 0x15, 0x35, 0x25, 0x45, 0x06
_NUMBER, _ARCH, _ARGUMENTS = 0, 4, 16  # offsets in struct seccomp_data

_CLONE_THREAD = 0x10000
_PR_SET_NAME, _PR_GET_NAME, _PR_SET_VMA = 15, 16, 0x53564D41
_F_SETOWN, _F_SETSIG, _F_SETOWN_EX = 8, 10, 15
_FIOSETOWN, _SIOCSPGRP, _TIOCSTI, _TIOCLINUX = 0x8901, 0x8902, 0x5412, 0x541C

Instruction = tuple[int, int, int, int]
"""Code, jump if true, jump if false, constant: struct sock_filter."""


@dataclass(frozen=True, slots=True)
class Rule:
    """Whether a call passes, by the low half of one argument; the kernel reads these as int."""

    call: str
    argument: int = 0
    only: tuple[int, ...] = ()
    """Passes with one of these values only."""
    never: tuple[int, ...] = ()
    """Passes with any value but these."""
    bit: int = 0
    """Passes where this bit is set only."""


def rules(pid: int) -> tuple[Rule, ...]:
    """What passes with the right argument; `pid` is the process the filter is for."""
    return (
        Rule("clone", bit=_CLONE_THREAD),
        # abort() and a crash handler's raise() signal the process itself.
        Rule("kill", only=(pid,)),
        Rule("tgkill", only=(pid,)),
        # Not the limits of another process of the same user.
        Rule("prlimit64", only=(0,)),
        # Not the signal for the parent's death, nor dumpability: names only.
        Rule("prctl", only=(_PR_SET_NAME, _PR_GET_NAME, _PR_SET_VMA)),
        # A file's owner gets signals: a way around kill.
        Rule("fcntl", argument=1, never=(_F_SETOWN, _F_SETSIG, _F_SETOWN_EX)),
        Rule("ioctl", argument=1, never=(_FIOSETOWN, _SIOCSPGRP, _TIOCSTI, _TIOCLINUX)),
    )


def program(machine: str, pid: int) -> list[Instruction]:
    """The filter for `machine`; raises KeyError where the table has no column for it."""
    column = list(ARCHITECTURES).index(machine) if machine in ARCHITECTURES else -1
    code: list[Instruction] = [
        (_LOAD, 0, 0, _ARCH),
        (_JEQ, 1, 0, ARCHITECTURES[machine]),
        _ret(_KILL),
        (_LOAD, 0, 0, _NUMBER),
    ]
    if machine == "x86_64":
        code += [(_JGE, 0, 1, X32), _ret(_KILL)]
    # libc falls back from clone3, whose flags no filter can read, to clone.
    code += _on(CONDITIONAL["clone3"][column], [_ret(_ERRNO | errno.ENOSYS)])
    for numbers in DENIED.values():
        code += _on(numbers[column], [_ret(_ERRNO | errno.EPERM)])
    for rule in rules(pid):
        code += _on(CONDITIONAL[rule.call][column], _judge(rule))
    return [*code, (_JGT, 0, 1, NEWEST), _ret(_ERRNO | errno.ENOSYS), _ret(_ALLOW)]


def install(machine: str, pid: int) -> None:
    """Bind this thread, and all it starts, to the filter for good; raises OSError, KeyError."""
    code = program(machine, pid)
    packed = b"".join(struct.pack("<HBBI", *instruction) for instruction in code)
    buffer = ctypes.create_string_buffer(packed, len(packed))
    prog = struct.pack("<HxxxxxxQ", len(code), ctypes.addressof(buffer))
    kernel.prctl(kernel.PR_SET_SECCOMP, 2, prog, what="seccomp filter")


def _ret(value: int) -> Instruction:
    return (_RETURN, 0, 0, value)


def _on(number: int | None, body: list[Instruction]) -> list[Instruction]:
    """`body`, which has to return on every way, for one call; nothing where it does not exist."""
    return [] if number is None else [(_JEQ, 0, len(body), number), *body]


def _judge(rule: Rule) -> list[Instruction]:
    load = (_LOAD, 0, 0, _ARGUMENTS + 8 * rule.argument)
    deny, allow = _ret(_ERRNO | errno.EPERM), _ret(_ALLOW)
    if rule.bit:
        return [load, (_JSET, 1, 0, rule.bit), deny, allow]
    values, hit, miss = (rule.only, allow, deny) if rule.only else (rule.never, deny, allow)
    jumps = [(_JEQ, len(values) - i, 0, value) for i, value in enumerate(values)]
    return [load, *jumps, miss, hit]

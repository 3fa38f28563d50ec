"""System calls that Python has no function for, by ctypes, with errno made an OSError."""

import ctypes
import os
import sys
from typing import Any

PR_SET_PDEATHSIG, PR_SET_DUMPABLE = 1, 4
PR_SET_SECCOMP, PR_SET_NO_NEW_PRIVS = 22, 38
CLONE_NEWUSER, CLONE_NEWNET, CLONE_NEWIPC = 0x10000000, 0x40000000, 0x08000000

LINUX = sys.platform == "linux"

_libc = ctypes.CDLL(None, use_errno=True) if LINUX else None
_CAPABILITY_VERSION_3 = 0x20080522


def call(number: int, *arguments: Any, what: str) -> int:
    """A system call by number; integers are passed as 64 bits. Raises OSError naming `what`."""
    return _checked("syscall", number, *arguments, what=what)


def prctl(option: int, *arguments: Any, what: str) -> int:
    """Change something about this process; unused arguments are 0. Raises OSError."""
    padded = (*arguments, 0, 0, 0, 0)[:4]
    return _checked("prctl", option, *padded, what=what)


def unshare(flags: int) -> None:
    """Leave the namespaces in `flags` for new ones; raises OSError where that is not allowed."""
    _checked("unshare", flags, what="unshare")


def keep_capabilities(kept: int) -> None:
    """Give up every capability but those in the bit mask `kept`, for good."""
    header = (ctypes.c_uint32 * 2)(_CAPABILITY_VERSION_3, 0)
    low, high = kept & 0xFFFFFFFF, kept >> 32
    data = (ctypes.c_uint32 * 6)(low, low, 0, high, high, 0)
    _checked("capset", header, data, what="capset")


def _checked(function: str, *arguments: Any, what: str) -> int:
    if _libc is None:
        raise OSError(0, f"{what}: Linux only")
    wide = [ctypes.c_long(value) if isinstance(value, int) else value for value in arguments]
    result = int(getattr(_libc, function)(*wide))
    if result < 0:
        number = ctypes.get_errno()
        raise OSError(number, f"{what}: {os.strerror(number)}")
    return result

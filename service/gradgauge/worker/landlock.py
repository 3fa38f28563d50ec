"""Landlock: which files this thread, and all it starts, can open from now on.

See https://docs.kernel.org/userspace-api/landlock.html; numbers from include/uapi/linux/landlock.h.
"""

import os
import struct
from collections.abc import Iterable
from pathlib import Path

from gradgauge.worker import kernel

_CREATE_RULESET, _ADD_RULE, _RESTRICT_SELF = 444, 445, 446  # the same on every architecture
_VERSION, _PATH_BENEATH = 1, 1

WRITE_FILE, READ_FILE, READ_DIR = 1 << 1, 1 << 2, 1 << 3
REMOVE_FILE, MAKE_REG, TRUNCATE = 1 << 5, 1 << 8, 1 << 14

READ = READ_FILE | READ_DIR
WRITE = READ | WRITE_FILE | REMOVE_FILE | MAKE_REG | TRUNCATE
_OF_A_FILE = READ_FILE | WRITE_FILE | TRUNCATE

# How many file rights, network rights and scopes each version of the interface knows; a later
# version than the last row knows at least as many.
_KNOWN: tuple[tuple[int, int, int, int], ...] = (
    (1, 13, 0, 0),
    (2, 14, 0, 0),  # moving between folders
    (3, 15, 0, 0),  # truncation
    (4, 15, 2, 0),  # TCP bind and connect
    (5, 16, 2, 0),  # ioctl on devices
    (6, 16, 2, 2),  # abstract Unix sockets, signals
)


def version() -> int:
    """The kernel's version of the interface; 0 where it has none or it is switched off."""
    try:
        return kernel.call(_CREATE_RULESET, None, 0, _VERSION, what="landlock")
    except OSError:
        return 0


def handled(abi: int) -> tuple[int, int, int]:
    """All rights `abi` (1 or later) can withhold: bits for files, for the network, for scopes."""
    _, files, network, scopes = max(row for row in _KNOWN if row[0] <= abi)
    return (1 << files) - 1, (1 << network) - 1, (1 << scopes) - 1


def restrict(abi: int, grants: Iterable[tuple[str, int]]) -> None:
    """Withhold all but `grants`, (path, rights), for good; a path out of reach is left out.

    Needs no_new_privs. Open descriptors keep their rights. Not covered by Landlock, and left to
    the filter of system calls: modes, owners, times and attributes of files. Raises OSError.
    """
    files, network, scopes = handled(abi)
    attributes = struct.pack("<QQQ", files, network, scopes)
    # An old kernel takes the longer structure too, as long as what it does not know is zero.
    ruleset = kernel.call(_CREATE_RULESET, attributes, len(attributes), 0, what="landlock ruleset")
    try:
        for path, rights in grants:
            _grant(ruleset, path, rights & files)
        kernel.call(_RESTRICT_SELF, ruleset, 0, what="landlock")
    finally:
        os.close(ruleset)


def _grant(ruleset: int, path: str, rights: int) -> None:
    try:
        fd = os.open(path, os.O_PATH | os.O_CLOEXEC)
    except (FileNotFoundError, NotADirectoryError, PermissionError):
        return  # what this process cannot reach anyway needs no grant
    try:
        rights &= rights if Path(path).is_dir() else _OF_A_FILE
        rule = struct.pack("<Qi", rights, fd)
        kernel.call(_ADD_RULE, ruleset, _PATH_BENEATH, rule, 0, what="landlock rule")
    finally:
        os.close(fd)

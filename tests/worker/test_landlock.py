"""The masks of Landlock's versions, against the kernel's own header."""

import re
from pathlib import Path

import pytest

from gradgauge.worker import landlock

HEADER = Path("/usr/include/linux/landlock.h")


@pytest.mark.skipif(not HEADER.exists(), reason="needs linux-libc-dev")
@pytest.mark.parametrize(
    "right", ["WRITE_FILE", "READ_FILE", "READ_DIR", "REMOVE_FILE", "MAKE_REG"]
)
def test_a_right_has_the_kernels_bit(right):
    shift = re.search(rf"LANDLOCK_ACCESS_FS_{right}\s+\(1ULL << (\d+)\)", HEADER.read_text())
    assert getattr(landlock, right) == 1 << int(shift[1])


@pytest.mark.parametrize(
    ("abi", "files", "network", "scopes"),
    [
        (1, 0x1FFF, 0, 0),
        (2, 0x3FFF, 0, 0),
        (3, 0x7FFF, 0, 0),
        (4, 0x7FFF, 3, 0),
        (5, 0xFFFF, 3, 0),
        (6, 0xFFFF, 3, 3),
        (99, 0xFFFF, 3, 3),
    ],
)
def test_each_version_withholds_all_it_knows_and_nothing_else(abi, files, network, scopes):
    """Documentation/userspace-api/landlock.rst, the best-effort switch of its example."""
    assert landlock.handled(abi) == (files, network, scopes)


def test_reading_grants_no_writing():
    assert landlock.READ & landlock.WRITE_FILE == 0
    assert landlock.READ & ~landlock.WRITE == 0

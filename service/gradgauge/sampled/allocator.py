"""Whether memory that is let go goes back to the system at once or stays with the allocator."""

import ctypes
import gc

_M_TRIM_THRESHOLD, _M_MMAP_THRESHOLD = -1, -3  # malloc.h
_LARGE = 1 << 20  # bytes from which a block goes back at once
_LARGEST = 32 << 20  # the most glibc takes; where its own adjustment ends too
_TOP = 128 << 10  # bytes let go at the heap's end from which on they go back: glibc's own


def give_back(*, at_once: bool) -> None:
    """Tell glibc; nothing happens where the C library is another.

    Blocks it keeps are rarely used again: torch asks for aligned ones, which need a little more
    than a block of the same size that was let go. A chain of values of 16 MiB, one alive at a time,
    grew to six times what it saved. Going back costs page faults, a third of a pass of ResNet-50,
    and 1,600 faults in a pass of an unrolled cell: where one threshold is set, glibc raises the
    other no more.
    """
    libc = ctypes.CDLL(None)
    try:
        libc.mallopt(_M_MMAP_THRESHOLD, _LARGE if at_once else _LARGEST)
        libc.mallopt(_M_TRIM_THRESHOLD, _TOP if at_once else 2 * _LARGEST)
        if at_once:
            libc.malloc_trim(0)
    except AttributeError:
        return


def let_go() -> None:
    """Give back what nothing holds any more: cycles, and what the allocator keeps between blocks.

    A copy's assessment left up to 12 MiB of it behind, on which the next one's came on top.
    """
    gc.collect()
    try:
        ctypes.CDLL(None).malloc_trim(0)
    except AttributeError:
        return

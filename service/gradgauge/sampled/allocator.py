"""Whether memory that is let go goes back to the system at once or stays with the allocator."""

import ctypes

_M_MMAP_THRESHOLD = -3  # malloc.h
_LARGE = 1 << 20  # bytes from which a block goes back at once
_LARGEST = 32 << 20  # the most glibc takes; where its own adjustment ends too


def give_back(*, at_once: bool) -> None:
    """Tell glibc; nothing happens where the C library is another.

    Blocks it keeps are rarely used again: torch asks for aligned ones, which need a little more
    than a block of the same size that was let go. A chain of values of 16 MiB, one alive at a time,
    grew to six times what it saved. Going back costs page faults, a third of a pass of ResNet-50.
    """
    libc = ctypes.CDLL(None)
    try:
        libc.mallopt(_M_MMAP_THRESHOLD, _LARGE if at_once else _LARGEST)
        if at_once:
            libc.malloc_trim(0)
    except AttributeError:
        return

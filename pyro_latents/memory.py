"""How the process treats memory that it has freed."""

import ctypes
import sys

# The names and numbers are those of glibc's malloc.h; the threshold is the largest it accepts.
_M_TRIM_THRESHOLD = -1
_M_MMAP_THRESHOLD = -3
_LARGEST_MMAP_THRESHOLD = 32 * 1024**2
_LARGEST_INT = 2**31 - 1


def keep_freed_memory() -> None:
    """Let the C library keep what it frees, for the next step of a training on the CPU.

    Every step frees the activations of its batch, and by default glibc gives them back to the
    system, which clears the same pages again for the next step: a tenth of the time of a small
    convolutional network. The process stays as large as it was at its largest. Other C libraries
    are left as they are.
    """
    if not sys.platform.startswith("linux"):
        return
    try:
        mallopt = ctypes.CDLL(None).mallopt
    except (OSError, AttributeError):
        return
    mallopt(_M_TRIM_THRESHOLD, _LARGEST_INT)
    mallopt(_M_MMAP_THRESHOLD, _LARGEST_MMAP_THRESHOLD)

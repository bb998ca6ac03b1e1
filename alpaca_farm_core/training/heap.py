"""Memory that a process has freed and its allocator keeps: given back to the system between phases (glibc; else no-op).

Decoding and updates free blocks of other sizes than the next phase asks for, so that what is kept adds up.
"""

from __future__ import annotations

import contextlib
import ctypes
import sys
from collections.abc import Iterator


def return_free_memory() -> None:
    """Give free pages back; costs tens of milliseconds for a gigabyte, most of them when pages are asked for again."""
    if sys.platform == "linux":
        with contextlib.suppress(OSError, AttributeError):  # another C library
            ctypes.CDLL(None).malloc_trim(0)


@contextlib.contextmanager
def returning_memory(grows: bool) -> Iterator[None]:
    """Give free pages back before and after a phase, where the process would grow from phase to phase."""
    if grows:
        return_free_memory()
    yield
    if grows:
        return_free_memory()

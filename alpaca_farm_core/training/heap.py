"""Memory that a process has freed and its allocator may keep: kept, or given back to the system (glibc; else no-op).

Kept where a run asks for the same blocks again and again: a page that comes back from the system costs a fault, all of
them a tenth of a step. Given back where the blocks of a phase are of other sizes than those of the one before, so that
what is kept adds up.
"""

from __future__ import annotations

import contextlib
import ctypes
import sys
from collections.abc import Iterator

_TRIM_THRESHOLD, _MMAP_THRESHOLD, _MMAP_MAX = -1, -3, -4
"""Numbers of glibc's settings (malloc.h)."""
_USUAL = {_MMAP_MAX: 65536, _MMAP_THRESHOLD: 32 * 2**20, _TRIM_THRESHOLD: 64 * 2**20}
"""What glibc arrives at by itself, which it does not go on doing once a setting was made."""


@contextlib.contextmanager
def keeping_memory(keep: bool) -> Iterator[None]:
    """Have the process keep what it frees meanwhile, all of it in one heap; afterwards it is given back."""
    if not keep:
        yield
        return
    _set({_MMAP_MAX: 0, _TRIM_THRESHOLD: -1})  # never a mapping of its own; never trimmed
    try:
        yield
    finally:
        _set(_USUAL)
        return_free_memory()


def return_free_memory() -> None:
    """Give free pages back; costs tens of milliseconds for a gigabyte, most of them when pages are asked for again."""
    if (library := _glibc()) is not None:
        library.malloc_trim(0)


@contextlib.contextmanager
def returning_memory(grows: bool) -> Iterator[None]:
    """Give free pages back before and after a phase, where the process would grow from phase to phase."""
    if grows:
        return_free_memory()
    yield
    if grows:
        return_free_memory()


def _set(settings: dict[int, int]) -> None:
    if (library := _glibc()) is not None:
        for name, value in settings.items():
            library.mallopt(name, value)


def _glibc() -> ctypes.CDLL | None:
    if sys.platform != "linux":
        return None
    library = ctypes.CDLL(None)
    return library if hasattr(library, "malloc_trim") and hasattr(library, "mallopt") else None  # not another C library

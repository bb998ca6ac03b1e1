"""Child processes that never outlive their parent, by the kernel's own means (Linux; elsewhere nothing happens)."""

from __future__ import annotations

import ctypes
import signal
import sys
from collections.abc import Callable

_SET_PARENT_DEATH_SIGNAL, _SET_CHILD_SUBREAPER = 1, 36  # of prctl(2)


def end_with_parent(number: signal.Signals) -> Callable[[], None]:
    """Return what a child calls (or its parent gives as `preexec_fn`) to get a signal when its parent dies."""
    if sys.platform != "linux":
        return lambda: None
    prctl = ctypes.CDLL(None, use_errno=True).prctl
    return lambda: prctl(_SET_PARENT_DEATH_SIGNAL, int(number), 0, 0, 0)


def adopt_orphans() -> None:
    """Make this process the parent of whatever its children leave behind when they die."""
    if sys.platform == "linux":
        ctypes.CDLL(None, use_errno=True).prctl(_SET_CHILD_SUBREAPER, 1, 0, 0, 0)

"""Locks between processes and threads, freed by the kernel when their holder dies, however it dies."""

from __future__ import annotations

import fcntl
import os
import socket
from collections.abc import Callable, Iterator
from contextlib import contextmanager
from pathlib import Path
from typing import IO


@contextmanager
def exclusive(path: Path, on_wait: Callable[[str], None] | None = None) -> Iterator[IO[str]]:
    """Hold the lock file `path`; wait for its holder when there is one.

    Args:
        path: Lock file; created when absent, never removed (removing it would split the lock).
        on_wait: Called once with who holds the lock, if it is not free.

    Yields:
        The open lock file; a child process that inherits it holds the lock too, until it ends.
    """
    path.parent.mkdir(parents=True, exist_ok=True)
    with path.open("a+", encoding="utf-8") as stream:
        try:
            fcntl.flock(stream, fcntl.LOCK_EX | fcntl.LOCK_NB)
        except BlockingIOError:
            if on_wait is not None:
                on_wait(_holder(path))
            fcntl.flock(stream, fcntl.LOCK_EX)
        stream.truncate(0)
        stream.write(f"process {os.getpid()} on {socket.gethostname()}")
        stream.flush()
        yield stream


def is_held(path: Path) -> bool:
    """Tell whether somebody holds the lock file now."""
    if not path.exists():
        return False
    with path.open("a+", encoding="utf-8") as stream:
        try:
            fcntl.flock(stream, fcntl.LOCK_EX | fcntl.LOCK_NB)
        except BlockingIOError:
            return True
    return False


def _holder(path: Path) -> str:
    return path.read_text(encoding="utf-8").strip() or "another process"

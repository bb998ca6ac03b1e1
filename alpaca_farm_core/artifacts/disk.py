"""The disk under a store: whether there is room, and its errors in words that say what to do."""

from __future__ import annotations

import errno
import shutil
from collections.abc import Iterator
from contextlib import contextmanager
from pathlib import Path

from alpaca_farm_core.errors import FarmError, StoreError

_NO_ROOM = (errno.ENOSPC, errno.EDQUOT, errno.EFBIG)


def check_room(root: Path, min_free_gb: float) -> None:
    """Refuse to start what would soon end on a full disk.

    Raises:
        StoreError: less than `min_free_gb` are free.
    """
    free = shutil.disk_usage(root).free / 1e9
    if free < min_free_gb:
        raise StoreError(
            f"The disk of the store {root} has {free:.2f} GB free, and execution.min_free_gb asks for {min_free_gb:g}.",
            "Free some space (`alpaca-farm artifacts gc` helps), choose another --store, or lower the setting.",
        )


def no_room_left(error: BaseException | None) -> bool:
    """Tell whether a write failed for lack of room: a full disk, a used-up quota or a limit on a file's size.

    Libraries hide the system's error behind their own: torch in its context, Rust's (safetensors, tokenizers) in words.
    """
    while error is not None:
        if isinstance(error, OSError) and error.errno in _NO_ROOM:
            return True
        if any(f"(os error {number})" in str(error) for number in _NO_ROOM):
            return True
        error = error.__cause__ or error.__context__
    return False


@contextmanager
def readable_storage_errors(root: Path) -> Iterator[None]:
    """Say of a full or read-only disk what a user can do about it."""
    try:
        yield
    except FarmError:
        raise
    except Exception as error:
        if no_room_left(error):
            free = shutil.disk_usage(root if root.exists() else root.parent).free / 1e9
            raise StoreError(
                f"The disk of the store {root} is full, or a quota is used up ({free:.1f} GB free).",
                "Free some space (`alpaca-farm artifacts gc` helps) and run the same command; finished work is kept.",
            ) from error
        if not isinstance(error, OSError):
            raise
        if error.errno in (errno.EROFS, errno.EACCES, errno.EPERM):
            raise StoreError(
                f"The store {root} cannot be written: {error.strerror}.",
                "Check its permissions, or choose another --store.",
            ) from error
        if error.errno in (errno.ENOTDIR, errno.EEXIST):
            raise StoreError(f"The store {root} is not a folder.", "Choose another place with --store.") from error
        raise

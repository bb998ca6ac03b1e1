"""Checkpoints of a run in progress: a folder per step, there as a whole or not at all.

In: tensors (state dicts) and plain state. Out: the same, bit for bit, from the newest folder that is
intact. Knows nothing of models; random-number states are captured and restored here too.
"""

from __future__ import annotations

import os
import random
import shutil
from collections.abc import Callable, Mapping
from dataclasses import dataclass
from pathlib import Path
from pickle import UnpicklingError
from typing import Any

import numpy as np
import torch

from alpaca_farm_core.artifacts.files import fsync_folder, fsync_tree, read_json, sha256_file, write_json
from alpaca_farm_core.errors import DataError

TENSORS, STATE = "tensors.pt", "state.json"
KEPT = 2
"""Checkpoints that stay: the newest, and the one before in case the newest is damaged."""


@dataclass(frozen=True)
class Checkpoint:
    """One saved moment.

    Attributes:
        step: Optimiser steps done.
        tensors: Name → state dict.
        state: Plain JSON values.
    """

    step: int
    tensors: Mapping[str, Any]
    state: Mapping[str, Any]


class Checkpointer:
    """Writes and reads the checkpoints of one run in `folder`."""

    def __init__(self, folder: Path, say: Callable[[str], None]) -> None:
        self._folder = folder
        self._say = say
        folder.mkdir(parents=True, exist_ok=True)

    def save(self, checkpoint: Checkpoint) -> None:
        """Write a folder under a temporary name, fsync, rename; then drop all but the last two."""
        final = self._folder / f"step_{checkpoint.step:08d}"
        temporary = self._folder / f".{final.name}.{os.getpid()}.tmp"
        shutil.rmtree(temporary, ignore_errors=True)
        temporary.mkdir()
        try:
            self._write(checkpoint, temporary)
        except BaseException:
            shutil.rmtree(temporary, ignore_errors=True)  # on a full disk nothing may lie about
            raise
        if final.exists():  # the same step again, after an older checkpoint had to be used
            shutil.rmtree(final)
        temporary.replace(final)
        fsync_folder(self._folder)
        self._prune()

    def _write(self, checkpoint: Checkpoint, folder: Path) -> None:
        with (folder / TENSORS).open("wb") as stream:  # given a path, torch would hide why a write failed
            torch.save({**checkpoint.tensors, "rng": _torch_rng()}, stream)
        state = {"step": checkpoint.step, "state": checkpoint.state, "rng": _capture_python_and_numpy()}
        write_json(folder / STATE, {**state, "tensors_sha256": sha256_file(folder / TENSORS)})
        fsync_tree(folder)

    def load(self) -> Checkpoint | None:
        """Read the newest intact checkpoint and restore all random-number states; None when there is none.

        A damaged one is reported and passed over.
        """
        for path in reversed(self._paths()):
            try:
                return self._read(path)
            except (DataError, OSError, RuntimeError, KeyError, ValueError, EOFError, UnpicklingError) as error:
                self._say(f"Checkpoint {path.name} is damaged ({_first_line(error)}); using the one before.")
        return None

    @property
    def newest_step(self) -> int | None:
        """Step of the newest checkpoint on disk."""
        paths = self._paths()
        return int(paths[-1].name.removeprefix("step_")) if paths else None

    def _read(self, path: Path) -> Checkpoint:
        data = read_json(path / STATE)
        if sha256_file(path / TENSORS) != data["tensors_sha256"]:
            raise DataError(f"{TENSORS} is not what was written")
        tensors = torch.load(path / TENSORS, map_location="cpu", weights_only=True)
        _restore_python_and_numpy(data["rng"])
        _restore_torch_rng(tensors["rng"])
        return Checkpoint(data["step"], tensors, data["state"])

    def _paths(self) -> list[Path]:
        return sorted(self._folder.glob("step_*"))

    def _prune(self) -> None:
        for path in self._paths()[:-KEPT]:
            shutil.rmtree(path)


def _torch_rng() -> dict[str, Any]:
    cuda = torch.cuda.get_rng_state_all() if torch.cuda.is_available() else []
    return {"cpu": torch.get_rng_state(), "cuda": cuda}


def _restore_torch_rng(states: Mapping[str, Any]) -> None:
    torch.set_rng_state(states["cpu"])
    # A machine with another number of devices has no use for these states.
    if states["cuda"] and torch.cuda.is_available() and len(states["cuda"]) == torch.cuda.device_count():
        torch.cuda.set_rng_state_all(states["cuda"])


def _capture_python_and_numpy() -> dict[str, Any]:
    version, words, gauss = random.getstate()
    name, keys, position, has_gauss, cached = np.random.get_state(legacy=True)
    return {
        "python": [version, list(words), gauss],
        "numpy": [str(name), np.asarray(keys).tolist(), int(position), int(has_gauss), float(cached)],
    }


def _restore_python_and_numpy(states: Mapping[str, Any]) -> None:
    version, words, gauss = states["python"]
    random.setstate((version, tuple(words), gauss))
    name, keys, position, has_gauss, cached = states["numpy"]
    np.random.set_state((name, np.asarray(keys, dtype=np.uint32), position, has_gauss, cached))


def _first_line(error: Exception) -> str:
    return (str(error).splitlines() or [type(error).__name__])[0]

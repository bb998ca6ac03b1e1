"""Checkpoints of a run in progress: a folder per step, there as a whole or not at all.

In: tensors (state dicts) and plain state. Out: the same, bit for bit, from the newest folder that is
intact. Knows nothing of models; random-number states, of all processes, are captured and restored here too.
"""

from __future__ import annotations

import os
import random
import shutil
from collections.abc import Callable, Mapping
from dataclasses import dataclass
from pathlib import Path
from pickle import UnpicklingError
from typing import TYPE_CHECKING, Any

import numpy as np
import torch

from alpaca_farm_core.artifacts.files import fsync_folder, fsync_tree, read_json, sha256_file, write_json
from alpaca_farm_core.errors import DataError

if TYPE_CHECKING:
    from alpaca_farm_core.training.launch import Workers

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

    def save(self, checkpoint: Checkpoint, workers: Workers | None = None) -> None:
        """Write a folder under a temporary name, fsync, rename; then drop all but the last two.

        Args:
            checkpoint: What process 0 has to keep.
            workers: Where several processes train, each of which must call this; process 0 writes.
        """
        others = [] if workers is None or workers.size == 1 else workers.gather([_random_state_as_json()])[1:]
        if workers is not None and not workers.is_main:
            return
        final = self._folder / f"step_{checkpoint.step:08d}"
        temporary = self._folder / f".{final.name}.{os.getpid()}.tmp"
        shutil.rmtree(temporary, ignore_errors=True)
        temporary.mkdir()
        try:
            self._write(checkpoint, temporary, others)
        except BaseException:
            shutil.rmtree(temporary, ignore_errors=True)  # on a full disk nothing may lie about
            raise
        if final.exists():  # the same step again, after an older checkpoint had to be used
            shutil.rmtree(final)
        temporary.replace(final)
        fsync_folder(self._folder)
        self._prune()

    def _write(self, checkpoint: Checkpoint, folder: Path, others: list[Any]) -> None:
        with (folder / TENSORS).open("wb") as stream:  # given a path, torch would hide why a write failed
            torch.save({**checkpoint.tensors, "rng": _torch_rng()}, stream)
        state = {"step": checkpoint.step, "state": checkpoint.state, "rng": _capture_python_and_numpy()}
        state |= {"rng_of_others": others, "tensors_sha256": sha256_file(folder / TENSORS)}
        write_json(folder / STATE, state)
        fsync_tree(folder)

    def load(self, rank: int = 0) -> Checkpoint | None:
        """Read the newest intact checkpoint and restore the random-number states of process `rank`; None = none there.

        A damaged one is reported and passed over.
        """
        for path in reversed(self._paths()):
            try:
                return self._read(path, rank)
            except (DataError, OSError, RuntimeError, KeyError, ValueError, EOFError, UnpicklingError) as error:
                self._say(f"Checkpoint {path.name} is damaged ({_first_line(error)}); using the one before.")
        return None

    @property
    def newest_step(self) -> int | None:
        """Step of the newest checkpoint on disk."""
        paths = self._paths()
        return int(paths[-1].name.removeprefix("step_")) if paths else None

    def _read(self, path: Path, rank: int) -> Checkpoint:
        data = read_json(path / STATE)
        if sha256_file(path / TENSORS) != data["tensors_sha256"]:
            raise DataError(f"{TENSORS} is not what was written")
        tensors = torch.load(path / TENSORS, map_location="cpu", weights_only=True)
        # Processes that the checkpoint does not know start like process 0.
        own = dict(enumerate(data.get("rng_of_others", []), start=1)).get(rank)
        _restore_python_and_numpy(own["rng"] if own else data["rng"])
        _restore_torch_rng(_tensors_of(own["torch"]) if own else tensors["rng"])
        return Checkpoint(data["step"], tensors, data["state"])

    def _paths(self) -> list[Path]:
        return sorted(self._folder.glob("step_*"))

    def _prune(self) -> None:
        for path in self._paths()[:-KEPT]:
            shutil.rmtree(path)


def _torch_rng() -> dict[str, Any]:
    cuda = torch.cuda.get_rng_state_all() if torch.cuda.is_available() else []
    return {"cpu": torch.get_rng_state(), "cuda": cuda}


def _random_state_as_json() -> dict[str, Any]:
    states = _torch_rng()
    as_lists = {"cpu": states["cpu"].tolist(), "cuda": [state.tolist() for state in states["cuda"]]}
    return {"torch": as_lists, "rng": _capture_python_and_numpy()}


def _tensors_of(lists: Mapping[str, Any]) -> dict[str, Any]:
    return {
        "cpu": torch.tensor(lists["cpu"], dtype=torch.uint8),
        "cuda": [torch.tensor(state, dtype=torch.uint8) for state in lists["cuda"]],
    }


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

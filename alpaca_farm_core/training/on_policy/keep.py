"""Policies that outlive an on-policy run: the policy as Hugging Face folders, in `checkpoints/` and as the best so far.

Folders of the best live in scratch; the checkpoint that names one is written after it, so a resumed run
either finds it or makes it again. Every process calls what writes a policy: a sharded one is put together; process 0
writes.
"""

from __future__ import annotations

import copy
import shutil
from dataclasses import replace
from pathlib import Path

import torch

from alpaca_farm_core.models.loading import LoadedModel, save_policy
from alpaca_farm_core.models.lora import merged
from alpaca_farm_core.models.sharding import whole


class Keeper:
    """Writes and chooses folders of one run."""

    def __init__(
        self, loaded: LoadedModel, stored_dtype: torch.dtype, output: Path, scratch: Path, is_main: bool = True
    ) -> None:
        self._loaded, self._stored_dtype, self._is_main = loaded, stored_dtype, is_main
        self._output, self._scratch = output, scratch / "best"
        self._protected: list[int] = []

    def keep_checkpoint(self, step: int) -> None:
        """Write `checkpoints/step_XXXX` of the artifact."""
        self._write(self._output / "checkpoints" / f"step_{step:04d}")

    def keep_best(self, step: int) -> None:
        """Write the policy as a candidate for the result."""
        self._write(self._best(step))

    def prune(self, best_step: int | None) -> None:
        """Drop candidates that neither the checkpoint just written nor the one before it names."""
        if not self._is_main:
            return
        self._protected = [*self._protected, *([] if best_step is None else [best_step])][-2:]
        names = {self._best(step).name for step in self._protected}
        for folder in self._scratch.glob("step_*"):
            if folder.name not in names:
                shutil.rmtree(folder)

    def publish(self, best_step: int | None) -> None:
        """Write the result to the root of the artifact: the candidate of `best_step`, or the policy as it is (None)."""
        if best_step is None:
            self._write_into(self._output)
        elif self._is_main:
            shutil.copytree(self._best(best_step), self._output, dirs_exist_ok=True)

    def _best(self, step: int) -> Path:
        return self._scratch / f"step_{step:04d}"

    def _write(self, folder: Path) -> None:
        if self._is_main:
            shutil.rmtree(folder, ignore_errors=True)
        self._write_into(folder)

    def _write_into(self, folder: Path) -> None:
        model = whole(self._loaded.model)
        if not self._is_main:
            return
        assert model is not None
        loaded = replace(self._loaded, model=merged(model))
        if loaded.model.dtype != self._stored_dtype:
            loaded = replace(loaded, model=copy.deepcopy(loaded.model).to(self._stored_dtype))
        save_policy(loaded, folder)

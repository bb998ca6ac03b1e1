"""A published weight difference into the store: folders in, a policy or reward model artifact out.

The fingerprint is made of the content of both folders, so the same import is a hit wherever they lie.
"""

from __future__ import annotations

from collections.abc import Mapping
from dataclasses import asdict
from pathlib import Path
from typing import Any

from alpaca_farm_core.artifacts.files import canonical_json, sha256_file, sha256_text
from alpaca_farm_core.artifacts.manifest import Artifact
from alpaca_farm_core.artifacts.store import Store, check_name
from alpaca_farm_core.config.base import Config
from alpaca_farm_core.models.weight_diff import kind_of, recover
from alpaca_farm_core.pipeline.progress import Progress
from alpaca_farm_core.pipeline.run import run_stage
from alpaca_farm_core.pipeline.stage import Stage, StageContext, StageResult

_READ = (".json", ".safetensors", ".model", ".txt")


class WeightDiffConfig(Config):
    """Nothing to set: the two folders decide all."""


def import_weight_diff(store: Store, diff: Path, base: Path, name: str, progress: Progress | None = None) -> Artifact:
    """Recover a model and publish it.

    Raises:
        ModelError: a folder is no model, the two do not fit together, or the integrity sum is another one.
    """
    check_name(name)

    def external(config: Any) -> Mapping[str, str]:
        return {"weight_diff": _content(diff), "base": _content(base)}

    def run(context: StageContext) -> StageResult:
        context.progress.start("Recovering", total=0, unit="tensors")
        recovered = recover(diff, base, context.output, lambda done, total: context.progress.advance(1))
        return StageResult(metrics={key: value for key, value in asdict(recovered).items() if key != "kind"})

    stage = Stage("weight_diff", 1, WeightDiffConfig, {}, kind_of(diff), run, external)
    return run_stage(stage, WeightDiffConfig(), {}, store=store, name=name, progress=progress).artifact


def _content(folder: Path) -> str:
    files = sorted(path for path in folder.iterdir() if path.is_file() and path.suffix in _READ)
    return sha256_text(canonical_json({path.name: sha256_file(path) for path in files}))

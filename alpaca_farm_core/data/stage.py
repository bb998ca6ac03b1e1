"""The dataset stage: instructions from the embedded world, a file or the hub → five disjoint splits."""

from __future__ import annotations

from collections.abc import Mapping
from pathlib import Path
from typing import Any

from alpaca_farm_core.artifacts.files import sha256_file, write_json, write_jsonl
from alpaca_farm_core.data.config import MEADOW, DatasetConfig
from alpaca_farm_core.errors import DataError
from alpaca_farm_core.pipeline.stage import Stage, StageContext, StageResult
from alpaca_farm_core.plugins import DATA_SOURCES, plugin_hash, plugins


def dataset_external(config: DatasetConfig) -> Mapping[str, str]:
    """Return the content hash of a local file or the commit of a hub dataset; nothing for the embedded world.

    Raises:
        DataError: the file or the hub dataset does not exist, or the hub cannot be asked.
    """
    if config.source == MEADOW:
        return {}
    if config.source in plugins(DATA_SOURCES):
        return {"data": plugin_hash(DATA_SOURCES, config.source)}
    if config.is_file:
        path = Path(config.source).expanduser()
        if not path.is_file():
            raise DataError(
                f"There is no data file {path}.", "Check the path; relative paths start at the current folder."
            )
        return {"data": sha256_file(path)}
    from alpaca_farm_core.data.hub import is_commit
    from alpaca_farm_core.data.hub_datasets import locate

    pinned = is_commit(config.revision)
    return {"data": config.revision if pinned else locate(config.source, config.revision)[0]}


def run(context: StageContext) -> StageResult:
    """Write `{sft,preference,unlabeled,val,eval}.jsonl` and `summary.json`."""
    from alpaca_farm_core.data.sources import load_splits

    config: DatasetConfig = context.config
    splits, origin = load_splits(config)
    for split, rows in splits.rows.items():
        write_jsonl(context.output / f"{split}.jsonl", (row.to_row() for row in rows))
    counts: dict[str, Any] = {f"n_{split}": len(rows) for split, rows in splits.rows.items()}
    counts |= {"n_duplicates": splits.n_duplicates, "n_unused": splits.n_unused}
    counts["n_val_without_demonstration"] = sum(not row.output.strip() for row in splits.rows["val"])
    write_json(context.output / "summary.json", {**counts, **origin, "datasets": _by_dataset(splits.rows)})
    dropped = f"; {splits.n_duplicates} duplicates dropped, {splits.n_unused} left over"
    context.progress.say(", ".join(f"{split} {len(rows)}" for split, rows in splits.rows.items()) + dropped)
    return StageResult(metrics=counts)


def _by_dataset(rows: Mapping[Any, list[Any]]) -> dict[str, dict[str, int]]:
    """Count rows by split and source name or task family."""
    table: dict[str, dict[str, int]] = {}
    for split, part in rows.items():
        table[split] = {}
        for row in part:
            table[split][row.dataset] = table[split].get(row.dataset, 0) + 1
    return table


STAGE = Stage(
    name="dataset",
    version=1,
    config_class=DatasetConfig,
    inputs={},
    output="dataset",
    run=run,
    external=dataset_external,
    summary="Instructions in five disjoint splits",
)

"""Instruction datasets on the hub, read from their JSON or Parquet files; a dataset's script is never run.

A name and revision in; rows by the dataset's own splits, or in one list, out. Knows three layouts:
AlpacaFarm's JSON files, the hub's converted Parquet branch, and data files named after their split.
"""

from __future__ import annotations

import re
from collections import defaultdict
from collections.abc import Iterable, Mapping
from dataclasses import dataclass
from pathlib import PurePosixPath
from typing import cast

from alpaca_farm_core.config.base import did_you_mean
from alpaca_farm_core.data.config import FILE_SUFFIXES
from alpaca_farm_core.data.files import read_instruction_file
from alpaca_farm_core.data.hub import fetch_file, list_files
from alpaca_farm_core.errors import DataError
from alpaca_farm_core.types import SPLITS, Instruction, Split

PARQUET_BRANCH = "refs/convert/parquet"
_ALPACA_FARM_CONFIG = "alpaca_instructions"
_ALPACA_FARM_EVALUATION = "alpaca_farm_evaluation"
_SHARD = re.compile(r"-\d{5}-of-\d{5}(-[0-9a-f]+)?$")
_NOT_DATA = ("dataset_infos.json", "dataset_info.json", "config.json", "package.json")


@dataclass(frozen=True)
class HubRows:
    """What was read: `named` when the dataset has our five splits itself, else `rows`."""

    commit: str
    named: Mapping[Split, list[Instruction]]
    rows: list[Instruction]


def read_hub_dataset(name: str, revision: str) -> HubRows:
    """Read a dataset of the hub.

    A dataset with files for all five splits (AlpacaFarm) keeps its splits. Of any other one, the rows of
    `train` are taken, or all rows when there is no such split.

    Raises:
        DataError: as `locate`, or a malformed row.
    """
    commit, layout = locate(name, revision)
    source = name.rpartition("/")[2]
    if set(layout) >= set(SPLITS):
        named = {split: _read(name, commit, layout[split], source) for split in SPLITS}
        return HubRows(commit, named, [])
    chosen = layout["train"] if "train" in layout else sorted(path for paths in layout.values() for path in paths)
    return HubRows(commit, {}, _read(name, commit, chosen, source))


def locate(name: str, revision: str) -> tuple[str, dict[str, list[str]]]:
    """Find the commit to read and its files by split, without downloading any.

    A dataset without readable files (a script that fetches them) is read from the hub's converted branch,
    unless a revision was asked for.

    Raises:
        DataError: unknown name or revision, hub out of reach, no JSON or Parquet files.
    """
    commit, files = list_files(name, revision, "dataset")
    layout = _layout(files)
    if not layout and not revision:
        commit, files = list_files(name, PARQUET_BRANCH, "dataset", "It has no readable files of its own.")
        layout = _layout(files)
    if not layout:
        raise DataError(
            f"The hub dataset '{name}' holds no JSON, JSONL or Parquet files that can be read without running code.",
            f"Try revision '{PARQUET_BRANCH}', or download it, convert it to one of these and give its path.",
        )
    return commit, layout


def locate_part(name: str, revision: str, part: str) -> tuple[str, list[str]]:
    """Find the commit and the files of one part (configuration) of a dataset, without downloading any.

    A file belongs to a part whose name its folder or the file itself has. Where there are no readable files
    and no revision was asked for, the hub's converted branch is searched.

    Raises:
        DataError: unknown name or revision, hub out of reach, or no such part.
    """
    seen: set[str] = set()
    for branch in [revision] if revision else ["", PARQUET_BRANCH]:
        commit, files = list_files(name, branch, "dataset")
        data = [PurePosixPath(path) for path in files if PurePosixPath(path).suffix.lower() in FILE_SUFFIXES]
        found = [path for path in data if part in (config_and_split(path)[0], path.stem)]
        if found:
            return commit, [str(path) for path in sorted(found)]
        seen = {config_and_split(path)[0] or path.stem for path in data if path.name not in _NOT_DATA}
        if seen:
            break
    raise DataError(f"The hub dataset '{name}' has no part '{part}'.", did_you_mean(part, seen) if seen else "")


def _read(name: str, commit: str, paths: Iterable[str], source: str) -> list[Instruction]:
    return [row for path in paths for row in read_instruction_file(fetch_file(name, commit, path, "dataset"), source)]


def _layout(files: Iterable[str]) -> dict[str, list[str]]:
    """Sort data files by split; of AlpacaFarm's many configs, those that its studies start from."""
    found: dict[tuple[str, str], list[str]] = defaultdict(list)
    for path in sorted(files):
        pure = PurePosixPath(path)
        if pure.suffix.lower() in FILE_SUFFIXES and pure.name not in _NOT_DATA and not path.startswith("."):
            found[config_and_split(pure)].append(path)
    return _alpaca_farm(found) or _generic(found)


def config_and_split(path: PurePosixPath) -> tuple[str, str]:
    """Read off which part and split a data file belongs to.

    Knows `config/split.json`, `config/split/0000.parquet`, `config/name-split-00000-of-00001.parquet`.
    """
    stem = _SHARD.sub("", path.stem)
    folders = path.parts[:-1]
    if stem.isdigit() and folders:
        return "/".join(folders[:-1]), folders[-1]
    return "/".join(folders), stem.rpartition("-")[2]


def _alpaca_farm(found: Mapping[tuple[str, str], list[str]]) -> dict[str, list[str]]:
    splits = {split: found.get((_ALPACA_FARM_CONFIG, split), []) for split in SPLITS if split != "eval"}
    evaluation = found.get((_ALPACA_FARM_EVALUATION, "eval")) or found.get(("", _ALPACA_FARM_EVALUATION), [])
    if not evaluation or not all(splits.values()):
        return {}
    return {**cast(dict[str, list[str]], splits), "eval": evaluation}


def _generic(found: Mapping[tuple[str, str], list[str]]) -> dict[str, list[str]]:
    """Merge by split; several configs side by side would mix unlike rows, so only one may be there."""
    configs = {config for config, _ in found if config not in ("", "data")}
    if "default" in configs:
        configs = {"default"}
    if len(configs) > 1:
        raise DataError(
            f"The hub dataset has several parts ({', '.join(sorted(configs))}); which one is meant is unknown.",
            "Download the file of the part you want and give its path.",
        )
    wanted = configs or {"", "data"}
    merged: dict[str, list[str]] = defaultdict(list)
    for (config, split), paths in found.items():
        if config in wanted:
            merged[split].extend(paths)
    return dict(merged)

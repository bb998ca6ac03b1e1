"""The stage of human preferences: a file's or the hub's labelled pairs → the same artifact as simulated ones.

In: nothing from the store; a local file, or one of the hub's AlpacaFarm sets. Out: preferences.jsonl.
"""

from __future__ import annotations

from collections.abc import Mapping
from pathlib import Path
from typing import TYPE_CHECKING, Any

from alpaca_farm_core.annotators.config import HumanPreferencesConfig
from alpaca_farm_core.errors import DataError, MissingAnnotationsError
from alpaca_farm_core.pipeline.stage import Stage, StageContext, StageResult

if TYPE_CHECKING:
    from alpaca_farm_core.data.preference_files import LabelledPair
    from alpaca_farm_core.types import Preference


def _external(config: HumanPreferencesConfig) -> Mapping[str, str]:
    """Content hash of a local file, or the commit of a hub dataset."""
    from alpaca_farm_core.artifacts.files import sha256_file
    from alpaca_farm_core.data.hub import is_commit
    from alpaca_farm_core.data.hub_datasets import locate_part

    if not config.source:
        raise DataError("human_preferences.source is empty.", "Name a file of labelled pairs, or a hub dataset.")
    if not config.is_file:
        pinned = is_commit(config.revision)
        return {"data": config.revision if pinned else locate_part(config.source, config.revision, config.part)[0]}
    path = Path(config.source).expanduser()
    if not path.is_file():
        raise DataError(f"There is no data file {path}.", "Check the path; relative paths start at the current folder.")
    return {"data": sha256_file(path)}


def _run(context: StageContext) -> StageResult:
    from alpaca_farm_core.artifacts.files import write_jsonl
    from alpaca_farm_core.data.preferences import count_labels
    from alpaca_farm_core.seeding import stable_random

    config: HumanPreferencesConfig = context.config
    assert config.seed is not None, "the study fills in the run's seed"
    labelled = _read(config)
    n_source = len(labelled)
    if config.max_rows and n_source > config.max_rows:
        chosen = sorted(stable_random("human preferences", config.seed).sample(range(n_source), config.max_rows))
        labelled = [labelled[index] for index in chosen]
    rows = [_preference(one) for one in labelled]
    counts = count_labels(rows)
    if counts.n_missing > config.max_missing * len(rows):
        raise MissingAnnotationsError(
            f"{counts.n_missing} of {len(rows)} rows have no label; at most {config.max_missing:.1%} may lack one.",
            "Check the file's labels, or raise human_preferences.max_missing to go on without them.",
        )
    write_jsonl(context.output / "preferences.jsonl", [row.to_row() for row in rows])
    metrics: dict[str, Any] = {"n_total": len(rows), "n_source": n_source, **counts.to_json()}
    metrics["n_annotators"] = len({row.annotator for row in rows})
    return StageResult(metrics=metrics, n_missing=counts.n_missing)


def _read(config: HumanPreferencesConfig) -> list[LabelledPair]:
    from alpaca_farm_core.data.hub import fetch_file
    from alpaca_farm_core.data.hub_datasets import locate_part
    from alpaca_farm_core.data.preference_files import read_labelled_pairs

    if config.is_file:
        return read_labelled_pairs(Path(config.source).expanduser())
    commit, paths = locate_part(config.source, config.revision, config.part)
    files = [fetch_file(config.source, commit, path, "dataset") for path in paths]
    return [row for file in files for row in read_labelled_pairs(file)]


def _preference(one: LabelledPair) -> Preference:
    """Make the artifact's row; one without a label keeps its place, as a failed one."""
    from alpaca_farm_core.types import Annotation, Preference

    annotator = one.annotator or "human"
    if one.preference is None:
        return Preference.of(one.pair, Annotation(None, annotator, "failed", "the source has no label"))
    return Preference.of(one.pair, Annotation(one.preference, annotator))


STAGE_HUMAN = Stage(
    name="human_preferences",
    version=1,
    config_class=HumanPreferencesConfig,
    inputs={},
    output="preferences",
    run=_run,
    external=_external,
    summary="Take labelled pairs from a file or the hub.",
)

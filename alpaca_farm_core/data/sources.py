"""One door to all sources of instructions: a dataset config in, five splits and their origin out."""

from __future__ import annotations

from pathlib import Path

from alpaca_farm_core.data.config import MEADOW, DatasetConfig
from alpaca_farm_core.data.files import read_instruction_file
from alpaca_farm_core.data.hub_datasets import read_hub_dataset
from alpaca_farm_core.data.splits import Splits, split_rows, take_splits
from alpaca_farm_core.errors import DataError
from alpaca_farm_core.plugins import DATA_SOURCES, load_plugin, plugins
from alpaca_farm_core.types import Instruction


def load_splits(config: DatasetConfig) -> tuple[Splits, dict[str, str]]:
    """Read the source and split it.

    Returns:
        The splits, and where they came from: `source` (a file by its name only), `revision` of a hub dataset.

    Raises:
        DataError: the source is missing or malformed, or too small for the splits.
    """
    assert config.seed is not None, "the study fills in the run's seed"
    if config.source == MEADOW:
        return _grow_meadow(config, config.seed), {"source": MEADOW, "revision": ""}
    if config.source in plugins(DATA_SOURCES):
        rows = _plugin_rows(config.source)
        return split_rows(rows, config.sizes, config.max_rows, config.seed), {"source": config.source, "revision": ""}
    if config.is_file:
        path = Path(config.source).expanduser()
        rows = read_instruction_file(path, path.stem)
        return split_rows(rows, config.sizes, config.max_rows, config.seed), {"source": path.name, "revision": ""}
    read = read_hub_dataset(config.source, config.revision)
    origin = {"source": config.source, "revision": read.commit}
    if read.named:
        return take_splits(read.named, config.sizes, config.max_rows, config.seed), origin
    return split_rows(read.rows, config.sizes, config.max_rows, config.seed), origin


def _plugin_rows(name: str) -> list[Instruction]:
    """Call a data source of another package: a function without arguments that gives `Instruction`s."""
    rows = list(load_plugin(DATA_SOURCES, name)())
    bad = next((row for row in rows if not isinstance(row, Instruction)), None)
    if bad is not None or not rows:
        found = "no rows" if bad is None else f"a row that is {bad!r:.80}"
        raise DataError(f"The data source '{name}' gave {found}.", "It must give alpaca_farm_core.types.Instruction.")
    return rows


def _grow_meadow(config: DatasetConfig, seed: int) -> Splits:
    """Generate the embedded world; its grammar repeats no instruction."""
    from alpaca_farm_core.meadow.world import make_world

    settings = config.meadow
    if settings.seed is None:
        settings = settings.model_copy(update={"seed": seed})
    return Splits(make_world(settings), n_duplicates=0, n_unused=0)

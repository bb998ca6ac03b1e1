"""Where instructions come from and how they are split. No torch, no datasets library here."""

from __future__ import annotations

from pathlib import Path
from typing import Self

from pydantic import model_validator

from alpaca_farm_core.config.base import Config, Field, did_you_mean
from alpaca_farm_core.meadow.config import MeadowConfig
from alpaca_farm_core.plugins import DATA_SOURCES, plugins

MEADOW = "meadow"
FILE_SUFFIXES = (".json", ".jsonl", ".parquet")


class SplitSizes(Config):
    """Rows of each split; 0 = the split's share of what the source has, in AlpacaFarm's proportions."""

    sft: int = Field(0, ge=0, description="Rows with demonstrations for supervised fine-tuning (share 10).")
    preference: int = Field(0, ge=0, description="Instructions to sample and judge pairs for (share 20).")
    unlabeled: int = Field(0, ge=0, description="Instructions to roll out on (share 20).")
    val: int = Field(0, ge=0, description="Instructions for validation (share 2).")
    eval: int = Field(0, ge=0, description="Held-out instructions for evaluation (share 0.8).")


class DatasetConfig(Config):
    """The dataset stage."""

    source: str = Field(
        MEADOW,
        min_length=1,
        description="'meadow' (the embedded world), a local .json, .jsonl or .parquet file, "
        "a hub dataset 'owner/name' such as 'tatsu-lab/alpaca_farm', or the name of an installed package's source.",
    )
    revision: str = Field("", description="Branch, tag or commit of a hub dataset; empty = main.")
    sizes: SplitSizes = Field(default_factory=SplitSizes, description="Split sizes of a file or hub dataset.")
    max_rows: int = Field(0, ge=0, description="Use a seeded subset of at most this many rows; 0 = all.")
    seed: int | None = Field(None, description="Decides which row falls into which split; none = the run's seed.")
    meadow: MeadowConfig = Field(
        default_factory=MeadowConfig, description="The embedded world; read for source 'meadow'."
    )

    @property
    def is_file(self) -> bool:
        """Whether the source is a local file."""
        return Path(self.source).suffix.lower() in FILE_SUFFIXES

    @model_validator(mode="after")
    def source_is_meadow_file_or_hub_name(self) -> Self:
        """Refuse what could be none of the three, so that a misspelt word is not asked of the hub."""
        owner, _, name = self.source.partition("/")
        looks_like_hub = bool(owner and name) and "/" not in name and not self.source.startswith((".", "~"))
        installed = plugins(DATA_SOURCES)
        if self.source != MEADOW and not self.is_file and not looks_like_hub and self.source not in installed:
            hint = did_you_mean(self.source, [MEADOW, *installed])
            raise ValueError(
                f"'{self.source}' is neither 'meadow', nor a {', '.join(FILE_SUFFIXES)} file, nor a hub dataset "
                f"'owner/name'. {hint if hint.startswith('Did') else ''}".strip()
            )
        return self

    @model_validator(mode="after")
    def meadow_has_sizes_of_its_own(self) -> Self:
        """The world is generated in the sizes asked for; it is not cut afterwards."""
        if self.source == MEADOW and (self.max_rows or any(self.sizes.model_dump().values())):
            raise ValueError(
                "with source 'meadow' set meadow.n_sft, meadow.n_preference … instead of sizes or max_rows"
            )
        return self

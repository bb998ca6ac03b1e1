"""Settings of annotators and of the preferences stage (light: loads no client).

Where a judge is served and how many calls are in flight are execution settings; the API key comes from
the environment alone.
"""

from __future__ import annotations

from pathlib import Path
from typing import Self

from pydantic import model_validator

from alpaca_farm_core.config.base import Config, Field, did_you_mean
from alpaca_farm_core.errors import ConfigError

ORACLE = "oracle"


class JudgeModels(Config):
    """The models behind the built-in annotators, by role: the one place to map them to other ones."""

    strong: str = Field("gpt-4.1", min_length=1, description="The best judge; stands where the paper had GPT-4.")
    cheap: str = Field("gpt-4.1-mini", min_length=1, description="A weaker, cheaper one; where it had ChatGPT.")
    small: str = Field(
        "gpt-4o-mini", min_length=1, description="A small one of another generation; where it had text-davinci-003."
    )

    def of_role(self, role: str, place: str) -> str:
        """Return the model of a role; `place` is named in errors.

        Raises:
            ConfigError: there is no such role.
        """
        models = {"strong": self.strong, "cheap": self.cheap, "small": self.small}
        if role not in models:
            raise ConfigError(f"{place}: unknown model_role '{role}'.", did_you_mean(role, models))
        return models[role]


class AnnotatorConfig(Config):
    """Who judges, and how noisily."""

    name: str = Field(
        ORACLE,
        min_length=1,
        description="'oracle' (gold utility of the embedded world), a built-in LLM annotator ('greedy', 'explained', "
        "'weighted', 'local'), the 'pool' of thirteen, or a folder with a configs.yaml in AlpacaEval's schema (written "
        "with a '/').",
    )
    model: str = Field(
        "", description="Judge model to ask instead of the annotator's own (of a pool: of every member's); empty = own."
    )
    models: JudgeModels = Field(
        default_factory=JudgeModels, description="What the built-in annotators' model roles stand for."
    )
    both_orders: bool = Field(
        False,
        description="Judge each pair twice, in both orders, and take the mean: no position bias, at twice the price.",
    )
    structured: bool = Field(
        True, description="Ask for answers in the annotator's JSON schema; false for servers that refuse schemas."
    )
    token_bias: bool = Field(
        True, description="Apply tokens_to_favor and tokens_to_avoid of AlpacaEval's files (needs tiktoken)."
    )
    label_flip: float = Field(
        0.0,
        ge=0,
        le=0.5,
        description="Share of labels flipped in expectation, as people disagree; 0 = none. For training labels only.",
    )
    max_missing: float = Field(0.02, ge=0, le=1, description="Largest share of pairs that may stay without annotation.")
    oracle_temperature: float = Field(
        0.07,
        ge=0,
        description="The oracle's Bradley-Terry noise, in units of utility; 0 = always the better answer. Utilities "
        "lie in about [0, 1] and answers of one policy some hundredths to tenths apart: at 0.07 a gap of 0.1 is judged "
        "right 81 times of 100, at 1.0 only 52 times, hardly better than a coin.",
    )
    seed: int | None = Field(None, description="Seed of order, noise and oracle; none = the run's seed.")

    @model_validator(mode="after")
    def the_oracle_has_no_model(self) -> Self:
        """Refuse a judge model for the oracle, which would not be asked."""
        if self.model and self.name == ORACLE:
            raise ValueError("the oracle asks no model; set annotator.name to an LLM annotator such as 'greedy'")
        return self

    @model_validator(mode="after")
    def the_oracle_reads_both_outputs_at_once(self) -> Self:
        """Refuse to show the oracle a pair twice, which would change nothing."""
        if self.both_orders and self.name == ORACLE:
            raise ValueError("the oracle reads both outputs at once; both_orders is for LLM annotators")
        return self

    def seeded(self, run_seed: int) -> AnnotatorConfig:
        """Return this config with `run_seed` where it has no seed of its own."""
        return self if self.seed is not None else self.model_copy(update={"seed": run_seed})


class PreferencesConfig(Config):
    """How sampled answers become annotated pairs."""

    annotator: AnnotatorConfig = Field(default_factory=AnnotatorConfig, description="Who judges the pairs.")
    pairs_per_instruction: int = Field(
        1, ge=1, description="Pairs made from the samples of one instruction; each sample is used at most once."
    )
    seed: int | None = Field(None, description="Seed of the pairing of more than two samples; none = the run's seed.")


class HumanPreferencesConfig(Config):
    """Labels of people, or of others, that take the place of simulated ones."""

    source: str = Field(
        "",
        description="A .json, .jsonl or .parquet file of labelled pairs, or a hub dataset 'owner/name' such as "
        "'tatsu-lab/alpaca_farm'; empty = simulate them.",
    )
    part: str = Field(
        "alpaca_human_preference",
        min_length=1,
        description="Part of a hub dataset; AlpacaFarm has alpaca_human_preference, alpaca_noisy_multi_preference "
        "and alpaca_gpt4_preference.",
    )
    revision: str = Field("", description="Branch, tag or commit of a hub dataset; empty = main.")
    max_rows: int = Field(0, ge=0, description="Use a seeded subset of at most this many rows; 0 = all.")
    max_missing: float = Field(0.02, ge=0, le=1, description="Largest share of rows that may be without a label.")
    seed: int | None = Field(None, description="Of the subset; none = the run's seed.")

    @property
    def is_file(self) -> bool:
        """Whether the source is a local file."""
        return Path(self.source).suffix.lower() in (".json", ".jsonl", ".parquet")

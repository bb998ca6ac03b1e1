"""Settings of sampling: how tokens are drawn, and for which instructions. No torch here."""

from __future__ import annotations

from typing import Literal

from alpaca_farm_core.config.base import Config, Field
from alpaca_farm_core.types import Split

Precision = Literal["float32", "bfloat16"]


class SamplingConfig(Config):
    """How one token is drawn after the other."""

    temperature: float = Field(1.0, ge=0, description="Divides the logits; 0 = always the likeliest token.")
    top_p: float = Field(
        1.0, gt=0, le=1, description="Smallest set of likeliest tokens with this probability; 1 = all."
    )
    top_k: int = Field(0, ge=0, description="Only this many likeliest tokens; 0 = all.")
    max_new_tokens: int = Field(300, ge=1, description="Tokens of a response at most, EOS included.")


class GenerateConfig(SamplingConfig):
    """Answers of a policy to a split of the dataset."""

    seed: int | None = Field(None, description="Seed of the draws; none = the run's seed.")
    split: Split = Field("preference", description="Split whose instructions are answered.")
    n: int = Field(2, ge=1, description="Answers per instruction.")
    limit: int = Field(0, ge=0, description="Only the first so many instructions of the split; 0 = all.")
    generator: str = Field("", description="Name of the model in the rows; empty = the stage that made the policy.")
    precision: Precision = Field("float32", description="Precision of the arithmetic while decoding.")


class SampleConfig(GenerateConfig):
    """Several samples per instruction, to be compared with each other."""


class ApiOutputsConfig(Config):
    """Answers of a model behind an OpenAI-compatible API, as the paper's rows of ChatGPT and GPT-4."""

    model: str = Field("", description="Model as the server knows it; a comparison fills in those it was given.")
    split: Split = Field("eval", description="Split whose instructions are answered.")
    limit: int = Field(0, ge=0, description="Only the first so many instructions of the split; 0 = all.")
    template: str = Field("alpaca", description="Prompt: alpaca, plain, or a JSON file with your own.")
    system: str = Field("", description="Said before the prompt, a limit on the length for example; empty = nothing.")
    temperature: float = Field(0.7, ge=0, description="As sent; the paper decodes at 0.7.")
    max_tokens: int = Field(300, ge=1, description="Tokens of an answer at most, as sent.")
    max_missing: float = Field(
        0.02, ge=0, le=1, description="Largest share of instructions that may stay without answer."
    )


class DecodeConfig(GenerateConfig):
    """One answer per held-out instruction, as the paper evaluates: temperature 0.7."""

    temperature: float = Field(0.7, ge=0, description="Divides the logits; 0 = always the likeliest token.")
    split: Split = Field("eval", description="Split whose instructions are answered.")
    n: int = Field(1, ge=1, description="Answers per instruction.")

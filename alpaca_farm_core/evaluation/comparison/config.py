"""Settings of the stages `measure` and `comparison` (light)."""

from __future__ import annotations

from alpaca_farm_core.config.base import Config, Field
from alpaca_farm_core.generation.config import Precision
from alpaca_farm_core.types import Split


class MeasureConfig(Config):
    """Proxy reward of a method's answers, and the KL of its policy from the reference on fresh samples."""

    seed: int | None = Field(None, description="Seed of the samples; none = the run's seed.")
    split: Split = Field("val", description="Split whose instructions are answered to measure the KL.")
    limit: int = Field(256, ge=1, description="Only the first so many instructions of the split.")
    temperature: float = Field(1.0, gt=0, description="Divides the logits, of both policies.")
    max_new_tokens: int = Field(300, ge=1, description="Tokens of a response at most, EOS included.")
    precision: Precision = Field("float32", description="Precision of the arithmetic.")


class ComparisonConfig(Config):
    """What the page is called, and whether the paper's table stands beside ours."""

    title: str = Field("Methods compared", description="Heading of the page.")
    methods: tuple[str, ...] = Field((), description="Names of the methods, in the order of the command.")
    seeds: tuple[int, ...] = Field((), description="Seeds; each is a whole chain from SFT on.")
    paper_table: bool = Field(
        False, description="Show the paper's win rates against Davinci003; for studies of the same model and data."
    )

"""Settings of the embedded world: how many instructions, how crowds answer, what evaluation holds out.

Light: reading these settings loads no other part of the meadow. The seed decides every text.
"""

from __future__ import annotations

from pydantic import model_validator

from alpaca_farm_core.config.base import Config, Field


class DemonstrationConfig(Config):
    """How often a crowd's demonstration has each flaw; flaws are drawn independently, as shares in [0, 1]."""

    incomplete: float = Field(0.6, ge=0, le=1, description="Leaves out something that was asked for.")
    curt: float = Field(0.1, ge=0, le=1, description="Answers with a fragment, or without greeting and closing.")
    repeated: float = Field(0.2, ge=0, le=1, description="Says a sentence twice.")
    rambling: float = Field(0.12, ge=0, le=1, description="Adds a sentence that says nothing.")
    sloppy: float = Field(0.06, ge=0, le=1, description="Forgets the capital letter or the last full stop.")
    wrong: float = Field(0.02, ge=0, le=1, description="Gets a fact wrong.")


class MeadowConfig(Config):
    """Sizes of the splits (in instructions), seed, demonstrations, and what evaluation holds out."""

    seed: int | None = Field(None, description="Decides every text of the world; none = the run's seed.")
    n_sft: int = Field(4000, ge=1, description="Instructions with a demonstration, for supervised fine-tuning.")
    n_preference: int = Field(2000, ge=1, description="Instructions to sample pairs for.")
    n_unlabeled: int = Field(3000, ge=1, description="Instructions to roll out on.")
    n_val: int = Field(200, ge=1, description="Instructions to choose checkpoints on; same combinations as training.")
    n_eval: int = Field(256, ge=2, description="Held-out instructions: unseen combinations and one unseen family.")
    held_out_combinations: float = Field(
        0.15, gt=0, lt=0.5, description="Share of each family's slot combinations that only evaluation sees."
    )
    held_out_family: float = Field(0.15, gt=0, lt=1, description="Share of evaluation taken by the unseen family.")
    demonstrations: DemonstrationConfig = Field(
        default_factory=DemonstrationConfig, description="Quality of the crowd's demonstrations."
    )

    @model_validator(mode="after")
    def evaluation_holds_both_kinds(self) -> MeadowConfig:
        """Evaluation needs at least one instruction of the unseen family and one of a seen family."""
        if not 0 < round(self.n_eval * self.held_out_family) < self.n_eval:
            raise ValueError(f"n_eval={self.n_eval} is too small for held_out_family={self.held_out_family}")
        return self

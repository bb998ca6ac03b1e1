"""Settings of re-evaluation (light): which models, against what, and what is an alarm.

`ReevaluateConfig` is for people. The two stage configs are made from it by the composition: what they
hold besides says which check it is, so that the same check is found and another one is made.
"""

from __future__ import annotations

from typing import Literal

from alpaca_farm_core.annotators.config import AnnotatorConfig
from alpaca_farm_core.config.base import Config, Field

CompareWith = Literal["previous", "best"]


class ReevaluateConfig(Config):
    """Which policies are evaluated again, and when that raises an alarm."""

    policies: tuple[str, ...] = Field((), description="Policies by name, name@vN or name@alias; empty = see alias.")
    alias: str = Field("", description="Every policy that has this alias; empty = see last_days.")
    last_days: float = Field(
        7.0, ge=0, description="Newest version of each policy made in so many days; 0 = however old."
    )
    reference: str = Field(
        "",
        description="Policy or outputs that all are compared with; empty = the SFT model each comes from. Name a fixed "
        "version: win rates against another reference are not comparable.",
    )
    data: str = Field("", description="Dataset whose instructions are answered; empty = the one each was trained on.")
    drop_standard_errors: float = Field(
        3.0, gt=0, description="A model that falls by more than so many standard errors raises an alarm."
    )
    compare_with: CompareWith = Field(
        "previous", description="What a model's win rate is compared with: its last one, or its best one so far."
    )
    anchors: int = Field(
        50, ge=0, description="Pairs that the judge is asked about again to see whether it drifts; 0 = none."
    )
    drift_tolerance: float = Field(
        0.1, ge=0, le=1, description="Share of anchors that may change sides; a judge that is sampled needs more."
    )
    restart_anchors: bool = Field(
        False, description="Take the judge as it is now for the right one, and begin a new record. For one run."
    )
    every_hours: float = Field(
        20.0,
        ge=0,
        description="The judge is not asked about the anchors again, and nothing is noted where nothing has changed, "
        "before so many hours have passed; 0 = at every run.",
    )
    fail_on_alarm: bool = Field(False, description="End the run as Failed when there is an alarm.")


class AnchorsConfig(Config):
    """One round of questions about the anchors."""

    annotator: AnnotatorConfig = Field(default_factory=AnnotatorConfig, description="The judge.")
    count: int = Field(50, ge=1, description="Pairs at most, for the first round.")
    tolerance: float = Field(0.1, ge=0, le=1, description="Share of anchors that may change sides.")
    record: str = Field("", description="Name of the record: two that ask about the same pairs are two.")
    series: int = Field(0, ge=0, description="Raised when the record begins anew.")
    round: int = Field(0, ge=0, description="Round of the series.")
    hour: str = Field("", description="Hour of the round, ISO 8601: a round cut off goes on within it.")
    changed: tuple[str, ...] = Field((), description="Settings of the judge that differ from the series before.")


class HistoryConfig(Config):
    """One check: a line of the history."""

    at: str = Field("", description="When the check was made, ISO 8601, UTC.")
    models: dict[str, str] = Field(default_factory=dict, description="Model → the version that was evaluated.")
    skipped: dict[str, str] = Field(default_factory=dict, description="Policy that was not evaluated → why.")
    drop_standard_errors: float = Field(3.0, gt=0, description="See ReevaluateConfig.")
    compare_with: CompareWith = Field("previous", description="See ReevaluateConfig.")

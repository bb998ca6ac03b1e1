"""The stage `slic`: policy, preferences and dataset in, policy out; and the method as data. Imports no torch."""

from alpaca_farm_core.config.base import Field
from alpaca_farm_core.methods.method import Method
from alpaca_farm_core.methods.sft.config import FineTuneConfig
from alpaca_farm_core.pipeline.stage import Stage


class SLiCConfig(FineTuneConfig):
    """Settings of SLiC; those of the loop, of LoRA and of the samples for people come with the class."""

    epochs: int = Field(1, ge=1, description="Passes over the pairs.")
    margin: float = Field(1.0, gt=0, description="Wanted difference of log-probabilities, in nats (δ).")
    tie: float = Field(0.1, ge=0, description="Weight of the preferred answer's own log-probability (λ).")
    max_length: int = Field(512, ge=2, description="Tokens of prompt and response; longer pairs are dropped, counted.")


def _run(context):
    from slic.train import train

    return train(context)


STAGE = Stage(
    name="slic",
    version=1,
    config_class=SLiCConfig,
    inputs={"policy": "policy", "preferences": "preferences", "data": "dataset"},
    output="policy",
    run=_run,
    trains=True,
    summary="Calibrate the policy's likelihoods to the preferences.",
)

METHOD = Method.of_stage(STAGE, "SLiC", "Sequence likelihood calibration with human feedback.")

"""Supervised fine-tuning: dataset artifact and base model in, policy folder with metrics and samples out.

Follows AlpacaFarm's SFT10k (Taori et al. 2023): next-token loss on the response and its EOS. It differs:
1. the loss of a step is a mean over its response tokens, whatever the micro-batches and processes;
2. rows that are too long are dropped and counted, not cut;
3. prompt and response are tokenised apart, so that no token spans both.
"""

from __future__ import annotations

from alpaca_farm_core.methods.sft.config import SFTConfig
from alpaca_farm_core.methods.sft.finetune import demonstrations, fine_tune
from alpaca_farm_core.methods.supervised import Trainee
from alpaca_farm_core.models.loading import load_base
from alpaca_farm_core.pipeline.stage import StageContext, StageResult
from alpaca_farm_core.training.launch import start_workers


def train(context: StageContext) -> StageResult:
    """Body of the stage `sft`.

    Raises:
        DataError: a split is missing or empty, or no row fits into `model.max_length`.
        ModelError: the base model cannot be used.
        TrainingDivergedError: loss or gradient became NaN or infinite.
    """
    config: SFTConfig = context.config
    workers, execution = start_workers(context.execution, config.precision)
    assert config.seed is not None
    # 1. the base model
    loaded = load_base(config.model, context.inputs["data"].path, execution, config.seed)
    trainee = Trainee(loaded, workers, execution)
    # 2. the rows
    training = demonstrations(context, trainee, config.split, config.model.max_length)
    heldout = demonstrations(context, trainee, config.eval_split, config.model.max_length)
    # 3. the loop and the artifact
    return fine_tune(context, trainee, training, heldout)

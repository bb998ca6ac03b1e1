"""One round of expert iteration: a policy and its best-of-n answers in, the policy fine-tuned on them out.

Follows AlpacaFarm section 4 and its README recipe: best-of-n on the unlabeled split, then SFT from the SFT
model. It differs:
1. an answer cut off at the token limit is not closed by EOS (`unfinished = "close"` does that);
2. several rounds are possible, each sampling from the policy of the round before and training it further.
"""

from __future__ import annotations

from alpaca_farm_core.data.rows import read_outputs
from alpaca_farm_core.errors import DataError
from alpaca_farm_core.methods.expert_iteration.config import ExpertIterationConfig
from alpaca_farm_core.methods.sft.finetune import Answer, chosen_rows, demonstrations, fine_tune
from alpaca_farm_core.methods.supervised import load_trainee
from alpaca_farm_core.pipeline.stage import StageContext, StageResult


def train(context: StageContext) -> StageResult:
    """Body of the stage `expert_iteration`.

    Raises:
        DataError: no answer is left to learn from, or none fits.
        ModelError: the policy cannot be loaded.
        TrainingDivergedError: loss or gradient became NaN or infinite.
    """
    config: ExpertIterationConfig = context.config
    outputs = read_outputs(context.inputs["samples"].path / "outputs.jsonl")
    n_unfinished = sum(not row.finished for row in outputs)
    kept = [row for row in outputs if row.finished or config.unfinished != "drop"]
    if not kept:
        raise DataError(
            f"None of the {len(outputs)} chosen answers ends within its token limit; there is nothing to learn.",
            "Raise expert_samples.max_new_tokens, or set expert_iteration.unfinished to 'keep'.",
        )
    close = config.unfinished == "close"
    answers = [Answer(row.instruction, row.input, row.output, row.finished or close) for row in kept]
    trainee = load_trainee(context)
    training = chosen_rows(context, trainee, answers)
    heldout = demonstrations(context, trainee, config.eval_split, config.max_length)
    counts = {"round": config.rounds, "n_unfinished": n_unfinished, "n_dropped": len(outputs) - len(kept)}
    return fine_tune(context, trainee, training, heldout, counts)

"""Binary FeedME: policy and preferences in, the policy fine-tuned on the preferred answers out.

Follows the description in Dubois et al. 2023 (AlpacaFarm), section 4, after OpenAI's FeedME: supervised
fine-tuning goes on, on the preferred answer of each pair. No code or hyper-parameters were released, so:
1. the loss, its masking and the defaults are those of SFT;
2. ties and pairs without annotation teach nothing here: they are left out and counted;
3. a preferred answer that was cut off at the token limit is learnt without EOS.
"""

from __future__ import annotations

from alpaca_farm_core.data.preferences import usable_preferences
from alpaca_farm_core.data.rows import read_preferences
from alpaca_farm_core.methods.feedme.config import FeedMEConfig
from alpaca_farm_core.methods.sft.finetune import Answer, chosen_rows, demonstrations, fine_tune
from alpaca_farm_core.methods.supervised import load_trainee
from alpaca_farm_core.pipeline.stage import StageContext, StageResult
from alpaca_farm_core.types import Preference


def train(context: StageContext) -> StageResult:
    """Body of the stage `feedme`.

    Raises:
        DataError: no pair has a winner, or no winner fits.
        ModelError: the policy cannot be loaded.
        TrainingDivergedError: loss or gradient became NaN or infinite.
    """
    config: FeedMEConfig = context.config
    rows = read_preferences(context.inputs["preferences"].path / "preferences.jsonl")
    decided, labels = usable_preferences(rows, "drop")
    trainee = load_trainee(context)
    training = chosen_rows(context, trainee, [preferred(row) for row in decided])
    heldout = demonstrations(context, trainee, config.eval_split, config.max_length)
    counts = {"n_ties": labels.n_ties, "n_missing": labels.n_missing}
    return fine_tune(context, trainee, training, heldout, counts)


def preferred(row: Preference) -> Answer:
    """The better answer of a pair that is no tie."""
    assert row.preference is not None
    second = row.preference > 1.5
    output, finished = (row.output_2, row.finished_2) if second else (row.output_1, row.finished_1)
    return Answer(row.instruction, row.input, output, finished)

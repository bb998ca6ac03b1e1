"""Fine-tuning on rows of prompt and response: which rows, and the objective on them; the rest is `supervised`.

SFT learns a split's demonstrations; expert iteration, FeedME and reward conditioning go on with answers chosen by
feedback. The held-out loss is that of demonstrations in all of them.
"""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from typing import Any, NamedTuple

from alpaca_farm_core.data.prompts import PromptTemplate
from alpaca_farm_core.data.rows import read_split
from alpaca_farm_core.data.tokenise import TokenisedRows, tokenise_demonstrations, tokenise_responses
from alpaca_farm_core.errors import DataError
from alpaca_farm_core.methods.sft.config import ContinueConfig
from alpaca_farm_core.methods.sft.objective import DemonstrationLoss
from alpaca_farm_core.methods.supervised import Trainee, train_policy
from alpaca_farm_core.pipeline.stage import StageContext, StageResult
from alpaca_farm_core.types import Split


class Answer(NamedTuple):
    """One answer to learn; EOS is learnt behind it exactly when it is `finished`."""

    instruction: str
    input: str
    output: str
    finished: bool


def fine_tune(
    context: StageContext,
    trainee: Trainee,
    training: TokenisedRows,
    heldout: TokenisedRows,
    counts: Mapping[str, Any] | None = None,
) -> StageResult:
    """Train a policy on rows.

    Args:
        context: Of the stage; its config is a `FineTuneConfig`.
        trainee: What is trained.
        training: Rows to learn.
        heldout: Rows to measure the loss on; may be empty.
        counts: Further metrics of the artifact.

    Raises:
        TrainingDivergedError: loss or gradient became NaN or infinite.
    """
    sizes = {
        "n_rows": len(training),
        "n_too_long": training.n_too_long,
        "n_eval_rows": len(heldout),
        "n_eval_too_long": heldout.n_too_long,
    }
    budget = trainee.execution.micro_batch_tokens
    objective = DemonstrationLoss(trainee.loaded.model, training, heldout, trainee.pad_id, budget)
    return train_policy(context, trainee, objective, {**(counts or {}), **sizes})


def demonstrations(context: StageContext, trainee: Trainee, split: Split, max_length: int) -> TokenisedRows:
    """Tokenise a split's demonstrations; rows beyond `max_length` or the model's context are dropped and counted.

    Raises:
        DataError: the split is empty or no row fits.
    """
    rows = read_split(context.inputs["data"].path, split)
    if not rows:
        raise DataError(f"The split '{split}' has no rows.", "Choose another split or another dataset.")
    limit = min(max_length, trainee.context_length)
    tokenised = tokenise_demonstrations(trainee.loaded.tokenizer, trainee.loaded.template, rows, limit)
    _say_dropped(context, split, tokenised, limit)
    return tokenised


def chosen_rows(
    context: StageContext, trainee: Trainee, answers: Sequence[Answer], template: PromptTemplate | None = None
) -> TokenisedRows:
    """Tokenise answers with the policy's template, or another; rows that do not fit are dropped and counted.

    Raises:
        DataError: no row fits.
    """
    config: ContinueConfig = context.config
    limit = min(config.max_length, trainee.context_length)
    shown = template or trainee.loaded.template
    prompts = [shown.render(answer.instruction, answer.input) for answer in answers]
    outputs, finished = [answer.output for answer in answers], [answer.finished for answer in answers]
    rows = tokenise_responses(trainee.loaded.tokenizer, prompts, outputs, finished, limit)
    _say_dropped(context, "answers", rows, limit)
    return rows


def _say_dropped(context: StageContext, what: str, rows: TokenisedRows, limit: int) -> None:
    if rows.n_too_long:
        n_all = len(rows) + rows.n_too_long
        context.progress.say(f"{what}: {rows.n_too_long} of {n_all} rows exceed {limit} tokens and are dropped.")

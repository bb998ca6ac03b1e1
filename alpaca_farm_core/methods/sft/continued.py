"""Continued fine-tuning of a policy on chosen answers: what expert iteration, FeedME and reward conditioning share.

In: a stage's context with the roles `policy` and `data`, and rows of prompt, answer and whether it ends. Out:
tokenised rows. The held-out loss is that of the dataset's demonstrations, as in SFT.
"""

from __future__ import annotations

from collections.abc import Sequence
from typing import NamedTuple

from alpaca_farm_core.data.prompts import PromptTemplate
from alpaca_farm_core.data.tokenise import TokenisedRows, tokenise_responses
from alpaca_farm_core.generation.answers import context_length
from alpaca_farm_core.methods.sft.config import ContinueConfig
from alpaca_farm_core.methods.sft.finetune import Trainee, say_dropped
from alpaca_farm_core.models.loading import load_policy
from alpaca_farm_core.pipeline.stage import StageContext
from alpaca_farm_core.training.launch import start_workers


class Answer(NamedTuple):
    """One answer to learn; EOS is learnt behind it exactly when it is `finished`."""

    instruction: str
    input: str
    output: str
    finished: bool


def load_trainee(context: StageContext) -> Trainee:
    """The stage's policy, ready to be trained.

    Raises:
        ModelError: the policy cannot be loaded.
    """
    workers, execution = start_workers(context.execution, context.config.precision)
    return Trainee(load_policy(context.inputs["policy"].path, execution), workers, execution)


def chosen_rows(
    context: StageContext, trainee: Trainee, answers: Sequence[Answer], template: PromptTemplate | None = None
) -> TokenisedRows:
    """Tokenise answers with the policy's template, or another; rows that do not fit are dropped and counted.

    Raises:
        DataError: no row fits.
    """
    config: ContinueConfig = context.config
    loaded = trainee.loaded
    limit = min(config.max_length, context_length(loaded.model))
    shown = template or loaded.template
    prompts = [shown.render(answer.instruction, answer.input) for answer in answers]
    outputs, finished = [answer.output for answer in answers], [answer.finished for answer in answers]
    rows = tokenise_responses(loaded.tokenizer, prompts, outputs, finished, limit)
    say_dropped(context, "answers", rows, limit)
    return rows

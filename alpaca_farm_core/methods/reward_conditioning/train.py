"""Binary reward conditioning: policy and preferences in, a policy whose prompts end with the good token out.

Follows the description in Dubois et al. 2023 (AlpacaFarm), section 4, after Keskar et al. 2019 and Korbak et
al. 2023: both answers of a pair are learnt, each behind a token that says whether it was preferred; at decoding
the good token is given. No code or hyper-parameters were released, so:
1. the token is the last of the prompt, right before the answer, and is itself no target;
2. both are new special tokens whose embeddings start at the mean of the old ones;
3. the saved prompt template ends with the good token, so that whatever decodes the policy conditions on it;
4. ties and pairs without annotation are left out and counted; the rest is as in SFT.
"""

from __future__ import annotations

from dataclasses import replace

from alpaca_farm_core.data.preferences import usable_preferences
from alpaca_farm_core.data.prompts import PromptTemplate
from alpaca_farm_core.data.rows import read_preferences
from alpaca_farm_core.data.tokenise import TokenisedRows
from alpaca_farm_core.methods.reward_conditioning.config import RewardConditioningConfig
from alpaca_farm_core.methods.sft.finetune import Answer, chosen_rows, demonstrations, fine_tune
from alpaca_farm_core.methods.supervised import Trainee, load_trainee
from alpaca_farm_core.models.tokens import add_special_tokens, follow_template
from alpaca_farm_core.pipeline.stage import StageContext, StageResult
from alpaca_farm_core.types import Preference


def train(context: StageContext) -> StageResult:
    """Body of the stage `reward_conditioning`.

    Raises:
        DataError: no pair has a winner, or no answer fits.
        ModelError: the policy cannot be loaded, or has one of the tokens already.
        TrainingDivergedError: loss or gradient became NaN or infinite.
    """
    config: RewardConditioningConfig = context.config
    rows = read_preferences(context.inputs["preferences"].path / "preferences.jsonl")
    decided, labels = usable_preferences(rows, "drop")
    # 1. a policy that knows both tokens and is asked for good answers
    trainee = load_trainee(context)
    add_special_tokens(trainee.loaded.model, trainee.loaded.tokenizer, [config.good_token, config.bad_token])
    plain = trainee.loaded.template
    good = conditioned(plain, config.good_token)
    trainee = replace(trainee, loaded=replace(trainee.loaded, template=good))
    follow_template(trainee.loaded.tokenizer, plain, good)
    # 2. both answers of each pair
    training = _both_sides(context, trainee, decided, conditioned(plain, config.bad_token))
    heldout = demonstrations(context, trainee, config.eval_split, config.max_length)
    # 3. the loop and the artifact
    counts = {"n_ties": labels.n_ties, "n_missing": labels.n_missing}
    return fine_tune(context, trainee, training, heldout, counts)


def conditioned(template: PromptTemplate, token: str) -> PromptTemplate:
    """The template with a token as its end."""
    return PromptTemplate(template.with_input + token, template.without_input + token)


def sides(row: Preference) -> tuple[Answer, Answer]:
    """(preferred, other) answer of a pair that is no tie."""
    assert row.preference is not None
    first = Answer(row.instruction, row.input, row.output_1, row.finished_1)
    second = Answer(row.instruction, row.input, row.output_2, row.finished_2)
    return (second, first) if row.preference > 1.5 else (first, second)


def _both_sides(context: StageContext, trainee: Trainee, pairs: list[Preference], bad: PromptTemplate) -> TokenisedRows:
    good_rows = chosen_rows(context, trainee, [sides(row)[0] for row in pairs])
    bad_rows = chosen_rows(context, trainee, [sides(row)[1] for row in pairs], bad)
    return TokenisedRows(
        good_rows.prompt_ids + bad_rows.prompt_ids,
        good_rows.response_ids + bad_rows.response_ids,
        good_rows.kept + [len(pairs) + row for row in bad_rows.kept],
        good_rows.n_too_long + bad_rows.n_too_long,
    )

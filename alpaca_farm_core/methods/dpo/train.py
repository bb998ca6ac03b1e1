"""DPO: policy, preferences and the reference's log-probabilities in, a policy folder with metrics and samples out.

Follows Rafailov et al. 2023 (equation 7), or Azar et al. 2023 (equation 17) with `loss = "ipo"`. It differs:
1. the reference's log-probabilities come from an artifact, so one model is in memory, not two;
2. labels may be soft: a tie has the target 0.5 (or is dropped), and everything left out is counted;
3. log-probabilities are sums over the response and, where it is finished, its EOS; `length_normalised`
   divides them by the response's tokens (with IPO this is what TRL does);
4. all weights are trained in float32 with dropout as the model has it.
"""

from __future__ import annotations

from alpaca_farm_core.data.pairs import tokenise_pairs
from alpaca_farm_core.data.preferences import LabelCounts, usable_preferences
from alpaca_farm_core.data.rows import read_preferences, split_preferences
from alpaca_farm_core.errors import DataError
from alpaca_farm_core.methods.dpo.config import DPOConfig
from alpaca_farm_core.methods.dpo.objective import PreferenceLoss
from alpaca_farm_core.methods.dpo.pairs import ReferredPairs, read_reference
from alpaca_farm_core.methods.supervised import Trainee, load_trainee, train_policy
from alpaca_farm_core.pipeline.stage import StageContext, StageResult
from alpaca_farm_core.types import Preference


def train(context: StageContext) -> StageResult:
    """Body of the stage `dpo`.

    Raises:
        DataError: too few pairs, only ties, only one label, or log-probabilities of other pairs.
        ModelError: the policy cannot be loaded.
        TrainingDivergedError: loss or gradient became NaN or infinite.
    """
    config: DPOConfig = context.config
    # 1. the policy
    trainee = load_trainee(context)
    # 2. the pairs
    training, heldout, labels, n_too_long = _pairs(context, trainee)
    # 3. the loop and the artifact
    budget = trainee.execution.micro_batch_tokens
    objective = PreferenceLoss(trainee.loaded.model, training, heldout, config, trainee.pad_id, budget)
    counts = {
        "n_pairs": len(training),
        "n_heldout": len(heldout),
        "n_missing": labels.n_missing,
        "n_ties": labels.n_ties,
        "n_too_long": n_too_long,
    }
    return train_policy(context, trainee, objective, counts)


def _pairs(context: StageContext, trainee: Trainee) -> tuple[ReferredPairs, ReferredPairs, LabelCounts, int]:
    """(training pairs, held-out pairs, label counts, pairs that the reference stage dropped as too long)."""
    config: DPOConfig = context.config
    assert config.seed is not None
    rows = read_preferences(context.inputs["preferences"].path / "preferences.jsonl")
    reference = context.inputs["reference"]
    logprobs = read_reference(reference.path, rows)
    numbers = {id(row): number for number, row in enumerate(rows)}
    usable, labels = usable_preferences(rows, config.ties)
    scored = [row for row in usable if numbers[id(row)] in logprobs]
    training, heldout = split_preferences(scored, config.eval_size, config.seed)

    def referred(part: list[Preference]) -> ReferredPairs:
        # The reference stage has kept what fits; the same limits keep all of it here.
        limit = min(int(reference.manifest.recipe.config["max_length"]), trainee.context_length)
        pairs = tokenise_pairs(trainee.loaded.tokenizer, trainee.loaded.template, part, limit, eos=True)
        if pairs.n_too_long:
            raise DataError(
                "The reference policy's tokenizer is not that of the policy.", "Make the reference log-probs again."
            )
        return ReferredPairs(pairs, [logprobs[numbers[id(row)]] for row in part])

    return referred(training), referred(heldout), labels, len(usable) - len(scored)

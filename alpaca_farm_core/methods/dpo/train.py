"""DPO: policy, preferences and the reference's log-probabilities in, a policy folder with metrics and samples out.

Follows Rafailov et al. 2023 (equation 7), or Azar et al. 2023 (equation 17) with `loss = "ipo"`. It differs:
1. the reference's log-probabilities come from an artifact, so one model is in memory, not two;
2. labels may be soft: a tie has the target 0.5 (or is dropped), and everything left out is counted;
3. log-probabilities are sums over the response and, where it is finished, its EOS; `length_normalised`
   divides them by the response's tokens (with IPO this is what TRL does);
4. all weights are trained in float32 with dropout as the model has it.
"""

from __future__ import annotations

from dataclasses import replace

from alpaca_farm_core.artifacts.files import write_jsonl
from alpaca_farm_core.data.pairs import tokenise_pairs
from alpaca_farm_core.data.preferences import LabelCounts, usable_preferences
from alpaca_farm_core.data.rows import read_preferences, split_preferences
from alpaca_farm_core.errors import DataError
from alpaca_farm_core.generation.answers import context_length
from alpaca_farm_core.methods.dpo.config import DPOConfig
from alpaca_farm_core.methods.dpo.objective import PreferenceLoss
from alpaca_farm_core.methods.dpo.pairs import ReferredPairs, read_reference
from alpaca_farm_core.methods.sft.finetune import greedy_samples
from alpaca_farm_core.models.loading import LoadedModel, load_policy, save_policy
from alpaca_farm_core.models.lora import adapt, merged
from alpaca_farm_core.pipeline.stage import StageContext, StageResult
from alpaca_farm_core.training.launch import start_workers
from alpaca_farm_core.training.loop import Supervised
from alpaca_farm_core.types import Preference


def train(context: StageContext) -> StageResult:
    """Body of the stage `dpo`.

    Raises:
        DataError: too few pairs, only ties, only one label, or log-probabilities of other pairs.
        ModelError: the policy cannot be loaded.
        TrainingDivergedError: loss or gradient became NaN or infinite.
    """
    config: DPOConfig = context.config
    workers, execution = start_workers(context.execution, config.precision)
    assert config.seed is not None
    # 1. the model, trained in float32
    loaded = load_policy(context.inputs["policy"].path, execution)
    stored_dtype = loaded.model.dtype
    loaded.model.float()
    adapt(loaded.model, config.lora, config.seed)
    # 2. the pairs
    training, heldout, labels, n_too_long = _pairs(context, loaded)
    # 3. the loop
    pad_id = int(loaded.tokenizer.pad_token_id)
    objective = PreferenceLoss(loaded.model, training, heldout, config, pad_id, execution.micro_batch_tokens)
    run = Supervised.of_stage(context, loaded.model, objective, workers, execution)
    steps = run.run()
    # 4. the artifact
    loaded = replace(loaded, model=merged(loaded.model))
    loaded.model.to(stored_dtype)
    if workers.is_main:
        save_policy(loaded, context.output)
        write_jsonl(context.output / "metrics.jsonl", steps)
        write_jsonl(context.output / "samples.jsonl", greedy_samples(context, loaded))
    return StageResult(
        metrics={
            "n_pairs": len(training),
            "n_heldout": len(heldout),
            "n_missing": labels.n_missing,
            "n_ties": labels.n_ties,
            "n_too_long": n_too_long,
            "steps": run.total_steps,
            "train_loss": steps[-1]["loss"],
            **{name: value for name, value in steps[-1].items() if name.startswith("eval_")},
        },
        timings={
            "train_seconds": run.seconds,
            "tokens_per_second": run.tokens_seen / run.seconds if run.seconds else 0.0,
        },
    )


def _pairs(context: StageContext, loaded: LoadedModel) -> tuple[ReferredPairs, ReferredPairs, LabelCounts, int]:
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
        limit = min(int(reference.manifest.recipe.config["max_length"]), context_length(loaded.model))
        pairs = tokenise_pairs(loaded.tokenizer, loaded.template, part, limit, eos=True)
        if pairs.n_too_long:
            raise DataError(
                "The reference policy's tokenizer is not that of the policy.", "Make the reference log-probs again."
            )
        return ReferredPairs(pairs, [logprobs[numbers[id(row)]] for row in part])

    return referred(training), referred(heldout), labels, len(usable) - len(scored)

"""Fine-tuning on rows of prompt and response: a model and tokenised rows in, a policy folder with metrics out.

What the rows are and where the model comes from is the business of the stage that calls this: demonstrations
and a base model (SFT), or chosen answers and a policy (expert iteration, FeedME, reward conditioning).
"""

from __future__ import annotations

from collections.abc import Mapping
from dataclasses import dataclass, replace
from typing import Any

from alpaca_farm_core.artifacts.files import write_jsonl
from alpaca_farm_core.config.execution import ExecutionConfig
from alpaca_farm_core.data.rows import read_split
from alpaca_farm_core.data.tokenise import TokenisedRows, tokenise_demonstrations, tokenise_prompts
from alpaca_farm_core.errors import DataError
from alpaca_farm_core.generation.answers import context_length, decode_texts
from alpaca_farm_core.generation.engine import generate
from alpaca_farm_core.generation.sampling import SamplingParams
from alpaca_farm_core.methods.sft.config import FineTuneConfig
from alpaca_farm_core.methods.sft.objective import DemonstrationLoss
from alpaca_farm_core.models.loading import LoadedModel, save_policy
from alpaca_farm_core.models.lora import adapt, merged
from alpaca_farm_core.pipeline.stage import StageContext, StageResult
from alpaca_farm_core.training.launch import Workers
from alpaca_farm_core.training.loop import Supervised
from alpaca_farm_core.types import Instruction, Split


@dataclass(frozen=True)
class Trainee:
    """A model about to be trained, and where.

    Attributes:
        loaded: The model with tokenizer and template.
        workers: The processes.
        execution: As this process follows it.
    """

    loaded: LoadedModel
    workers: Workers
    execution: ExecutionConfig


def fine_tune(
    context: StageContext,
    trainee: Trainee,
    training: TokenisedRows,
    heldout: TokenisedRows,
    counts: Mapping[str, Any] | None = None,
) -> StageResult:
    """Train in float32 and write policy, `metrics.jsonl` and `samples.jsonl`.

    Args:
        context: Of the stage; its config is a `FineTuneConfig`.
        trainee: What is trained.
        training: Rows to learn.
        heldout: Rows to measure the loss on; may be empty.
        counts: Further metrics of the artifact.

    Raises:
        TrainingDivergedError: loss or gradient became NaN or infinite.
    """
    loaded, workers, execution = trainee.loaded, trainee.workers, trainee.execution
    for note in loaded.notes:
        context.progress.say(note)
    # 1. training keeps float32 weights whatever the model was stored in
    stored_dtype = loaded.model.dtype
    loaded.model.float()
    adapt(loaded.model, context.config.lora, context.config.seed)
    # 2. the loop
    objective = DemonstrationLoss(
        loaded.model, training, heldout, int(loaded.tokenizer.pad_token_id), execution.micro_batch_tokens
    )
    run = Supervised.of_stage(context, loaded.model, objective, workers, execution)
    rows = run.run()
    # 3. the artifact
    loaded = replace(loaded, model=merged(loaded.model))
    loaded.model.to(stored_dtype)
    if workers.is_main:
        save_policy(loaded, context.output)
        write_jsonl(context.output / "metrics.jsonl", rows)
        write_jsonl(context.output / "samples.jsonl", greedy_samples(context, loaded))
    return StageResult(
        metrics={
            **(counts or {}),
            "n_rows": len(training),
            "n_too_long": training.n_too_long,
            "n_eval_rows": len(heldout),
            "n_eval_too_long": heldout.n_too_long,
            "steps": run.total_steps,
            "train_loss": rows[-1]["loss"],
            **{name: value for name, value in rows[-1].items() if name.startswith("eval_")},
        },
        timings={
            "train_seconds": run.seconds,
            "tokens_per_second": run.tokens_seen / run.seconds if run.seconds else 0.0,
        },
    )


def demonstrations(context: StageContext, loaded: LoadedModel, split: Split, max_length: int) -> TokenisedRows:
    """Tokenise a split's demonstrations; rows beyond `max_length` or the model's context are dropped and counted.

    Raises:
        DataError: the split is empty or no row fits.
    """
    rows = read_split(context.inputs["data"].path, split)
    if not rows:
        raise DataError(f"The split '{split}' has no rows.", "Choose another split or another dataset.")
    limit = min(max_length, context_length(loaded.model))
    tokenised = tokenise_demonstrations(loaded.tokenizer, loaded.template, rows, limit)
    say_dropped(context, split, tokenised, limit)
    return tokenised


def say_dropped(context: StageContext, what: str, rows: TokenisedRows, limit: int) -> None:
    """Report rows that did not fit."""
    if rows.n_too_long:
        n_all = len(rows) + rows.n_too_long
        context.progress.say(f"{what}: {rows.n_too_long} of {n_all} rows exceed {limit} tokens and are dropped.")


def greedy_samples(context: StageContext, loaded: LoadedModel) -> list[dict[str, Any]]:
    """Answer the first prompts of the evaluation split greedily, for people to read (rows of samples.jsonl)."""
    config: FineTuneConfig = context.config
    rows: list[Instruction] = read_split(context.inputs["data"].path, config.eval_split)[: config.n_samples]
    room = context_length(loaded.model) - 1
    new_tokens = min(config.sample_max_new_tokens, room)
    if not rows:
        return []
    prompts = tokenise_prompts(loaded.tokenizer, loaded.template, rows, room)
    new_tokens = min(new_tokens, room + 1 - max(map(len, prompts.prompt_ids)))
    completions = generate(
        loaded.model,
        prompts.prompt_ids,
        list(range(len(prompts))),
        SamplingParams(new_tokens, temperature=0.0),
        int(loaded.tokenizer.eos_token_id),
        int(loaded.tokenizer.pad_token_id),
        context.execution.decode_batch_size,
    )
    texts = decode_texts(loaded, completions)
    return [
        {"instruction": row.instruction, "input": row.input, "output": text, "finished": completion.finished}
        for row, text, completion in zip([rows[i] for i in prompts.kept], texts, completions, strict=True)
    ]

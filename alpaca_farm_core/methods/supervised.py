"""Training a policy on fixed rows: a loaded policy and an objective in, its folder with metrics and samples out.

What the rows are and what is minimised is the business of the method: demonstrations, chosen answers or pairs.
"""

from __future__ import annotations

from collections.abc import Mapping
from dataclasses import dataclass, replace
from typing import Any

from alpaca_farm_core.artifacts.files import write_jsonl
from alpaca_farm_core.config.execution import ExecutionConfig
from alpaca_farm_core.data.rows import read_split
from alpaca_farm_core.data.tokenise import tokenise_prompts
from alpaca_farm_core.generation.answers import context_length, decode_texts
from alpaca_farm_core.generation.engine import generate
from alpaca_farm_core.generation.sampling import SamplingParams
from alpaca_farm_core.methods.sft.config import FineTuneConfig
from alpaca_farm_core.models.loading import LoadedModel, load_policy, save_policy
from alpaca_farm_core.models.lora import adapt, merged
from alpaca_farm_core.models.sharding import whole
from alpaca_farm_core.pipeline.stage import StageContext, StageResult
from alpaca_farm_core.training.launch import Workers, start_workers
from alpaca_farm_core.training.loop import Objective, Supervised
from alpaca_farm_core.types import Instruction


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

    @property
    def pad_id(self) -> int:
        """Token of padding."""
        return int(self.loaded.tokenizer.pad_token_id)

    @property
    def context_length(self) -> int:
        """Most tokens of a row."""
        return context_length(self.loaded.model)


def load_trainee(context: StageContext) -> Trainee:
    """The policy that is the stage's input, ready to be trained.

    Raises:
        ModelError: the policy cannot be loaded.
    """
    workers, execution = start_workers(context.execution, context.config.precision)
    return Trainee(load_policy(context.inputs["policy"].path, execution), workers, execution)


def train_policy(
    context: StageContext, trainee: Trainee, objective: Objective, counts: Mapping[str, Any] | None = None
) -> StageResult:
    """Train in float32 and write policy, `metrics.jsonl` and `samples.jsonl`.

    Args:
        context: Of the stage; its config is a `FineTuneConfig`.
        trainee: What is trained.
        objective: What is minimised, over the trainee's model.
        counts: Further metrics of the artifact.

    Raises:
        TrainingDivergedError: loss or gradient became NaN or infinite.
    """
    loaded, workers = trainee.loaded, trainee.workers
    for note in loaded.notes:
        context.progress.say(note)
    # 1. training keeps float32 weights whatever the model was stored in
    stored_dtype = loaded.model.dtype
    loaded.model.float()
    adapt(loaded.model, context.config.lora, context.config.seed)
    # 2. the loop
    run = Supervised.of_stage(context, loaded.model, objective, workers, trainee.execution)
    rows = run.run()
    # 3. the artifact
    model = whole(loaded.model)
    if workers.is_main:
        assert model is not None
        loaded = replace(loaded, model=merged(model))
        loaded.model.to(stored_dtype)
        save_policy(loaded, context.output)
        write_jsonl(context.output / "metrics.jsonl", rows)
        write_jsonl(context.output / "samples.jsonl", greedy_samples(context, loaded))
    return StageResult(metrics={**(counts or {}), **run.figures()}, timings=run.timings())


def greedy_samples(context: StageContext, loaded: LoadedModel) -> list[dict[str, Any]]:
    """Answer the first prompts of the evaluation split greedily, for people to read (rows of samples.jsonl)."""
    config: FineTuneConfig = context.config
    if not config.n_samples:
        return []
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

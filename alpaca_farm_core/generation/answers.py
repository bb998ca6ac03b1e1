"""Answers of a policy to a split: policy and dataset artifacts in, rows of `outputs.jsonl` out.

Works through chunks of fixed composition. Each finished chunk is one file in the scratch folder, written
whole or not at all, so a killed run loses at most one chunk and goes on to the same bytes.
"""

from __future__ import annotations

import time
from collections.abc import Sequence
from dataclasses import dataclass
from pathlib import Path

import torch

from alpaca_farm_core.artifacts.files import read_jsonl, write_jsonl
from alpaca_farm_core.data.rows import read_split
from alpaca_farm_core.data.tokenise import TokenisedRows, tokenise_prompts
from alpaca_farm_core.errors import DataError
from alpaca_farm_core.generation.config import GenerateConfig
from alpaca_farm_core.generation.engine import Completion, generate
from alpaca_farm_core.generation.sampling import SamplingParams
from alpaca_farm_core.models.device import DTYPES, set_threads
from alpaca_farm_core.models.loading import LoadedModel, load_policy
from alpaca_farm_core.pipeline.stage import StageContext, StageResult
from alpaca_farm_core.seeding import stable_seed
from alpaca_farm_core.types import Instruction, Output

BATCHES_PER_CHUNK = 4
"""Decoding batches between two writes to the scratch folder."""


@dataclass(frozen=True)
class _Request:
    """One sample to draw: which kept instruction, which of its samples."""

    row: int
    sample_id: int


@dataclass(frozen=True)
class Answers:
    """Answers of a policy to a split, in the order of the split, samples of one instruction together.

    Attributes:
        rows: One per sample.
        n_instructions: Instructions asked for.
        n_too_long: Of these, how many were dropped because their prompt exceeds the context.
        seconds: Time spent decoding by this process.
        n_new_tokens: Tokens drawn by this process.
    """

    rows: list[Output]
    n_instructions: int
    n_too_long: int
    seconds: float
    n_new_tokens: int

    def metrics(self) -> dict[str, float]:
        """Counts, and means over the rows."""
        return {
            "n_instructions": self.n_instructions,
            "n_too_long": self.n_too_long,
            "n_outputs": len(self.rows),
            "finished_share": sum(row.finished for row in self.rows) / len(self.rows),
            "tokens_mean": sum(row.n_tokens for row in self.rows) / len(self.rows),
        }

    def timings(self) -> dict[str, float]:
        """Seconds and tokens per second."""
        rate = self.n_new_tokens / self.seconds if self.seconds else 0.0
        return {"decode_seconds": self.seconds, "tokens_per_second": rate}


def answer_split(context: StageContext) -> StageResult:
    """Body of the stages `sample` and `decode`; writes `outputs.jsonl`.

    Raises:
        DataError: no instruction of the split fits into the model's context.
    """
    answers = sample_answers(context, load_decoder(context))
    write_jsonl(context.output / "outputs.jsonl", (row.to_row() for row in answers.rows))
    return StageResult(metrics=answers.metrics(), timings=answers.timings())


def load_decoder(context: StageContext) -> LoadedModel:
    """The policy among a stage's inputs, in the precision of its config (`GenerateConfig`)."""
    set_threads(context.execution)
    loaded = load_policy(context.inputs["policy"].path, context.execution)
    loaded.model.to(DTYPES[context.config.precision])
    return loaded


def sample_answers(context: StageContext, loaded: LoadedModel) -> Answers:
    """Answer the split that the stage's config (`GenerateConfig`) names; finished chunks are kept in scratch.

    Raises:
        DataError: no instruction of the split fits into the model's context.
    """
    config: GenerateConfig = context.config
    instructions = read_split(context.inputs["data"].path, config.split)[: config.limit or None]
    prompts = _prompts(loaded, instructions, config)
    started = time.perf_counter()
    chunks, n_new_tokens = _answer(context, loaded, instructions, prompts)
    seconds = time.perf_counter() - started
    return Answers(_in_order(chunks, instructions), len(instructions), prompts.n_too_long, seconds, n_new_tokens)


def context_length(model: torch.nn.Module) -> int:
    """Positions of a model; a very large number when its config does not say."""
    return int(getattr(model.config.get_text_config(), "max_position_embeddings", None) or 1 << 30)  # type: ignore[union-attr,operator]


def whole_prompts(batch_size: int, n: int) -> int:
    """Largest number of at most `batch_size` rows that holds all n samples of each of its prompts.

    They then share one prefill in chunks that are multiples of it. Where n exceeds the batch it is the batch.
    """
    return batch_size - batch_size % n if n <= batch_size else batch_size


def decode_texts(loaded: LoadedModel, completions: Sequence[Completion]) -> list[str]:
    """Texts of completions, special tokens left out."""
    return [str(loaded.tokenizer.decode(c.token_ids, skip_special_tokens=True)) for c in completions]


def _prompts(loaded: LoadedModel, instructions: list[Instruction], config: GenerateConfig) -> TokenisedRows:
    room = context_length(loaded.model) - config.max_new_tokens
    if not instructions:
        raise DataError(f"The split '{config.split}' has no instructions.", "Choose another split or another dataset.")
    if room < 1:
        raise DataError(
            f"max_new_tokens {config.max_new_tokens} leaves no room for a prompt: the model has "
            f"{room + config.max_new_tokens} positions.",
            "Lower max_new_tokens.",
        )
    return tokenise_prompts(loaded.tokenizer, loaded.template, instructions, room)


def _answer(
    context: StageContext, loaded: LoadedModel, instructions: list[Instruction], prompts: TokenisedRows
) -> tuple[list[list[Output]], int]:
    """Answer chunk by chunk; chunks already on disk are read. Also returns the number of tokens drawn now."""
    config: GenerateConfig = context.config
    requests = [_Request(row, sample) for row in range(len(prompts)) for sample in range(config.n)]
    requests.sort(key=lambda request: len(prompts.prompt_ids[request.row]))  # stable: samples of a row stay together
    size = whole_prompts(context.execution.decode_batch_size, config.n) * BATCHES_PER_CHUNK
    # Another batch size makes other chunks; its files must not be mixed up with these.
    folder = context.scratch / f"chunks_of_{size}"
    folder.mkdir(parents=True, exist_ok=True)
    context.progress.start("Decoding", total=len(requests), unit="answers")
    chunks: list[list[Output]] = []
    n_new_tokens = 0
    for number, start in enumerate(range(0, len(requests), size)):
        path = folder / f"{number:06d}.jsonl"
        part = requests[start : start + size]
        if path.is_file():
            context.progress.advance(len(part))
        else:
            outputs = _answer_chunk(context, loaded, instructions, prompts, part)
            n_new_tokens += sum(output.n_tokens for output in outputs)
            write_jsonl(path, (output.to_row() for output in outputs))
        chunks.append(_read_chunk(path))
    return chunks, n_new_tokens


def _answer_chunk(
    context: StageContext,
    loaded: LoadedModel,
    instructions: list[Instruction],
    prompts: TokenisedRows,
    requests: list[_Request],
) -> list[Output]:
    config: GenerateConfig = context.config
    tokenizer = loaded.tokenizer
    rows = [instructions[prompts.kept[request.row]] for request in requests]
    started = time.perf_counter()
    drawn = 0

    def report(completions: list[Completion]) -> None:
        nonlocal drawn
        drawn += sum(len(completion.token_ids) for completion in completions)
        rate = drawn / max(time.perf_counter() - started, 1e-9)
        context.progress.advance(len(completions), {"tokens_per_second": rate})

    assert config.seed is not None
    completions = generate(
        loaded.model,
        [prompts.prompt_ids[request.row] for request in requests],
        [stable_seed("answer", config.seed, row.id, r.sample_id) for row, r in zip(rows, requests, strict=True)],
        SamplingParams(config.max_new_tokens, config.temperature, config.top_p, config.top_k),
        eos_id=int(tokenizer.eos_token_id),
        pad_id=int(tokenizer.pad_token_id),
        batch_size=context.execution.decode_batch_size,
        on_done=report,
    )
    generator = config.generator or context.inputs["policy"].manifest.recipe.stage
    return [
        Output(row.instruction, row.input, text, generator, row.dataset, r.sample_id, c.finished, len(c.token_ids))
        for row, r, c, text in zip(rows, requests, completions, decode_texts(loaded, completions), strict=True)
    ]


def _read_chunk(path: Path) -> list[Output]:
    return [Output(**row) for row in read_jsonl(path)]


def _in_order(chunks: list[list[Output]], instructions: list[Instruction]) -> list[Output]:
    """Back to the order of the split, samples of one instruction together."""
    place: dict[str, int] = {}
    for index, instruction in enumerate(instructions):
        place.setdefault(instruction.id, index)
    rows = [output for chunk in chunks for output in chunk]
    return sorted(rows, key=lambda row: (place[row.id], row.sample_id))

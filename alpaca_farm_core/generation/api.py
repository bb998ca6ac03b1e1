"""Answers of a model behind an OpenAI-compatible API: a dataset in, outputs as any policy's out.

Asked through the same broker, cache, ledger and budget as judges: what was answered once is never bought again.
An instruction without answer (a refusal, a failure) has no row and is counted.
"""

from __future__ import annotations

from alpaca_farm_core.annotators.api import api_judge, check_api
from alpaca_farm_core.annotators.broker import Payer, ask
from alpaca_farm_core.annotators.cache import CallCache
from alpaca_farm_core.annotators.calls import Answer, CallStats, Outcome, Request
from alpaca_farm_core.annotators.purse import Purse
from alpaca_farm_core.artifacts.files import write_jsonl
from alpaca_farm_core.config.execution import ExecutionConfig
from alpaca_farm_core.data.prompts import PromptTemplate, load_template
from alpaca_farm_core.data.rows import read_split
from alpaca_farm_core.errors import ConfigError, DataError, MissingAnnotationsError
from alpaca_farm_core.generation.config import ApiOutputsConfig
from alpaca_farm_core.pipeline.stage import StageContext, StageResult
from alpaca_farm_core.types import Instruction, Output


def ask_split(context: StageContext) -> StageResult:
    """Body of the stage `api_outputs`; writes `outputs.jsonl`.

    Raises:
        ConfigError: no model is named.
        DataError: the split has no instructions.
        AnnotationError: the server cannot be used.
        BudgetReachedError: the next call does not fit the budget; answers so far are kept.
        MissingAnnotationsError: more than `max_missing` got no answer.
    """
    config: ApiOutputsConfig = context.config
    rows = read_split(context.inputs["data"].path, config.split)[: config.limit or None]
    if not rows:
        raise DataError(f"The split '{config.split}' has no instructions.", "Choose another split or another dataset.")
    template, stats = load_template(config.template), CallStats()
    payer = Payer(Purse.of(context.execution), config.model)
    requests = [_request(config, template, row) for row in rows]
    outcomes = ask(requests, api_judge(context.execution), CallCache(context.calls), stats, context.progress, payer)
    outputs = [_output(config, row, outcome) for row, outcome in zip(rows, outcomes, strict=True)]
    answered = [output for output in outputs if output is not None]
    n_missing = _refuse_too_many_missing(config, len(answered), len(rows))
    write_jsonl(context.output / "outputs.jsonl", (output.to_row() for output in answered))
    return StageResult(
        metrics={
            "n_instructions": len(rows),
            "n_outputs": len(answered),
            "finished_share": sum(output.finished for output in answered) / len(answered),
            "tokens_mean": sum(output.n_tokens for output in answered) / len(answered),
        },
        timings=stats.timings(),
        n_missing=n_missing,
        cost_usd=stats.spent_usd,
    )


def check_api_outputs(config: ApiOutputsConfig, execution: ExecutionConfig) -> None:
    """Find before a long run what would stop it: no model, no key, no price under a budget; asks nothing.

    Raises:
        ConfigError: no model is named, no HTTP address, or a budget and no price.
        AnnotationError: no API key where one is needed.
    """
    if not config.model:
        raise ConfigError("No API model is named.", "Set api_outputs.model, or give a comparison --api-models.")
    check_api([config.model], execution)


def _request(config: ApiOutputsConfig, template: PromptTemplate, row: Instruction) -> Request:
    system = ({"role": "system", "content": config.system},) if config.system else ()
    asked = {"role": "user", "content": template.render(row.instruction, row.input)}
    sampling = {"temperature": config.temperature, "max_tokens": config.max_tokens}
    return Request(config.model, (*system, asked), sampling)


def _output(config: ApiOutputsConfig, row: Instruction, outcome: Outcome) -> Output | None:
    if not isinstance(outcome, Answer) or outcome.refused or not outcome.text:
        return None
    n_tokens = int(outcome.usage.get("completion_tokens") or 0)
    finished = outcome.finish_reason != "length"
    return Output(row.instruction, row.input, outcome.text, config.model, row.dataset, 0, finished, n_tokens)


def _refuse_too_many_missing(config: ApiOutputsConfig, n_answered: int, n_all: int) -> int:
    n_missing = n_all - n_answered
    if n_missing > config.max_missing * n_all:
        raise MissingAnnotationsError(
            f"{n_missing} of {n_all} instructions have no answer of {config.model}; at most {config.max_missing:.1%} "
            "may be missing.",
            "Run again: answers so far are kept and refusals stay; or raise api_outputs.max_missing.",
        )
    return n_missing

"""`--dry-run`: what a run would do, from fingerprints alone. Loads no Prefect and no torch."""

from __future__ import annotations

from collections.abc import Mapping
from typing import TYPE_CHECKING, Any

from flows.cli.options import print_json

if TYPE_CHECKING:
    from alpaca_farm_core.pipeline.runner import PlannedStep, Planner


def print_plan(
    flow: str,
    preset: str,
    annotator: str | None,
    run_name: str | None,
    overrides: Mapping[str, Any],
    store: str | None,
    as_json: bool,
    options: Mapping[str, Any],
) -> None:
    """Print each stage with hit or miss, the reason of a miss, API calls to make and the last time."""
    from alpaca_farm_core.artifacts.store import Store
    from alpaca_farm_core.config.presets import build_study
    from alpaca_farm_core.pipeline.runner import Planner
    from flows.compositions import composition_named

    study = build_study(preset, overrides, annotator)
    planner = Planner(study, run_name or preset, Store(store))
    composition_named(flow)(planner, **options)
    rows = [_row(step, planner) for step in planner.steps]
    if as_json:
        print_json(rows)
        return
    from rich.console import Console
    from rich.table import Table

    table = Table("stage", "plan", "took last", "memory", "API calls", "about", "why", box=None, pad_edge=False)
    for row in rows:
        seconds = "" if row["last_seconds"] is None else f"{row['last_seconds']:.1f} s"
        memory = f"{row['memory']['gb']:.1f} GB" if row["memory"] else ""
        calls = row["api_calls"] or ""
        table.add_row(row["stage"], row["plan"], seconds, memory, calls, _dollars(row["usd"]), row["reason"])
    console = Console()
    console.print(table)
    largest = max((row for row in rows if row["memory"]), key=lambda row: row["memory"]["gb"], default=None)
    if largest:
        console.print(f"Most memory, {largest['stage']}: {largest['memory']['plan']}")
    known = [row["last_seconds"] for row in rows if row["plan"] != "cached" and row["last_seconds"] is not None]
    unknown = sum(row["plan"] != "cached" and row["last_seconds"] is None for row in rows)
    total = f"About {sum(known):.0f} s for what has run here before" if known else "No time is known yet"
    console.print(f"{total}; {unknown} stages have never run in this store." if unknown else f"{total}.")


def _dollars(amount: float | None) -> str:
    return "" if amount is None else f"${amount:.2f}" if amount >= 0.1 else f"${amount:.2g}"


def _row(planned: PlannedStep, planner: Planner) -> dict[str, Any]:
    return {
        "stage": planned.step.title,
        "plan": "cached" if planned.hit else "resume" if planned.resumes else "run",
        "fingerprint": planned.recipe.fingerprint,
        "artifact": planned.hit.reference if planned.hit else None,
        "reason": str(planned.reason) if planned.reason else "",
        "last_seconds": planned.last_seconds,
        "memory": _memory(planned, planner) if planned.hit is None else None,
        **(_api_calls(planned, planner) if planned.hit is None else {"api_calls": None, "usd": None}),
    }


def _memory(planned: PlannedStep, planner: Planner) -> dict[str, Any] | None:
    """The peak of a stage in gigabytes, and by purpose in bytes; nothing where it is not known."""
    from flows.cli.memory import planned_memory

    plan = planned_memory(planned, planner)
    return {"gb": plan.peak / 1e9, "plan": str(plan), "phase": plan.phase, "bytes": dict(plan.parts)} if plan else None


def _api_calls(planned: PlannedStep, planner: Planner) -> dict[str, Any]:
    """Upper bound of the calls and about what they cost; only a factor where the number of pairs is not known."""
    from alpaca_farm_core.annotators.estimate import api_calls_per_instruction, usd_per_answer, usd_per_pair
    from alpaca_farm_core.generation.config import ApiOutputsConfig

    config, study = planned.step.config, planner.study
    each = api_calls_per_instruction(config)
    if not each:
        return {"api_calls": None, "usd": None}
    rows = _instructions(planned, planner)
    if rows is None:
        return {"api_calls": f"{each:g} per instruction", "usd": None}
    if isinstance(config, ApiOutputsConfig):
        each_usd = usd_per_answer(config, study.execution)
        return {"api_calls": f"≤ {rows}", "usd": None if each_usd is None else each_usd * rows}
    tokens = study.sample.max_new_tokens if planned.step.stage.name == "preferences" else study.decode.max_new_tokens
    price = usd_per_pair(config.annotator, planner.store.calls, study.execution, tokens)  # type: ignore[attr-defined]
    pairs = rows * int(getattr(config, "pairs_per_instruction", 1))
    return {"api_calls": f"≤ {each * rows:.0f}", "usd": None if price is None else price * pairs}


def _instructions(planned: PlannedStep, planner: Planner) -> int | None:
    """How many instructions a stage judges answers to, or pairs where it takes them from elsewhere."""
    from alpaca_farm_core.evaluation.reevaluation.config import AnchorsConfig
    from alpaca_farm_core.generation.config import ApiOutputsConfig

    config = planned.step.config
    if isinstance(config, AnchorsConfig):
        return config.count
    if isinstance(config, ApiOutputsConfig):
        rows = _rows_of(config.split, planner)
        return min(rows, config.limit) if rows and config.limit else rows
    source = planner.study.sample if planned.step.stage.name == "preferences" else planner.study.decode
    rows = _rows_of(source.split, planner)
    if rows is None:
        return None
    n = planner.study.section("best_of_n").n if planned.step.stage.name == "judge_samples" else 1  # type: ignore[attr-defined]
    return n * (min(rows, source.limit) if source.limit else rows)


def _rows_of(split: str, planner: Planner) -> int | None:
    """Rows of a split: from the dataset artifact if it is there, else from the settings if they say."""
    data = next((planned for planned in planner.steps if planned.step.stage.name == "dataset"), None)
    if data is None:  # a flow that starts from what is in the store
        return None
    if data.hit is not None:
        return int(data.hit.metrics[f"n_{split}"])
    dataset = planner.study.dataset
    sizes = dataset.meadow if dataset.source == "meadow" else dataset.sizes
    return int(getattr(sizes, f"n_{split}", 0) or getattr(sizes, split, 0)) or None

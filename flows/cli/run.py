"""`alpaca-farm demo` and `alpaca-farm run FLOW`: start a flow, show it, and say where things are."""

from __future__ import annotations

import os
from collections.abc import Mapping
from pathlib import Path
from typing import TYPE_CHECKING, Any

import click

from alpaca_farm_core.errors import RegressionError, ServerAwayError
from flows.cli.options import (
    composition_options,
    json_option,
    print_json,
    read_overrides,
    read_seeds,
    read_words,
    settings_options,
    store_option,
)
from flows.services.quiet import QUIET

if TYPE_CHECKING:
    from alpaca_farm_core.artifacts.manifest import Artifact
    from alpaca_farm_core.artifacts.store import Store

# Unless the user has said otherwise. Set before Prefect is imported.
_PREFECT_DEFAULTS = {
    **QUIET,
    "PREFECT_LOGGING_HANDLERS_CONSOLE_LEVEL": "CRITICAL",
    "PREFECT_SERVER_LOGGING_LEVEL": "CRITICAL",
    "PREFECT_SERVER_EPHEMERAL_STARTUP_TIMEOUT_SECONDS": "120",  # 20 are too few beside busy neighbours
}


@click.command()
@store_option
@click.option("--set", "assignments", multiple=True, metavar="KEY=VALUE", help="One setting; repeatable.")
@click.option("--run-name", metavar="NAME", help="Prefix of the artifacts' names.")
@json_option
def demo(store: str | None, assignments: tuple[str, ...], run_name: str | None, as_json: bool) -> None:
    """Run the full RLHF flow on the embedded default: no GPU, key or download needed."""
    _run(
        "rlhf",
        "meadow",
        None,
        run_name,
        read_overrides(None, assignments),
        store,
        as_json,
        retry_missing=False,
        options={},
    )


@click.command()
@click.argument("flow")
@settings_options
@click.option("--run-name", metavar="NAME", help="Prefix of the artifacts' names. Default: the preset's name.")
@click.option(
    "--dry-run", is_flag=True, help="Print the plan: hits, misses with reasons, calls, last times. Runs nothing."
)
@click.option("--method", metavar="NAME", help="Method of the flows rlhf and evaluate. Default: ppo.")
@click.option("--model", metavar="ARTIFACT", help="Policy or outputs that the flow evaluate takes, training nothing.")
@click.option("--reference", metavar="ARTIFACT", help="What --model is compared with.")
@click.option("--methods", metavar="NAME,…", help="Methods of the flow compare. Default: all.")
@click.option("--seeds", metavar="N,…", help="Seeds of the flow compare, each a whole chain. Default: 0,1.")
@click.option("--api-models", metavar="NAME,…", help="API models that stand beside the methods of the flow compare.")
@click.option("--retry-missing", is_flag=True, help="Ask again for annotations that an earlier run could not get.")
@store_option
@json_option
def run(
    flow: str,
    preset: str,
    config_file: str | None,
    assignments: tuple[str, ...],
    annotator: str | None,
    run_name: str | None,
    dry_run: bool,
    method: str | None,
    model: str | None,
    reference: str | None,
    methods: str | None,
    seeds: str | None,
    api_models: str | None,
    retry_missing: bool,
    store: str | None,
    as_json: bool,
) -> int:
    """Run FLOW: a method (ppo, dpo, …) or one of the following.

    rlhf, compare, evaluate, reevaluate, overoptimisation, sft, simulate-preferences, reward-model
    """
    overrides = read_overrides(config_file, assignments)
    options = composition_options(
        flow,
        method=method,
        model=model,
        reference=reference,
        methods=read_words(methods),
        seeds=read_seeds(seeds),
        api_models=read_words(api_models),
    )
    if dry_run:
        from flows.cli.plan import print_plan

        print_plan(flow, preset, annotator, run_name, overrides, store, as_json, options)
        return 0
    return _run(flow, preset, annotator, run_name, overrides, store, as_json, retry_missing, options)


def _run(
    flow: str,
    preset: str,
    annotator: str | None,
    run_name: str | None,
    overrides: Mapping[str, Any],
    store: str | None,
    as_json: bool,
    retry_missing: bool,
    options: Mapping[str, Any],
) -> int:
    from rich.console import Console

    from alpaca_farm_core.artifacts.store import STORE_VARIABLE, Store
    from alpaca_farm_core.config.presets import build_study
    from flows.preflight import preflight

    opened = Store(store)
    preflight(flow, build_study(preset, overrides, annotator), run_name or preset, opened, **options)
    os.environ[STORE_VARIABLE] = opened.location
    for variable, value in _PREFECT_DEFAULTS.items():
        os.environ.setdefault(variable, value)
    console = Console(stderr=as_json)
    console.print(
        f"[bold]{flow}[/], run [bold]{run_name or preset}[/], preset {preset}, store {opened.location}", highlight=False
    )
    made = _run_flow(flow, console, preset, annotator, run_name, overrides, retry_missing, options)
    artifacts = {name: opened.get(reference.reference) for name, reference in made.items()}
    if as_json:
        print_json(
            {
                name: {"reference": a.reference, "path": str(a.path), "metrics": dict(a.metrics)}
                for name, a in artifacts.items()
            }
        )
    else:
        _print_results(console, artifacts, opened)
    alarmed = "history" in artifacts and artifacts["history"].metrics["n_alarms"]
    return RegressionError.exit_code if alarmed else 0


def _run_flow(
    name: str,
    console: Any,
    preset: str,
    annotator: str | None,
    run_name: str | None,
    overrides: Mapping[str, Any],
    retry_missing: bool,
    options: Mapping[str, Any],
) -> dict[str, Any]:
    """Run the Prefect flow in this process and return name → artifact reference."""
    from flows.cli.console import TerminalDisplay

    with console.status("Starting Prefect …"):
        import httpx
        from prefect.settings import get_current_settings

        from flows.rlhf import FLOWS
        from tasks.display import current_display

        if get_current_settings().api.url is None:
            from flows.services.temporary import start_temporary_server

            start_temporary_server()
    with TerminalDisplay(console) as display:
        token = current_display.set(display)
        try:
            state = FLOWS[name](
                preset=preset,
                annotator=annotator,
                run_name=run_name,
                overrides=dict(overrides),
                retry_missing=retry_missing,
                return_state=True,
                **options,
            )
        except httpx.TransportError as error:
            raise ServerAwayError(
                f"Prefect's server at {get_current_settings().api.url} does not answer any more: {error}.",
                "Finished stages and checkpoints are kept. See that the server runs and that the network is up, then "
                "run the same command again; without PREFECT_API_URL it starts a server of its own.",
            ) from error
        finally:
            current_display.reset(token)
    made: dict[str, Any] = state.result()
    return made


def _print_results(console: Any, artifacts: Mapping[str, Artifact], store: Store) -> None:
    from alpaca_farm_core.artifacts.files import read_json
    from flows.cli.console import print_comparison, print_leaderboard

    page: Path
    if "leaderboard" in artifacts:
        console.print()
        print_leaderboard(read_json(artifacts["leaderboard"].path / "leaderboard.json"), console)
    if "comparison" in artifacts:
        console.print()
        print_comparison(read_json(artifacts["comparison"].path / "comparison.json"), console)
        page = artifacts["comparison"].path / "comparison.html"
        console.print(f"\nPage: [link=file://{page}]{page}[/link]", soft_wrap=True, highlight=False)
    if "evaluation" in artifacts:
        _print_sample(console, artifacts["evaluation"])
    if "history" in artifacts:
        _print_check(console, artifacts["history"])
    if "report" in artifacts:
        page = artifacts["report"].path / "report.html"
        console.print(f"\nReport: [link=file://{page}]{page}[/link]", soft_wrap=True, highlight=False)
    console.print(f"Artifacts: alpaca-farm artifacts list --store {store.location}", highlight=False, soft_wrap=True)


def _print_check(console: Any, history: Artifact) -> None:
    """Show the last line of a history, its alarms first."""
    from rich.markup import escape

    from alpaca_farm_core.evaluation.reevaluation.history import read_history, table_rows
    from flows.cli.console import print_leaderboard

    entry = read_history(history)[-1]
    console.print()
    print_leaderboard(table_rows(entry), console)
    for alarm in entry["alarms"]:
        console.print(f"[bold red]Alarm:[/] {escape(alarm['text'])}", soft_wrap=True, highlight=False)
    for note in entry["notes"]:
        console.print(f"Note: {escape(note)}", soft_wrap=True, highlight=False)
    console.print(f"{history.metrics['n_checks']} checks, pictures in {history.path}", soft_wrap=True, highlight=False)


def _print_sample(console: Any, evaluation: Artifact) -> None:
    """Show one instruction with both answers: the first where the judge preferred the new model."""
    from rich.table import Table
    from rich.text import Text

    from alpaca_farm_core.artifacts.files import read_json

    rows = [row for row in read_json(evaluation.path / "annotations.json") if row["preference"] is not None]
    if not rows:
        return
    row = max(rows, key=lambda r: (r["preference"], r["instruction"]))
    table = Table(box=None, pad_edge=False, show_header=False)
    table.add_column(style="bold")
    table.add_column()
    table.add_row("instruction", Text(f"{row['instruction']}\n{row.get('input') or ''}".strip()))
    table.add_row(str(row["generator_1"]), Text(row["output_1"]))
    table.add_row(str(row["generator_2"]), Text(row["output_2"]))
    console.print()
    console.print(table)

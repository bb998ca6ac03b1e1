"""`alpaca-farm evaluate`: a model's outputs against a reference's, judged pair by pair; results are artifacts."""

from __future__ import annotations

import shutil
from dataclasses import asdict
from pathlib import Path
from typing import TYPE_CHECKING, Any

import click

from flows.cli.options import json_option, print_json, read_overrides, settings_options, store_option

if TYPE_CHECKING:
    from alpaca_farm_core.artifacts.manifest import Artifact
    from alpaca_farm_core.evaluation.sides import Estimate

_SOME_MISSING = 4
_COPIED = ("annotations.json", "metrics.json", "gold.json")


@click.command()
@click.option("--model-outputs", required=True, metavar="FILE|ARTIFACT", help="Outputs, or a policy to be decoded.")
@click.option("--reference-outputs", required=True, metavar="FILE|ARTIFACT", help="What they are compared with.")
@settings_options
@click.option("--data", default="", metavar="ARTIFACT", help="Dataset that a policy answers; default: its own.")
@click.option("--name", default="", help="Name of the model of a file; default: the one in its rows.")
@click.option("--reference-name", default="", help="Name of the reference of a file.")
@click.option("-o", "--output", type=click.Path(path_type=Path, file_okay=False), help="Folder to copy the results to.")
@click.option("--dry-run", is_flag=True, help="Only say how many calls it takes, and what they cost.")
@click.option("--retry-missing", is_flag=True, help="Ask again for annotations that an earlier run could not get.")
@store_option
@json_option
def evaluate(
    model_outputs: str,
    reference_outputs: str,
    preset: str,
    config_file: str | None,
    assignments: tuple[str, ...],
    annotator: str | None,
    data: str,
    name: str,
    reference_name: str,
    output: Path | None,
    dry_run: bool,
    retry_missing: bool,
    store: str | None,
    as_json: bool,
) -> int:
    """Judge a model's outputs against a reference's.

    What was answered once is never paid again; the same outputs and judge give the same artifact.
    """
    from rich.console import Console

    from alpaca_farm_core.annotators.factory import check_annotator
    from alpaca_farm_core.artifacts.store import Store
    from alpaca_farm_core.config.presets import build_study
    from alpaca_farm_core.evaluation.sides import artifact_name, estimate, resolve
    from alpaca_farm_core.evaluation.stage import STAGE_EVALUATE
    from alpaca_farm_core.pipeline.run import run_stage
    from flows.cli.console import TerminalDisplay

    study, opened = build_study(preset, read_overrides(config_file, assignments), annotator), Store(store)
    if not dry_run:
        check_annotator(study.evaluate.annotator, study.execution)
    console = Console(stderr=True)
    with TerminalDisplay(console) as display:
        outputs = resolve(model_outputs, opened, study, data, name, lambda title: display)
        reference = resolve(reference_outputs, opened, study, data, reference_name, lambda title: display)
        expected = estimate(outputs, reference, study, opened)
        console.print(_expectation(expected, study.evaluate.annotator.name), highlight=False, soft_wrap=True)
        if dry_run:
            if as_json:
                print_json(asdict(expected))
            return 0
        title = artifact_name(f"{expected.model}-vs-{expected.reference}")
        account = study.execution.budget_account or title
        done = run_stage(
            STAGE_EVALUATE,
            study.section("evaluate"),
            {"outputs": outputs, "reference": reference},
            store=opened,
            name=title,
            execution=study.execution.model_copy(update={"budget_account": account}),
            progress=display,
            retry_missing=retry_missing,
        )
    if output is not None:
        _copy(done.artifact, output)
    _print(done.artifact, done.cached, expected, as_json)
    return _SOME_MISSING if done.artifact.manifest.n_missing else 0


def _expectation(expected: Estimate, annotator: str) -> str:
    kept = f" ({expected.n_kept} answered before)" if expected.n_kept else ""
    calls = f"{expected.api_calls} calls{kept}, {_price(expected)}" if expected.api_calls else f"no call{kept}"
    unmatched = f"; {expected.n_unmatched} instructions without partner" if expected.n_unmatched else ""
    return (
        f"{expected.model} against {expected.reference}: {expected.n_pairs} pairs, {expected.n_ties} of them equal, "
        f"judged by {annotator} with {calls}{unmatched}"
    )


def _price(expected: Estimate) -> str:
    if expected.usd is None:
        return f"at a price not known ({', '.join(expected.unpriced)})"
    return f"about ${expected.usd:.2f}" if expected.usd >= 0.1 else f"about ${expected.usd:.2g}"


def _copy(evaluation: Artifact, folder: Path) -> None:
    folder.mkdir(parents=True, exist_ok=True)
    for name in _COPIED:
        if (evaluation.path / name).exists():
            shutil.copyfile(evaluation.path / name, folder / name)


def _print(evaluation: Artifact, cached: bool, expected: Estimate, as_json: bool) -> None:
    if as_json:
        print_json(
            {
                "reference": evaluation.reference,
                "path": str(evaluation.path),
                "cached": cached,
                "estimate": asdict(expected),
                "cost_usd": evaluation.manifest.volatile.get("cost_usd"),
                "metrics": dict(evaluation.metrics),
            }
        )
        return
    from flows.cli.console import print_leaderboard

    print_leaderboard([dict[str, Any](evaluation.metrics)])
    how = "as it was" if cached else "made"
    click.echo(f"{evaluation.reference} ({how}): {evaluation.path}")

"""`alpaca-farm score`: win rates from annotation files, ours or AlpacaEval's. Makes no call."""

from __future__ import annotations

from collections.abc import Callable, Sequence
from pathlib import Path
from typing import TYPE_CHECKING, Any, TypeVar

import click

from flows.cli.options import json_option, print_json

if TYPE_CHECKING:
    from alpaca_farm_core.evaluation.length_control.control import LengthControl
    from alpaca_farm_core.evaluation.scoring import ScoredModel, ScoreOptions

Command = TypeVar("Command", bound=Callable[..., Any])
_FILE = click.Path(path_type=Path)


def scoring_options(command: Command) -> Command:
    """What `score` and `leaderboard add` have in common: whose rows, which interval, which length control."""
    for option in reversed(_SCORING_OPTIONS):
        command = option(command)
    return command


_SCORING_OPTIONS = (
    click.option(
        "--annotator",
        default="",
        metavar="NAME|each|pool",
        help="Only this annotator's rows; 'each': one row per annotator; 'pool': all together.",
    ),
    click.option(
        "--interval", type=click.Choice(["normal", "wilson", "bootstrap"]), help="Method of the 95 % interval."
    ),
    click.option(
        "--cluster", type=click.Choice(["instruction", "dataset"]), help="Rows of one cluster count as dependent."
    ),
    click.option("--bootstrap-samples", default=2000, show_default=True, type=click.IntRange(10), help="Resamples."),
    click.option("--seed", default=0, show_default=True, help="Seed of the bootstrap."),
    click.option(
        "--invalid-as-missing",
        is_flag=True,
        help="Count preferences off the scale (NaN, 3 …) as missing, as AlpacaEval does, instead of refusing them.",
    ),
    click.option("--drop-duplicates", is_flag=True, help="Count only the first of equal rows; AlpacaEval counts all."),
    click.option("--length-controlled", is_flag=True, help="Also AlpacaEval 2's length-controlled win rate."),
    click.option(
        "--instruction-difficulty",
        type=_FILE,
        metavar="CSV",
        help="Columns instruction (or index) and instruction_difficulty.",
    ),
    click.option(
        "--gamed", type=_FILE, metavar="CSV|JSON", help="AlpacaEval's df_gamed, or annotations of gamed baselines."
    ),
    click.option(
        "--weights",
        type=_FILE,
        metavar="CSV",
        help="Fitted coefficients: model, then length, difficulty, model. Nothing is fitted.",
    ),
    click.option(
        "--compat",
        type=click.Choice(["positional"]),
        help="'positional': instructions by row number, as AlpacaEval's published numbers have it.",
    ),
    click.option(
        "--instructions", type=_FILE, metavar="FILE", help="Instructions in whose order 'index' counts (JSON, JSONL)."
    ),
    click.option("--estimate-difficulty", is_flag=True, help="Estimate difficulties jointly from all models given."),
    click.option(
        "--unknown-difficulty",
        type=click.Choice(["refuse", "leave-out"]),
        default="refuse",
        show_default=True,
        help="Rows whose instruction has no difficulty.",
    ),
)


@click.command()
@click.argument("files", nargs=-1, type=_FILE)
@scoring_options
@click.option("--by", default="", metavar="FIELD", help="Also a table by this field: dataset, category …")
@click.option("--power", default=0, type=click.IntRange(0), metavar="N", help="Also the interval N instructions give.")
@click.option("--compare", nargs=2, metavar="MODEL MODEL", help="Also compare two models on shared instructions.")
@click.option("--save-difficulty", type=_FILE, metavar="CSV", help="Write the estimated difficulties.")
@click.option("--report", type=_FILE, metavar="HTML", help="Also write one page that compares the models.")
@json_option
def score(
    files: tuple[Path, ...],
    by: str,
    power: int,
    compare: tuple[str, str] | None,
    save_difficulty: Path | None,
    report: Path | None,
    as_json: bool,
    **options: Any,
) -> int:
    """Score annotation FILES: win rate, standard error, interval, draws, missing, lengths, one row per model.

    With --power N and no file: the interval that N instructions give at worst.
    """
    if not files:
        return _power_alone(power, as_json)
    from alpaca_farm_core.evaluation.scoring import compare_models, score_files
    from flows.cli.score_tables import print_comparison, print_scores, warn

    chosen = score_options(**options, by=by, power=power)
    scored = score_files(files, chosen)
    rows = [one.row for one in scored]
    comparison = compare_models(scored, *compare).to_row() if compare else None
    if save_difficulty is not None:
        _save_difficulty(chosen.length_control, save_difficulty)
    if report is not None:
        _write_report(scored, report)
    if as_json:
        print_json({"models": rows, "comparison": comparison} if comparison else rows)
    else:
        print_scores(rows)
        if comparison:
            print_comparison(comparison)
    warn(rows)
    failed = chosen.length_control is not None and all(row["length_controlled_winrate"] is None for row in rows)
    return 1 if failed else 0


def score_options(
    length_controlled: bool,
    instruction_difficulty: Path | None,
    gamed: Path | None,
    weights: Path | None,
    compat: str | None,
    instructions: Path | None,
    estimate_difficulty: bool,
    unknown_difficulty: Any,
    by: str = "",
    power: int = 0,
    **plain: Any,
) -> ScoreOptions:
    """Turn the command line's options into `ScoreOptions`; any option of length control asks for it."""
    from alpaca_farm_core.evaluation.scoring import ScoreOptions

    control = None
    if length_controlled or instruction_difficulty or gamed or weights or estimate_difficulty:
        from alpaca_farm_core.evaluation.length_control.build import length_control_from_files

        control = length_control_from_files(
            difficulty=instruction_difficulty,
            gamed=gamed,
            weights=weights,
            instructions=instructions,
            positional=compat == "positional",
            unknown=unknown_difficulty,
            estimate=estimate_difficulty,
        )
    return ScoreOptions(**plain, by=by, power=power, length_control=control)


def _power_alone(n: int, as_json: bool) -> int:
    from alpaca_farm_core.evaluation.power import power as work_out

    if not n:
        raise click.UsageError("Missing argument 'FILES...'.")
    found = work_out(n)
    if as_json:
        print_json(found)
    else:
        from flows.cli.score_tables import power_text

        click.echo(power_text(found))
    return 0


def _save_difficulty(control: LengthControl | None, path: Path) -> None:
    from alpaca_farm_core.artifacts.files import write_text_atomic
    from alpaca_farm_core.evaluation.length_control.difficulty import difficulties_csv

    if control is None or not control.estimate or control.difficulties is None:
        raise click.UsageError("--save-difficulty needs --estimate-difficulty.")
    write_text_atomic(path, difficulties_csv(control.difficulties.by_key))


def _write_report(scored: Sequence[ScoredModel], path: Path) -> None:
    from alpaca_farm_core.artifacts.files import write_text_atomic
    from alpaca_farm_core.evaluation.report.models import models_facts, models_page

    write_text_atomic(path, models_page(models_facts(scored, "Models compared")))
    click.echo(f"Report: {path.absolute()}", err=True)

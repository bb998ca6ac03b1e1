"""`alpaca-farm annotate`: label pairs, samples or two models' outputs with a judge; check a judge for drift."""

from __future__ import annotations

from collections.abc import Callable
from pathlib import Path
from typing import TYPE_CHECKING, Any, TypeVar

import click

from flows.cli.options import json_option, print_json, store_option

if TYPE_CHECKING:
    from alpaca_farm_core.annotators.config import AnnotatorConfig
    from alpaca_farm_core.config.execution import ExecutionConfig

Command = TypeVar("Command", bound=Callable[..., Any])
_SOME_MISSING = 4


def _judge_options(command: Command) -> Command:
    """Who judges, on whose account, and where the result goes."""
    for option in (
        json_option,
        store_option,
        click.option("--allow-unknown-price", is_flag=True, help="Ask models whose price is not known."),
        click.option("--budget-usd", type=float, help="Stop before more than this is spent."),
        click.option("--set", "assignments", multiple=True, metavar="KEY=VALUE",
                     help="A setting of the annotator (both_orders=true, models.strong=…) or execution.KEY=…."),
        click.option("--seed", default=0, show_default=True, help="Of assignment, order and noise."),
        click.option("--label-flip", default=0.0, show_default=True, help="Share of labels to flip, as people do."),
        click.option("--model", default="", help="Judge model instead of the annotator's own."),
        click.option("--annotator", "name", required=True, metavar="NAME|DIR", help="Judge: built in, or a folder."),
    ):  # fmt: skip
        command = option(command)
    return command


def _output_option(command: Command) -> Command:
    return click.option(
        "-o", "--output", required=True, type=click.Path(path_type=Path, dir_okay=False), help="JSON file to write."
    )(command)


def _dry_run_option(command: Command) -> Command:
    return click.option(
        "--dry-run", is_flag=True, help="Only say how many calls it takes, and about their price; write nothing."
    )(command)


@click.group()
def annotate() -> None:
    """Label pairs of answers with a judge. What was answered once is never paid again."""


@annotate.command()
@click.argument("file", type=click.Path(path_type=Path))
@_dry_run_option
@_output_option
@_judge_options
def pairs(file: Path, output: Path, **options: Any) -> int:
    """Label the pairs of FILE (instruction, input, output_1, output_2)."""
    from alpaca_farm_core.annotators.entry_points import annotate_pairs

    return _run(lambda given: annotate_pairs(_read(file), **given), output, options)


@annotate.command()
@click.argument("file", type=click.Path(path_type=Path))
@click.option("--pairs-per-instruction", default=1, show_default=True, type=click.IntRange(min=1))
@_dry_run_option
@_output_option
@_judge_options
def samples(file: Path, pairs_per_instruction: int, output: Path, **options: Any) -> int:
    """Compare the samples of FILE (instruction, input, output: a list of samples) with each other."""
    from alpaca_farm_core.annotators.entry_points import annotate_samples

    chosen = {"pairs_per_instruction": pairs_per_instruction, "seed": options["seed"]}
    return _run(lambda given: annotate_samples(_read(file), **chosen, **given), output, options)


@annotate.command()
@click.argument("baseline", type=click.Path(path_type=Path))
@click.argument("model_outputs", type=click.Path(path_type=Path))
@_dry_run_option
@_output_option
@_judge_options
def head2head(baseline: Path, model_outputs: Path, output: Path, **options: Any) -> int:
    """Compare two models' outputs: BASELINE becomes output_1, MODEL_OUTPUTS output_2."""
    from alpaca_farm_core.annotators.entry_points import annotate_head2head

    return _run(lambda given: annotate_head2head(_read(baseline), _read(model_outputs), **given), output, options)


@annotate.command()
@click.argument("file", required=False, type=click.Path(path_type=Path))
@click.option("--tolerance", default=0.1, show_default=True, help="Share of changed sides that is no news.")
@click.option("--fail-on-change", is_flag=True, help="Exit with 1 when a change is flagged.")
@_output_option
@_judge_options
def anchors(
    file: Path | None, tolerance: float, fail_on_change: bool, output: Path, as_json: bool, **options: Any
) -> int:
    """Judge the anchor pairs of FILE anew and flag a change since the first round; -o is the record that grows."""
    from alpaca_farm_core.annotators.factory import build_annotator
    from alpaca_farm_core.artifacts.store import Store
    from alpaca_farm_core.evaluation.agreement.anchors import compare_rounds, judge_anchors

    config, execution = _settings(options)
    calls = Store(options["store"]).calls
    taken = [] if file is None else [_pair_row(row) for row in _read(file)]
    with _display() as progress:
        record = judge_anchors(
            output,
            taken,
            config.model_dump(mode="json"),
            lambda draw: build_annotator(config, calls, execution, draw),
            progress,
        )
    if len(record["rounds"]) < 2:
        click.echo(f"First round of {len(record['pairs'])} anchors in {output}; run again later to compare.", err=True)
        return 0
    found = compare_rounds(record, tolerance)
    if as_json:
        print_json(found)
    else:
        _print_change(found)
    return 1 if fail_on_change and found["flags"] else 0


def _run(work: Callable[[dict[str, Any]], list[dict[str, Any]]], output: Path, options: dict[str, Any]) -> int:
    """Annotate, write the rows, and say what came of it."""
    from alpaca_farm_core.artifacts.files import write_json
    from alpaca_farm_core.artifacts.store import Store
    from flows.cli.annotated import annotations_of, figures, tell

    config, execution = _settings(options)
    if not execution.budget_account:  # a budget belongs to what is being made, over all its resumes
        execution = execution.model_copy(update={"budget_account": f"annotate {output.resolve()}"})
    calls = Store(options["store"]).calls
    if options["dry_run"]:
        return _foretell(work, config, calls, execution, options["as_json"])
    with _display() as progress:
        rows = work({"annotator": config, "calls": calls, "execution": execution, "progress": progress})
    write_json(output, rows)
    judged = annotations_of(rows)
    if options["as_json"]:
        print_json(figures(judged, len(rows)) | {"output": str(output)})
    else:
        tell(judged, len(rows), output)
    return _SOME_MISSING if any(row["preference"] is None for row in rows) else 0


def _foretell(
    work: Callable[[dict[str, Any]], Any],
    config: AnnotatorConfig,
    calls: Path,
    execution: ExecutionConfig,
    as_json: bool,
) -> int:
    """Say what annotating would take, without a call."""
    from dataclasses import asdict

    from alpaca_farm_core.annotators.estimate import Rehearsal
    from alpaca_farm_core.annotators.prices import to_pico
    from alpaca_farm_core.annotators.purse import roughly

    rehearsal = Rehearsal(config, calls, execution)
    work({"annotator": rehearsal})
    found = rehearsal.estimate
    if as_json:
        print_json({"n_pairs": rehearsal.n_pairs, **asdict(found)})
        return 0
    click.echo(f"{rehearsal.n_pairs} pairs; {found.n_calls} calls to make, {found.n_kept} answered already")
    if found.unpriced:
        click.echo(f"The price of {', '.join(found.unpriced)} is not known (execution.price_table)")
    elif found.usd:
        click.echo(f"They cost about {roughly(to_pico(found.usd))}")
    return 0


def _settings(options: dict[str, Any]) -> tuple[AnnotatorConfig, ExecutionConfig]:
    """Join the options to settings; an option of its own wins over `--set`."""
    from alpaca_farm_core.annotators.config import AnnotatorConfig
    from alpaca_farm_core.config.execution import ExecutionConfig
    from alpaca_farm_core.config.overrides import merge, nest, parse_assignments

    values = nest(parse_assignments(options["assignments"]))
    execution = dict(values.pop("execution", {}))
    values = values.pop("annotator", {}) | values
    own = {"name": options["name"], "seed": options["seed"], "label_flip": options["label_flip"]}
    own |= {"model": options["model"]} if options["model"] else {}
    execution |= {"budget_usd": options["budget_usd"]} if options["budget_usd"] is not None else {}
    execution |= {"allow_unknown_price": True} if options["allow_unknown_price"] else {}
    return (
        AnnotatorConfig.build(merge(values, own), at="annotator"),
        ExecutionConfig.build(execution, at="execution"),
    )


def _read(file: Path) -> list[Any]:
    """Read all rows of a JSON, JSONL or Parquet file."""
    from alpaca_farm_core.data.files import read_rows

    columns = ("instruction", "input", "output", "output_1", "output_2", "generator", "dataset", "label", "preference")
    return [row for _, row in read_rows(file, columns)]


def _pair_row(row: Any) -> dict[str, Any]:
    from alpaca_farm_core.data.preference_files import labelled_pair

    pair = labelled_pair(row, "anchor", labelled=False).pair
    return {"instruction": pair.instruction, "input": pair.input, "output_1": pair.output_1, "output_2": pair.output_2}


def _display() -> Any:
    """A progress display on standard error."""
    from rich.console import Console

    from flows.cli.console import TerminalDisplay

    return TerminalDisplay(Console(stderr=True))


def _print_change(found: dict[str, Any]) -> None:
    low, high = found["changed_interval"] or (0.0, 0.0)
    click.echo(
        f"{found['n_changed']} of {found['n_compared']} anchors changed sides ({low:.1%} to {high:.1%}), "
        f"mean preference {found['mean_shift'] or 0.0:+.3f}, after {found['n_rounds']} rounds."
    )
    for flag in found["flags"]:
        click.secho(f"Changed: {flag}.", fg="red")
    if not found["flags"]:
        click.echo("No change beyond the tolerance.")

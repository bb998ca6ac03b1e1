"""`alpaca-farm agreement`: judges against people, or against each other. Makes no call."""

from __future__ import annotations

from collections.abc import Mapping
from pathlib import Path
from typing import Any

import click

from flows.cli.options import json_option, print_json


@click.command()
@click.argument("annotations", nargs=-1, required=True, type=click.Path(path_type=Path))
@click.option("--human", type=click.Path(path_type=Path), help="People's labels of the same pairs.")
@click.option("--draws", default=2000, show_default=True, type=click.IntRange(min=100), help="Resamples.")
@click.option("-o", "--output", type=click.Path(path_type=Path, file_okay=False), help="Folder for table and picture.")
@json_option
def agreement(
    annotations: tuple[Path, ...], human: Path | None, draws: int, output: Path | None, as_json: bool
) -> None:
    """Measure how far the judges of ANNOTATIONS agree with people (--human), or with each other (two or more files).

    Rows need instruction (or, without it, input), output_1, output_2 and preference or label: 1 or 2, a number
    between, 0 or 1.5 for a tie. Several rows of one pair are several votes.
    """
    from alpaca_farm_core.data.preference_files import read_labelled_pairs
    from alpaca_farm_core.errors import UsageError
    from alpaca_farm_core.evaluation.agreement.report import measure_agreement

    if human is None and len(annotations) < 2:
        raise UsageError("There is nobody to agree with.", "Add --human FILE, or a second file of annotations.")
    read = {str(path): read_labelled_pairs(path) for path in annotations}
    names = _names(annotations)
    if human is not None:
        people = read_labelled_pairs(human)
        found = {names[path]: measure_agreement(rows, people, draws=draws) for path, rows in read.items()}
    else:
        first, *others = read
        found = {
            f"{names[other]} with {names[first]}": measure_agreement(read[other], read[first], draws=draws)
            for other in others
        }
    if output is not None:
        _write(output, found)
    if as_json:
        print_json(found)
        return
    _print(found)
    if output is not None:
        click.echo(f"Table and picture: {output}")


def _names(paths: tuple[Path, ...]) -> dict[str, str]:
    """Call each file by its stem, or by its path where stems repeat."""
    stems = [path.stem for path in paths]
    return {str(path): path.stem if stems.count(path.stem) == 1 else str(path) for path in paths}


def _write(folder: Path, found: Mapping[str, Any]) -> None:
    from alpaca_farm_core.artifacts.files import write_json, write_text_atomic
    from alpaca_farm_core.evaluation.agreement.picture import agreement_svg

    write_json(folder / "agreement.json", found)
    write_text_atomic(folder / "agreement.svg", agreement_svg(found))


def _print(found: Mapping[str, Mapping[str, Any]]) -> None:
    """One table, a column per judge: percent, its 95 % interval and what it rests on."""
    from rich.console import Console
    from rich.markup import escape
    from rich.table import Table

    from alpaca_farm_core.evaluation.agreement.picture import LABELS

    console = Console()
    table = Table("%, 95 % interval, n", box=None, pad_edge=False, header_style="bold")
    for name in found:
        table.add_column(escape(name), justify="right")
    for key, text in LABELS.items():
        if any(report[key]["value"] is not None for report in found.values()):
            table.add_row(text, *(_cell(report[key]) for report in found.values()))
    console.print(table)
    for name, report in found.items():
        console.print(
            f"{escape(name)}: {_footing(report)}",
            highlight=False,
            style="dim",
        )


def _cell(figure: Mapping[str, Any]) -> str:
    if figure["value"] is None:
        return "–"
    low_high = figure["interval"]
    between = f" ({100 * low_high[0]:.1f} to {100 * low_high[1]:.1f})" if low_high else ""
    return f"{100 * figure['value']:.1f}{between}  {figure['n']}"


def _footing(report: Mapping[str, Any]) -> str:
    """What was compared, and what could not be."""
    labels = f"{report['n_judge_labels']} and {report['n_reference_labels']} labels"
    left_out = {
        "pairs without a label of the judge": report["n_without_judge"],
        "pairs without a label to compare with": report["n_without_reference"],
        "rows without a label": report["n_missing"],
        "ties of the judge": report["n_judge_ties"],
        "ties it is compared with": report["n_reference_ties"],
    }
    rest = "".join(f"; {n} {what}" for what, n in left_out.items() if n)
    return f"{report['n_pairs']} pairs with {labels}{rest}."

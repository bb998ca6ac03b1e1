"""`alpaca-farm cache`: look after the answers that judges have given. Makes no call."""

from __future__ import annotations

from pathlib import Path
from typing import TYPE_CHECKING, Any

import click

from flows.cli.options import json_option, print_json, store_option

if TYPE_CHECKING:
    from alpaca_farm_core.annotators.cache import CallCache


@click.group()
def cache() -> None:
    """Show, carry and prune the judges' answers of a store. Nothing is ever removed by itself."""


@cache.command()
@store_option
@json_option
def stats(store: str | None, as_json: bool) -> None:
    """Count answers by model, and what was spent by account, annotator and model."""
    from alpaca_farm_core.annotators import cache_admin

    figures = cache_admin.stats(_open(store))
    if as_json:
        print_json(figures)
    else:
        _print_stats(figures)


@cache.command()
@click.option("--model", default="", metavar="NAME", help="Only answers of this model, as `stats` names it.")
@click.option("--refused", is_flag=True, help="Only refusals.")
@click.option("--imported", is_flag=True, help="Only imported labels.")
@click.option("--yes", is_flag=True, help="Remove them. Without it, only say what would go.")
@store_option
@json_option
def prune(model: str, refused: bool, imported: bool, yes: bool, store: str | None, as_json: bool) -> None:
    """Remove answers; asking those questions again costs their price again."""
    from alpaca_farm_core.annotators import cache_admin

    if not (model or refused or imported):
        raise click.UsageError("Say what to remove: --model, --refused or --imported.")
    gone = cache_admin.prune(_open(store), model, refused, imported, dry=not yes)
    if as_json:
        print_json({**gone, "removed": yes})
        return
    click.echo(f"{'Removed' if yes else 'Would remove'} {gone['n']} answers that cost ${gone['usd']:.2f}.")
    if not yes and gone["n"]:
        click.echo("Add --yes to do it.")


@cache.command("export")
@click.argument("file", type=click.Path(path_type=Path, dir_okay=False))
@store_option
def export_command(file: Path, store: str | None) -> None:
    """Write all answers to FILE (JSONL)."""
    from alpaca_farm_core.annotators import cache_admin

    click.echo(f"{cache_admin.export_answers(_open(store), file)} answers in {file}.")


@cache.command("import")
@click.argument("files", nargs=-1, required=True, type=click.Path(path_type=Path))
@click.option("--annotator", default="", metavar="NAME", help="Keep labels under this annotator, not the rows' own.")
@store_option
@json_option
def import_command(files: tuple[Path, ...], annotator: str, store: str | None, as_json: bool) -> None:
    """Take in FILES: exports of another cache (.jsonl), or annotations*.json of AlpacaFarm or AlpacaEval.

    Labels of annotation files stand for the annotator that they name: it is not asked about those pairs again.
    """
    from alpaca_farm_core.annotators import cache_admin
    from alpaca_farm_core.annotators.imported import import_annotations

    opened = _open(store)
    counts: dict[str, Any] = {}
    for file in files:
        if file.suffix == ".jsonl":
            counts[str(file)] = cache_admin.import_answers(opened, file)
        else:
            counts[str(file)] = dict(import_annotations(opened, file, annotator))
    if as_json:
        print_json(counts)
        return
    for name, found in counts.items():
        missing = f", {found['missing']} rows without a label" if found.get("missing") else ""
        click.echo(f"{name}: {found.get('new', 0)} new, {found.get('known', 0)} known already{missing}.")


def _open(store: str | None) -> CallCache:
    from alpaca_farm_core.annotators.cache import CallCache
    from alpaca_farm_core.artifacts.store import Store

    return CallCache(Store(store).calls)


def _print_stats(figures: dict[str, Any]) -> None:
    from rich.console import Console
    from rich.table import Table

    console = Console()
    size = figures["bytes"] / 1e6
    console.print(f"{figures['n_answers']} answers, {size:.1f} MB in {figures['folder']}", soft_wrap=True)
    if figures["models"]:
        table = Table("model", "answers", "refused", "paid", box=None, pad_edge=False)
        for name, row in figures["models"].items():
            paid = f"${row['usd']:.4f}" if row["unpriced"] < row["answers"] else "–"
            table.add_row(name, str(row["answers"]), str(row["refused"]), paid)
        console.print(table)
    if figures["spending"]:
        table = Table("account", "annotator", "model", "answers", "spent", "tokens in", "out", box=None, pad_edge=False)
        for row in figures["spending"]:
            cells = [row["account"], row["annotator"], row["model"], str(row["answers"]), f"${row['usd']:.4f}"]
            table.add_row(*cells, str(row["prompt_tokens"]), str(row["completion_tokens"]))
        console.print(table)
    for name, row in figures["accounts"].items():
        if row["n_lost"] or row["held_usd"]:
            console.print(
                f"Account '{name}': {row['n_lost']} calls cut off that may have cost up to ${row['lost_usd']:.4f}; "
                f"${row['held_usd']:.4f} held for calls in flight.",
                soft_wrap=True,
            )

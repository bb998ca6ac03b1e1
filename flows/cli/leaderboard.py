"""`alpaca-farm leaderboard …`: a table of models in a file. Makes no call."""

from __future__ import annotations

from pathlib import Path
from typing import TYPE_CHECKING, Any

import click

from flows.cli.options import json_option, print_json
from flows.cli.score import scoring_options

if TYPE_CHECKING:
    from alpaca_farm_core.evaluation.board import Board

_FILE = click.Path(path_type=Path)
_BOARD = click.argument("board", type=_FILE)
_SORT = (
    click.option("--sort", default="win_rate", show_default=True, metavar="COLUMN", help="Column to sort by."),
    click.option("--reverse", is_flag=True, help="Turn the order round."),
)


@click.group()
def leaderboard() -> None:
    """Add, compare, sort, import and export models in a leaderboard file."""


@leaderboard.command()
@_BOARD
@click.argument("files", nargs=-1, required=True, type=_FILE)
@click.option("--overwrite", is_flag=True, help="Replace models that are there already.")
@scoring_options
@json_option
def add(board: Path, files: tuple[Path, ...], overwrite: bool, as_json: bool, **options: Any) -> None:
    """Score annotation FILES and add their models to BOARD (made if it is not there)."""
    from alpaca_farm_core.evaluation.scoring import score_files
    from flows.cli.score import score_options
    from flows.cli.score_tables import warn

    table = _load(board, must_exist=False)
    scored = score_files(files, score_options(**options))
    done = {one.annotations.model: table.add_scored(one, overwrite) for one in scored}
    table.save(board)
    warn([one.row for one in scored])
    _say(done, board, as_json)


@leaderboard.command("import")
@_BOARD
@click.argument("files", nargs=-1, required=True, type=_FILE)
@click.option("--overwrite", is_flag=True, help="Replace models that are there already.")
@json_option
def import_boards(board: Path, files: tuple[Path, ...], overwrite: bool, as_json: bool) -> None:
    """Add the models of other leaderboards to BOARD: AlpacaEval's CSV, ours, or rows of `score --json`."""
    from alpaca_farm_core.evaluation.board import Board

    table = _load(board, must_exist=False)
    done = {}
    for file in files:
        other = Board.load(file)
        for model, row in other.rows.items():
            done[model] = table.add(row, other.scores.get(model), overwrite)
    table.save(board)
    _say(done, board, as_json)


@leaderboard.command()
@_BOARD
@_SORT[0]
@_SORT[1]
@json_option
def show(board: Path, sort: str, reverse: bool, as_json: bool) -> None:
    """Show BOARD with ranks and the places that the data allow."""
    rows = _load(board).sorted_rows(sort, reverse)
    if as_json:
        print_json(rows)
        return
    from flows.cli.score_tables import print_board

    print_board(rows)


@leaderboard.command()
@_BOARD
@click.argument("model")
@click.argument("other")
@json_option
def compare(board: Path, model: str, other: str, as_json: bool) -> None:
    """Compare MODEL with OTHER on the instructions that both were judged on."""
    found = _load(board).compare(model, other).to_row()
    if as_json:
        print_json(found)
        return
    from flows.cli.score_tables import print_comparison

    print_comparison(found)


@leaderboard.command()
@_BOARD
@click.option("--format", "kind", type=click.Choice(["csv", "json", "md", "html"]), help="Default: from -o's suffix.")
@click.option("-o", "--output", type=_FILE, help="File to write; default: standard output.")
@click.option("--title", default="Leaderboard", show_default=True, help="Heading of the HTML page.")
@_SORT[0]
@_SORT[1]
def export(board: Path, kind: str | None, output: Path | None, title: str, sort: str, reverse: bool) -> None:
    """Write BOARD as CSV, JSON, Markdown or one HTML page."""
    from alpaca_farm_core.artifacts.files import canonical_json, write_text_atomic
    from alpaca_farm_core.evaluation.board_formats import to_csv, to_html, to_markdown

    kind = kind or (output.suffix.lstrip(".").lower() if output else "md")
    table = _load(board)
    rows = table.sorted_rows(sort, reverse)
    makers = {
        "csv": lambda: to_csv(rows, table.columns()),
        "json": lambda: canonical_json(rows, indent=1) + "\n",
        "md": lambda: to_markdown(rows),
        "html": lambda: to_html(rows, title),
    }
    if kind not in makers:
        raise click.UsageError(f"There is no format '{kind}'. Formats: {', '.join(makers)}.")
    text = makers[kind]()
    if output is None:
        click.echo(text, nl=False)
    else:
        write_text_atomic(output, text)
        click.echo(output)


def _load(path: Path, must_exist: bool = True) -> Board:
    from alpaca_farm_core.errors import DataError
    from alpaca_farm_core.evaluation.board import Board

    if not must_exist and path.suffix == ".csv":
        raise click.UsageError("A leaderboard is kept as JSON; `leaderboard export` writes CSV.")
    board = Board.load(path) if must_exist or path.exists() else Board()
    if must_exist and not board.rows:
        raise DataError(f"{path} holds no models.", f"Add some: `alpaca-farm leaderboard add {path} ANNOTATIONS.json`.")
    return board


def _say(done: dict[str, str], board: Path, as_json: bool) -> None:
    if as_json:
        print_json(done)
        return
    for model, what in done.items():
        hint = " as it is; --overwrite replaces it" if what == "kept" else ""
        click.echo(f"{what} {model}{hint}")
    click.echo(f"See `alpaca-farm leaderboard show {board}`.")

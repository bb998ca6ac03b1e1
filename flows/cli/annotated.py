"""What `alpaca-farm annotate` says about its result, to people and to programs.

In: annotated rows. Out: figures, or a few lines.
"""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from pathlib import Path
from typing import Any

import click

from alpaca_farm_core.annotators.summary import explain_missing, price_by_annotator, summarise
from alpaca_farm_core.types import Annotation, Passport

_SHARES = {
    "parse_rate": "answers read",
    "first_position_preference": "the output shown first preferred",
    "consistency": "same winner in both orders",
}


def annotations_of(rows: Sequence[Mapping[str, Any]]) -> list[Annotation]:
    """Read the annotations back from rows; outputs without a partner have none."""
    return [
        Annotation(row["preference"], row["annotator"], row["state"], row["explanation"], _passport(row))
        for row in rows
        if row["state"] != "unmatched"
    ]


def figures(judged: Sequence[Annotation], n_rows: int) -> dict[str, Any]:
    """Count what was labelled, and measure the judge; `usd` is what the answers cost, whenever they were paid."""
    found = summarise(judged)
    found |= {"n_unmatched": n_rows - len(judged)} if n_rows > len(judged) else {}
    price = sum(price_by_annotator(judged).values())
    return found | ({"usd": price} if price else {})


def tell(judged: Sequence[Annotation], n_rows: int, output: Path) -> None:
    """Print the figures, and what can be done about labels that are missing."""
    found = figures(judged, n_rows)
    counts = {"n_ties": "identical outputs", "n_noised": "coin flips"}
    free = ", ".join(f"{found[key]} {words}" for key, words in counts.items() if found[key])
    n_labelled = found["n_total"] - found["n_missing"]
    click.echo(f"{n_labelled} of {found['n_total']} pairs labelled" + (f" ({free})" if free else "") + f": {output}")
    if "n_unmatched" in found:
        click.echo(f"{found['n_unmatched']} outputs have no partner for their instruction")
    figure = f"mean preference {found['mean_preference']:.3f}" if n_labelled else ""
    shares = [f"{words} {found[key]:.1%}" for key, words in _SHARES.items() if key in found]
    cost = [f"cost ${found['usd']:.2g}" if found["usd"] < 1 else f"cost ${found['usd']:.2f}"] if "usd" in found else []
    click.echo("; ".join([figure, *shares, *cost] if figure else [*shares, *cost]))
    if found["n_missing"]:
        what, said, advice = explain_missing(judged)
        click.secho(f"{what}.{said}", fg="yellow", err=True)
        for line in advice:
            click.echo(f"  → {line[0].upper()}{line[1:]}.", err=True)


def _passport(row: Mapping[str, Any]) -> Passport | None:
    return Passport(**row["passport"]) if row["passport"] else None

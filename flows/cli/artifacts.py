"""`alpaca-farm artifacts …`: the store, looked at and tidied. Touches the core alone."""

from __future__ import annotations

from pathlib import Path
from typing import TYPE_CHECKING, Any

import click

from flows.cli.options import json_option, print_json, store_option

if TYPE_CHECKING:
    from alpaca_farm_core.artifacts.listing import Summary


@click.group()
def artifacts() -> None:
    """List, explain, verify, move and remove artifacts."""


def _open(store: str | None) -> Any:
    from alpaca_farm_core.artifacts.store import Store

    return Store(store)


@artifacts.command("list")
@click.argument("kind", required=False)
@store_option
@json_option
def list_artifacts(kind: str | None, store: str | None, as_json: bool) -> None:
    """List artifacts, all or of one KIND."""
    from alpaca_farm_core.artifacts.listing import summaries

    opened = _open(store)
    damaged: list[str] = []
    aliases: dict[tuple[str, str], dict[str, int]] = {}
    rows = []
    for folder, artifact in summaries(opened, kind, on_damage=damaged.append):  # type: ignore[arg-type]
        name = (artifact.kind, artifact.name)
        if name not in aliases:
            aliases[name] = opened.aliases(*name)
        pointing = [alias for alias, version in aliases[name].items() if version == artifact.version]
        rows.append(_row(artifact, folder, pointing))
    for problem in damaged:
        click.secho(f"damaged: {problem}", fg="yellow", err=True)
    if as_json:
        print_json(rows)
    elif rows:
        _print_list(rows)
    else:
        click.echo(f"No artifacts yet in {opened.location}. `alpaca-farm demo` makes some.")


def _row(artifact: Summary, folder: str, aliases: list[str]) -> dict[str, Any]:
    return {
        "reference": artifact.reference,
        "aliases": aliases,
        "created": artifact.created,
        "seconds": artifact.seconds,
        "size_bytes": artifact.size_bytes,
        "fingerprint": artifact.fingerprint,
        "path": folder,
    }


def _print_list(rows: list[dict[str, Any]]) -> None:
    """Print columns as wide as they need to be; rich's tables take seconds for thousands of rows, and cut names."""
    table = [("artifact", "aliases", "made", "took", "size", "fingerprint")]
    for row in rows:
        made = row["created"][:16].replace("T", " ")
        took, size = f"{row['seconds']:.1f} s", _size(row["size_bytes"])
        table.append((row["reference"], " ".join(row["aliases"]), made, took, size, row["fingerprint"][:12]))
    widths = [max(map(len, column)) for column in zip(*table, strict=True)]
    click.echo("\n".join("  ".join(map(str.ljust, line, widths)).rstrip() for line in table))


@artifacts.command()
@click.argument("reference")
@store_option
def show(reference: str, store: str | None) -> None:
    """Print an artifact's manifest and place."""
    artifact = _open(store).get(reference)
    print_json({"reference": artifact.reference, "path": str(artifact.path), **artifact.manifest.to_json()})


@artifacts.command()
@click.argument("reference")
@store_option
def lineage(reference: str, store: str | None) -> None:
    """Show what an artifact was made from, back to the sources."""
    from alpaca_farm_core.artifacts.lineage import lineage as follow
    from alpaca_farm_core.artifacts.transfer import lineage_text

    opened = _open(store)
    click.echo(lineage_text(follow(opened, opened.get(reference).fingerprint)))


@artifacts.command()
@click.argument("reference")
@store_option
@json_option
def why(reference: str, store: str | None, as_json: bool) -> None:
    """Say which settings or inputs made this artifact a new one, against the nearest other."""
    from alpaca_farm_core.artifacts.lineage import why as explain

    opened = _open(store)
    artifact = opened.get(reference)
    reason = explain(opened, artifact.manifest.recipe, exclude=artifact.reference)
    if as_json:
        print_json(
            {
                "reference": artifact.reference,
                "nearest": reason.nearest.reference if reason.nearest else None,
                "differences": [vars(difference) for difference in reason.differences],
            }
        )
        return
    if reason.nearest is None:
        click.echo(f"{artifact.reference} is the only artifact of its stage in this store.")
        return
    click.echo(f"{artifact.reference} differs from {reason.nearest.reference} in:")
    for difference in reason.differences:
        click.echo(f"  {difference}")
    if not reason.differences:
        click.echo("  nothing; it is another build of the same recipe")


@artifacts.command()
@click.argument("references", nargs=-1)
@click.option("--lineage", "check_lineage", is_flag=True, help="Also check that inputs still are what was read.")
@store_option
def verify(references: tuple[str, ...], check_lineage: bool, store: str | None) -> int:
    """Re-hash artifacts (all, or those named) against their manifests. Exit code 1 if one is damaged."""
    from alpaca_farm_core.artifacts.verify import verify as check

    opened = _open(store)
    damaged: list[str] = []
    chosen = [opened.get(r) for r in references] or list(opened.artifacts(on_damage=damaged.append))
    findings = check(opened, chosen, check_lineage)
    for finding in findings:
        for problem in finding.problems:
            click.secho(f"{finding.reference}: {problem}", fg="red")
    for problem in damaged:
        click.secho(problem, fg="red")
    bad = len(damaged) + sum(1 for finding in findings if finding.problems)
    click.echo(f"{len(findings) + len(damaged)} artifacts checked, {bad} with problems")
    return 1 if bad else 0


@artifacts.command()
@click.option("--dry-run", is_flag=True, help="Only say what would go.")
@click.option("--older-than", type=click.FloatRange(min=0), default=0.0, metavar="DAYS", help="Leave what is younger.")
@click.option(
    "--max-size", type=click.FloatRange(min=0), metavar="GB", help="Remove the oldest, until the store is below this."
)
@store_option
def gc(dry_run: bool, older_than: float, max_size: float | None, store: str | None) -> None:
    """Remove old versions and abandoned workspaces that no alias, latest version or ancestor needs."""
    from alpaca_farm_core.artifacts.gc import plan_removal, remove

    opened = _open(store)
    removals = plan_removal(opened, older_than, max_size)
    for removal in removals:
        click.echo(f"{removal.what}  {_size(removal.size_bytes)}")
    if dry_run:
        click.echo(f"{len(removals)} would go, {_size(sum(r.size_bytes for r in removals))}")
    else:
        click.echo(f"{_size(remove(opened, removals))} freed")


@artifacts.command("export")
@click.argument("reference")
@click.argument("folder", type=click.Path(path_type=Path))
@store_option
def export_artifact(reference: str, folder: Path, store: str | None) -> None:
    """Copy an artifact to FOLDER with a card: a plain Hugging Face folder for models."""
    from alpaca_farm_core.artifacts.transfer import export

    opened = _open(store)
    click.echo(export(opened, opened.get(reference), folder))


@artifacts.command("import")
@click.argument("folder", required=False, type=click.Path(path_type=Path, exists=True, file_okay=False))
@click.option("--name", required=True, help="Name to publish under.")
@click.option(
    "--weight-diff",
    type=click.Path(path_type=Path, exists=True, file_okay=False),
    help="Folder of a published weight difference, to be added to --base.",
)
@click.option(
    "--base",
    type=click.Path(path_type=Path, exists=True, file_okay=False),
    help="Folder of the base model; of a reward model, the SFT policy it was made from.",
)
@store_option
def import_artifact(
    folder: Path | None, name: str, weight_diff: Path | None, base: Path | None, store: str | None
) -> None:
    """Bring an exported FOLDER into the store, or recover a model from a weight difference."""
    from alpaca_farm_core.errors import UsageError

    if (folder is None) == (weight_diff is None) or (weight_diff is None) != (base is None):
        raise UsageError(
            "Give either FOLDER, or --weight-diff and --base.",
            "For example: alpaca-farm artifacts import --weight-diff DIFF --base LLAMA --name sft10k",
        )
    if folder is not None:
        from alpaca_farm_core.artifacts.transfer import import_folder

        click.echo(import_folder(_open(store), folder, name).reference)
        return
    from alpaca_farm_core.models.import_diff import import_weight_diff

    assert weight_diff is not None
    assert base is not None
    click.echo(import_weight_diff(_open(store), weight_diff, base, name).reference)


@artifacts.command()
@click.argument("reference")
@click.argument("alias")
@store_option
def tag(reference: str, alias: str, store: str | None) -> None:
    """Point ALIAS at an artifact; gc keeps what an alias points at."""
    opened = _open(store)
    artifact = opened.get(reference)
    opened.tag(artifact, alias)
    click.echo(f"{artifact.kind}/{artifact.name}@{alias} → v{artifact.version}")


def _size(size_bytes: int) -> str:
    size = float(size_bytes)
    for unit in ("B", "kB", "MB"):
        if size < 1000:
            return f"{size:.0f} {unit}" if unit == "B" else f"{size:.1f} {unit}"
        size /= 1000
    return f"{size:.1f} GB"

"""Where an artifact comes from, and why a stage had to run: differences between two recipes.

Knows recipes and the store; runs nothing. A difference is named in the user's terms: a dotted
setting with both values, a stage version, an input (followed back to its own first difference).
"""

from __future__ import annotations

from collections.abc import Mapping
from dataclasses import dataclass, field
from typing import Any

from alpaca_farm_core.artifacts.listing import artifacts_of_stage
from alpaca_farm_core.artifacts.manifest import Artifact, Recipe
from alpaca_farm_core.artifacts.store import Store
from alpaca_farm_core.config.overrides import flatten


@dataclass(frozen=True)
class Difference:
    """One thing in which two recipes differ: dotted name, old value, new value."""

    name: str
    old: Any
    new: Any

    def __str__(self) -> str:
        return f"{self.name}: {self.old!r} → {self.new!r}"


@dataclass(frozen=True)
class Lineage:
    """An artifact, or a fingerprint whose artifact is gone, and what it was made from."""

    fingerprint: str
    artifact: Artifact | None
    inputs: dict[str, Lineage] = field(default_factory=dict)


@dataclass(frozen=True)
class Reason:
    """Why a recipe has no artifact: the nearest one there is, and what differs (empty: none is near)."""

    nearest: Artifact | None
    differences: tuple[Difference, ...]

    def __str__(self) -> str:
        if self.nearest is None:
            return "never run in this store"
        shown = "; ".join(str(difference) for difference in self.differences[:3])
        more = f" and {len(self.differences) - 3} more" if len(self.differences) > 3 else ""
        return f"{shown}{more} (against {self.nearest.reference})"


def lineage(store: Store, fingerprint: str, known: dict[str, Lineage] | None = None) -> Lineage:
    """Follow the inputs of a fingerprint back to the sources; each source is looked up once.

    Args:
        store: Where to look.
        fingerprint: Whose lineage.
        known: Lineages found by earlier calls; added to in place.
    """
    known = {} if known is None else known
    if fingerprint not in known:
        artifact = store.find(fingerprint, payload=False)
        inputs = artifact.manifest.recipe.inputs if artifact else {}
        sources = {role: lineage(store, source, known) for role, source in sorted(inputs.items())}
        known[fingerprint] = Lineage(fingerprint, artifact, sources)
    return known[fingerprint]


def why(store: Store, recipe: Recipe, planned: Mapping[str, Recipe] | None = None, exclude: str = "") -> Reason:
    """Explain which settings or inputs set `recipe` apart from the nearest artifact of its stage.

    Args:
        store: Where to look.
        recipe: The recipe in question, run or not.
        planned: Fingerprint → recipe of stages that have not run yet, to follow inputs into them.
        exclude: Reference of an artifact not to compare with (the one being asked about).
    """
    candidates = [
        (differences(store, artifact.manifest.recipe, recipe, planned or {}), artifact)
        for artifact in artifacts_of_stage(store, recipe.stage)
        if artifact.reference != exclude
    ]
    if not candidates:
        return Reason(None, ())
    found, nearest = min(candidates, key=lambda c: (len(c[0]), -float(c[1].manifest.volatile.get("finished_at", 0))))
    return Reason(nearest, tuple(found))


def differences(store: Store, old: Recipe, new: Recipe, planned: Mapping[str, Recipe]) -> list[Difference]:
    """List what differs between two recipes of one stage, inputs followed to their own differences."""
    found = [Difference(f"{new.stage} (stage version)", old.stage_version, new.stage_version)]
    found += _compare(f"{new.stage}.", flatten(old.config), flatten(new.config))
    found += _compare(f"{new.stage} reads ", old.external, new.external)
    for role in sorted({*old.inputs, *new.inputs}):
        found += _input_differences(store, role, old.inputs.get(role), new.inputs.get(role), planned)
    unique = {difference.name: difference for difference in found if difference.old != difference.new}
    return list(unique.values())


def _compare(prefix: str, old: Mapping[str, Any], new: Mapping[str, Any]) -> list[Difference]:
    return [Difference(prefix + key, old.get(key), new.get(key)) for key in sorted({*old, *new})]


def _input_differences(
    store: Store, role: str, old: str | None, new: str | None, planned: Mapping[str, Recipe]
) -> list[Difference]:
    if old == new:
        return []
    old_recipe, new_recipe = _recipe(store, old, planned), _recipe(store, new, planned)
    if old_recipe and new_recipe and old_recipe.stage == new_recipe.stage:
        return differences(store, old_recipe, new_recipe, planned)
    return [Difference(f"input {role}", old and old[:12], new and new[:12])]


def _recipe(store: Store, fingerprint: str | None, planned: Mapping[str, Recipe]) -> Recipe | None:
    if fingerprint is None:
        return None
    if fingerprint in planned:
        return planned[fingerprint]
    artifact = store.find(fingerprint, payload=False)
    return artifact.manifest.recipe if artifact else None

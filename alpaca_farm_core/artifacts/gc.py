"""Removal of what nothing needs: unaliased old versions and abandoned workspaces.

Kept: every version an alias points at, the latest version of each name, and all their ancestors.
Nothing that a running process holds is touched.
"""

from __future__ import annotations

from dataclasses import dataclass
from pathlib import Path

from alpaca_farm_core.artifacts.lineage import Lineage, lineage
from alpaca_farm_core.artifacts.manifest import Artifact
from alpaca_farm_core.artifacts.store import Store


@dataclass(frozen=True)
class Removal:
    """One folder that may go: what it is, where, and its size in bytes."""

    what: str
    path: Path
    size_bytes: int
    fingerprint: str


def plan_removal(store: Store) -> list[Removal]:
    """List what may go, removing nothing."""
    kept = _kept_paths(store)
    old = [_removal(a.reference, a.path, a.fingerprint) for a in store.artifacts() if a.path not in kept]
    workspaces = sorted((store.root / "workspaces").glob("*"))
    idle = [_removal(f"workspace {p.name[:12]}", p, p.name) for p in workspaces if not store.is_busy(p.name)]
    return old + idle


def remove(store: Store, removals: list[Removal]) -> int:
    """Remove planned folders and return the bytes freed; a folder in use by now is passed over."""
    freed = 0
    for removal in removals:
        if store.is_busy(removal.fingerprint):
            continue
        with store.lock(removal.fingerprint):
            if removal.path.exists():
                store.discard(removal.path)
                freed += removal.size_bytes
    return freed


def _kept_paths(store: Store) -> set[Path]:
    by_name: dict[tuple[str, str], dict[int, Artifact]] = {}
    for artifact in store.artifacts():
        by_name.setdefault((artifact.kind, artifact.name), {})[artifact.version] = artifact
    kept: set[Path] = set()
    for (kind, name), versions in by_name.items():
        wanted = {max(versions), *store.aliases(kind, name).values()}
        for version in wanted & versions.keys():
            kept.add(versions[version].path)
            for source in lineage(store, versions[version].fingerprint).inputs.values():
                kept |= _paths(source)
    return kept


def _paths(node: Lineage) -> set[Path]:
    own = {node.artifact.path} if node.artifact else set()
    return own.union(*(_paths(source) for source in node.inputs.values()))


def _removal(what: str, path: Path, fingerprint: str) -> Removal:
    return Removal(what, path, sum(f.stat().st_size for f in path.rglob("*") if f.is_file()), fingerprint)

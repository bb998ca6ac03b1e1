"""Removal of what nothing needs: unaliased old versions and abandoned workspaces.

Kept: every version an alias points at, the latest version of each name, and all their ancestors.
Nothing that a running process holds is touched. Age and size bound what goes, never what is kept.
"""

from __future__ import annotations

from dataclasses import dataclass
from datetime import UTC, datetime
from pathlib import Path

from alpaca_farm_core.artifacts.lineage import Lineage, lineage
from alpaca_farm_core.artifacts.manifest import Artifact
from alpaca_farm_core.artifacts.store import Store


@dataclass(frozen=True)
class Removal:
    """One folder that may go: what it is, where, its size in bytes, and when it was last written (seconds, epoch)."""

    what: str
    path: Path
    size_bytes: int
    fingerprint: str
    written: float


def plan_removal(store: Store, older_than_days: float = 0.0, max_gb: float | None = None) -> list[Removal]:
    """List what may go, oldest first, removing nothing.

    Args:
        store: The store.
        older_than_days: Only what was last written so many days ago.
        max_gb: Only as much as brings the artifacts and workspaces of the store below this size; None = all.
    """
    artifacts = list(store.artifacts())
    kept = _kept_paths(store, artifacts)
    old = [_artifact_removal(artifact) for artifact in artifacts if artifact.path not in kept]
    workspaces = sorted((store.root / "workspaces").glob("*"))
    idle = [_workspace_removal(path) for path in workspaces if not store.is_busy(path.name)]
    before = datetime.now(UTC).timestamp() - older_than_days * 86400
    ripe = sorted((r for r in old + idle if r.written <= before), key=lambda removal: removal.written)
    if max_gb is None:
        return ripe
    size = sum(_artifact_size(artifact) for artifact in artifacts) + sum(_folder_size(path) for path in workspaces)
    return _as_many_as(ripe, size - max_gb * 1e9)


def _as_many_as(removals: list[Removal], surplus_bytes: float) -> list[Removal]:
    chosen: list[Removal] = []
    for removal in removals:
        if surplus_bytes <= 0:
            break
        chosen.append(removal)
        surplus_bytes -= removal.size_bytes
    return chosen


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


def _kept_paths(store: Store, artifacts: list[Artifact]) -> set[Path]:
    by_name: dict[tuple[str, str], dict[int, Artifact]] = {}
    for artifact in artifacts:
        by_name.setdefault((artifact.kind, artifact.name), {})[artifact.version] = artifact
    kept: set[Path] = set()
    sources: dict[str, Lineage] = {}
    for (kind, name), versions in by_name.items():
        wanted = {max(versions), *store.aliases(kind, name).values()}
        for version in wanted & versions.keys():
            kept.add(versions[version].path)
            for fingerprint in versions[version].manifest.recipe.inputs.values():
                lineage(store, fingerprint, sources)
    return kept | {node.artifact.path for node in sources.values() if node.artifact}


def _artifact_removal(artifact: Artifact) -> Removal:
    made = artifact.manifest.volatile["finished_at"]
    return Removal(artifact.reference, artifact.path, _artifact_size(artifact), artifact.fingerprint, made)


def _artifact_size(artifact: Artifact) -> int:
    return sum(entry.size for entry in artifact.manifest.files)


def _workspace_removal(path: Path) -> Removal:
    written = max((inside.stat().st_mtime for inside in path.rglob("*")), default=path.stat().st_mtime)
    return Removal(f"workspace {path.name[:12]}", path, _folder_size(path), path.name, written)


def _folder_size(path: Path) -> int:
    return sum(inside.stat().st_size for inside in path.rglob("*") if inside.is_file())

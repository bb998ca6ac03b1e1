"""All artifacts of a store at a glance: a line each, without reading manifests that were read before.

The lines are kept in `listing.json` beside the artifacts, each with its manifest's inode, size and time of change; a
manifest that is not quite that file is read again. The file holds nothing of its own: without it, it is made anew.
"""

from __future__ import annotations

import contextlib
import json
import os
from collections.abc import Callable, Iterator
from dataclasses import dataclass
from pathlib import Path
from typing import Any

from alpaca_farm_core.artifacts.manifest import MANIFEST, Artifact, Kind
from alpaca_farm_core.artifacts.store import Store
from alpaca_farm_core.errors import ArtifactDamagedError, DataError

FILE = "listing.json"
_SCHEMA = 2


@dataclass(frozen=True)
class Summary:
    """What a list shows of an artifact.

    Attributes:
        reference: For example `policy/ppo@v3`.
        kind: Artifact kind.
        name: Name it was published under.
        version: Its number.
        stage: Stage that made it.
        created: Time, ISO 8601.
        seconds: How long it took.
        size_bytes: Of its files.
        fingerprint: Of its recipe.
    """

    reference: str
    kind: str
    name: str
    version: int
    stage: str
    created: str
    seconds: float
    size_bytes: int
    fingerprint: str

    @classmethod
    def of(cls, artifact: Artifact) -> Summary:
        """Sum an artifact up."""
        manifest = artifact.manifest
        return cls(
            artifact.reference,
            artifact.kind,
            artifact.name,
            artifact.version,
            manifest.recipe.stage,
            manifest.volatile["created"],
            manifest.volatile["seconds"],
            sum(entry.size for entry in manifest.files),
            artifact.fingerprint,
        )


def summaries(
    store: Store, kind: Kind | None = None, on_damage: Callable[[str], None] | None = None, keep: bool = True
) -> list[tuple[str, Summary]]:
    """(Folder, summary) of every artifact with a readable manifest, by kind, name and version; report the others.

    The lines are kept for the next time, unless `keep` is false.
    """
    known = _read(store.root / FILE)
    found: dict[str, list[Any]] = {}
    for folder in store.folders(kind):
        with contextlib.suppress(FileNotFoundError):  # removed just now
            status = os.stat(f"{folder}/{MANIFEST}")
            seen = [status.st_ino, status.st_size, status.st_mtime_ns]
            entry = known.get(folder)
            if entry is not None and entry[0] == seen:
                found[folder] = entry
                continue
            try:
                found[folder] = [seen, [*vars(Summary.of(Artifact.read(Path(folder)))).values()]]
            except (ArtifactDamagedError, DataError) as error:
                if on_damage is not None:
                    on_damage(error.headline)
    kept = found if kind is None else {**known, **found}
    if keep and kept != known:
        _write(store.root / FILE, kept)
    return [(folder, Summary(*entry[1])) for folder, entry in found.items()]


def artifacts_of_stage(store: Store, stage: str) -> Iterator[Artifact]:
    """Yield the artifacts that a stage made; only their manifests are read, and nothing is written."""
    for folder, summary in summaries(store, keep=False):
        if summary.stage == stage:
            with contextlib.suppress(ArtifactDamagedError, DataError):  # `artifacts list` reports it
                yield Artifact.read(Path(folder))


def _read(path: Path) -> dict[str, list[Any]]:
    """Lines kept earlier; none where the file is missing, damaged or of another version."""
    try:
        kept = json.loads(path.read_text(encoding="utf-8"))
        return dict(kept["artifacts"]) if kept["schema_version"] == _SCHEMA else {}
    except (OSError, ValueError, KeyError, TypeError):
        return {}


def _write(path: Path, entries: dict[str, list[Any]]) -> None:
    """Replace the file whole; a store that cannot be written to goes without it."""
    temporary = path.with_name(f".{path.name}.{os.getpid()}.tmp")
    with contextlib.suppress(OSError):
        temporary.write_text(json.dumps({"schema_version": _SCHEMA, "artifacts": entries}), encoding="utf-8")
        temporary.replace(path)

"""Recipes, manifests and artifacts.

A recipe says what is to be computed; its sha256 is the fingerprint. A manifest says what was
computed: a semantic part (equal for bit-identical results) and a volatile part (times, machine).
"""

from __future__ import annotations

from collections.abc import Mapping
from dataclasses import asdict, dataclass, field, fields
from functools import cached_property
from pathlib import Path
from typing import Any, Literal, get_args

from alpaca_farm_core.artifacts.files import canonical_json, read_json, sha256_text
from alpaca_farm_core.errors import ArtifactDamagedError, StoreError

Kind = Literal[
    "dataset",
    "policy",
    "reward_model",
    "outputs",
    "preferences",
    "logprobs",
    "evaluation",
    "measurement",
    "leaderboard",
    "comparison",
    "anchors",
    "history",
    "report",
]
KINDS: tuple[str, ...] = get_args(Kind)
MANIFEST = "manifest.json"
SCHEMA_VERSION = 1


@dataclass(frozen=True)
class Recipe:
    """All that decides a stage's result.

    Attributes:
        stage: Stage name.
        stage_version: Stage version.
        config: Semantic config as plain JSON values.
        inputs: Role → fingerprint of the input artifact.
        external: Name → content hash of what is read from outside the store.
    """

    stage: str
    stage_version: int
    config: Mapping[str, Any]
    inputs: Mapping[str, str] = field(default_factory=dict)
    external: Mapping[str, str] = field(default_factory=dict)

    @cached_property
    def fingerprint(self) -> str:
        """sha256 of the canonical JSON of the recipe (64 hex digits)."""
        return sha256_text(canonical_json({part.name: getattr(self, part.name) for part in fields(self)}))


@dataclass(frozen=True)
class FileEntry:
    """One file of an artifact: path relative to its folder, size in bytes, sha256."""

    path: str
    size: int
    sha256: str


@dataclass(frozen=True)
class Manifest:
    """What an artifact is and where it came from.

    Attributes:
        kind: Artifact kind.
        recipe: What was computed.
        files: Payload files, sorted by path.
        metrics: Deterministic figures of the stage.
        input_contents: Role → content hash of the input actually read.
        n_missing: Examples published without annotation.
        volatile: Name, version, times, cost, host, environment, execution settings, volatile files.
    """

    kind: Kind
    recipe: Recipe
    files: tuple[FileEntry, ...]
    metrics: Mapping[str, Any]
    input_contents: Mapping[str, str]
    n_missing: int = 0
    volatile: Mapping[str, Any] = field(default_factory=dict)

    @property
    def content(self) -> str:
        """Hash of the payload: equal exactly when all payload files are equal."""
        return sha256_text(canonical_json([[f.path, f.size, f.sha256] for f in self.files]))

    def semantic(self) -> dict[str, Any]:
        """The part that bit-identical results share."""
        return {
            "kind": self.kind,
            "fingerprint": self.recipe.fingerprint,
            "recipe": asdict(self.recipe),
            "files": [asdict(entry) for entry in self.files],
            "metrics": dict(self.metrics),
            "input_contents": dict(self.input_contents),
            "n_missing": self.n_missing,
        }

    def to_json(self) -> dict[str, Any]:
        """The manifest as written to disk."""
        return {"schema_version": SCHEMA_VERSION, "semantic": self.semantic(), "volatile": dict(self.volatile)}

    @classmethod
    def from_json(cls, data: Mapping[str, Any], place: Path) -> Manifest:
        """Parse a manifest; `place` is named in errors.

        Raises:
            ArtifactDamagedError: the manifest is incomplete.
            StoreError: a newer version of this package wrote it.
        """
        if data.get("schema_version", 0) > SCHEMA_VERSION:
            raise StoreError(
                f"{place} was written by a newer version (schema {data['schema_version']} > {SCHEMA_VERSION}).",
                "Upgrade alpaca-farm-flows, or use another store.",
            )
        try:
            semantic = data["semantic"]
            return cls(
                kind=semantic["kind"],
                recipe=Recipe(**semantic["recipe"]),
                files=tuple(FileEntry(**entry) for entry in semantic["files"]),
                metrics=semantic["metrics"],
                input_contents=semantic["input_contents"],
                n_missing=semantic["n_missing"],
                volatile=data["volatile"],
            )
        except (KeyError, TypeError) as error:
            raise ArtifactDamagedError(
                f"{place} is incomplete: {error}.", "Run the flow again to rebuild it."
            ) from None


@dataclass(frozen=True)
class Artifact:
    """A published, immutable folder and its manifest."""

    path: Path
    manifest: Manifest

    @classmethod
    def read(cls, path: Path) -> Artifact:
        """Open the artifact at `path`.

        Raises:
            ArtifactDamagedError: its manifest is unreadable.
            DataError: it has no manifest.
        """
        place = path / MANIFEST
        return cls(path, Manifest.from_json(read_json(place), place))

    @property
    def kind(self) -> Kind:
        """Artifact kind."""
        return self.manifest.kind

    @property
    def fingerprint(self) -> str:
        """Fingerprint of its recipe."""
        return self.manifest.recipe.fingerprint

    @property
    def name(self) -> str:
        """Name under which it was published."""
        return str(self.manifest.volatile["name"])

    @property
    def version(self) -> int:
        """Version number among artifacts of its kind and name, from 1."""
        return int(self.manifest.volatile["version"])

    @property
    def reference(self) -> str:
        """Readable address, for example `policy/ppo@v3`."""
        return f"{self.kind}/{self.name}@v{self.version}"

    @property
    def metrics(self) -> Mapping[str, Any]:
        """Deterministic figures of the stage that made it."""
        return self.manifest.metrics

"""Re-hash artifacts against their manifests, and their inputs against what they were built from."""

from __future__ import annotations

from collections.abc import Iterable
from dataclasses import dataclass

from alpaca_farm_core.artifacts.files import sha256_file
from alpaca_farm_core.artifacts.manifest import Artifact
from alpaca_farm_core.artifacts.store import Store, check_sizes
from alpaca_farm_core.errors import ArtifactDamagedError


@dataclass(frozen=True)
class Finding:
    """One artifact's state: `problems` is empty when it is sound."""

    reference: str
    problems: tuple[str, ...]


def verify(store: Store, artifacts: Iterable[Artifact], check_lineage: bool = False) -> list[Finding]:
    """Check artifacts one by one.

    Args:
        store: Where the inputs are looked up.
        artifacts: What to check.
        check_lineage: Also report inputs whose present content is not what the artifact was built
            from (another build of the same recipe), and inputs that are gone.
    """
    return [
        Finding(artifact.reference, (*_damage(store, artifact), *(_lineage(store, artifact) if check_lineage else ())))
        for artifact in artifacts
    ]


def _damage(store: Store, artifact: Artifact) -> tuple[str, ...]:
    try:
        if artifact.path.is_relative_to(store.root):
            store.check(artifact)  # a store of many machines fetches what is not here
        check_sizes(artifact)
    except ArtifactDamagedError as error:
        return (error.headline,)
    changed = [
        entry.path for entry in artifact.manifest.files if sha256_file(artifact.path / entry.path) != entry.sha256
    ]
    return tuple(f"{path}: content changed since it was published" for path in changed)


def _lineage(store: Store, artifact: Artifact) -> tuple[str, ...]:
    problems = []
    for role, fingerprint in sorted(artifact.manifest.recipe.inputs.items()):
        source = store.find(fingerprint, payload=False)
        if source is None:
            problems.append(f"input {role} ({fingerprint[:12]}) is gone")
        elif source.manifest.content != artifact.manifest.input_contents[role]:
            problems.append(f"input {role} is now {source.reference}, another build than the one read")
    return tuple(problems)

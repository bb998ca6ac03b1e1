"""Artifacts out of the store as plain folders with a model card, and back in.

Export writes ordinary Hugging Face folders (policies, reward models) or data files. Import brings
back an exported artifact with its manifest, checked file by file.
"""

from __future__ import annotations

import shutil
from pathlib import Path

from alpaca_farm_core.artifacts.disk import readable_storage_errors
from alpaca_farm_core.artifacts.files import canonical_json, write_text_atomic
from alpaca_farm_core.artifacts.lineage import Lineage, lineage
from alpaca_farm_core.artifacts.manifest import MANIFEST, Artifact
from alpaca_farm_core.artifacts.store import Store, check_name
from alpaca_farm_core.artifacts.verify import verify
from alpaca_farm_core.errors import ArtifactDamagedError, UsageError

CARD = "README.md"


def export(store: Store, artifact: Artifact, target: Path) -> Path:
    """Copy an artifact to a new folder and add a card with lineage, metrics and data licence.

    Raises:
        UsageError: the target exists and is not an empty folder.
        ArtifactDamagedError: the artifact does not match its manifest.
    """
    if target.exists() and (not target.is_dir() or any(target.iterdir())):
        raise UsageError(f"{target} already exists.", "Choose a new or empty folder.")
    _refuse_damaged(store, artifact)
    with readable_storage_errors(target):
        shutil.copytree(artifact.path, target, dirs_exist_ok=True)
        write_text_atomic(target / CARD, model_card(store, artifact))
    return target


def import_folder(store: Store, folder: Path, name: str) -> Artifact:
    """Publish an exported folder in this store under its own fingerprint.

    Raises:
        DataError: the folder has no manifest.
        ArtifactDamagedError: its files do not match it.
    """
    check_name(name)
    source = Artifact.read(folder)
    _refuse_damaged(store, source)
    with store.lock(source.fingerprint), readable_storage_errors(store.root):
        present = store.find(source.fingerprint)
        if present is not None and present.manifest.content == source.manifest.content:
            return present
        staging = store.workspace(source.fingerprint) / "import"
        shutil.rmtree(staging, ignore_errors=True)
        shutil.copytree(folder, staging, ignore=shutil.ignore_patterns(CARD, MANIFEST))
        artifact = store.publish(staging, source.manifest, name)
        shutil.rmtree(store.workspace(source.fingerprint), ignore_errors=True)
    return artifact


def model_card(store: Store, artifact: Artifact) -> str:
    """Write the card: what it is, how it was made, its figures, and whose data is in it."""
    manifest = artifact.manifest
    licence = _licence(lineage(store, artifact.fingerprint)) or "unknown; see the sources of its dataset"
    plain = {key: value for key, value in sorted(manifest.metrics.items()) if not isinstance(value, dict | list)}
    metrics = "\n".join(f"| {key} | {value} |" for key, value in plain.items())
    return f"""---
tags: [alpaca-farm, {artifact.kind.replace("_", "-")}]
---
# {artifact.name} ({artifact.kind.replace("_", " ")}, v{artifact.version})

Made by the stage `{manifest.recipe.stage}` (version {manifest.recipe.stage_version}) of alpaca-farm-flows.
Fingerprint `{artifact.fingerprint}`.

Data licence: {licence}.

## Figures
| name | value |
| --- | --- |
{metrics}

## Lineage
```
{lineage_text(lineage(store, artifact.fingerprint))}
```

## Settings
```json
{canonical_json(manifest.recipe.config, indent=1)}
```
"""


def lineage_text(node: Lineage, role: str = "", depth: int = 0) -> str:
    """Draw a lineage as an indented tree, one artifact a line."""
    label = node.artifact.reference if node.artifact else "gone"
    line = f"{'  ' * depth}{role + ': ' if role else ''}{label}  {node.fingerprint[:12]}"
    return "\n".join([line, *(lineage_text(source, name, depth + 1) for name, source in node.inputs.items())])


def _licence(node: Lineage) -> str:
    if node.artifact is not None and node.artifact.kind == "dataset":
        return str(node.artifact.metrics.get("licence", ""))
    found = {licence for source in node.inputs.values() if (licence := _licence(source))}
    return ", ".join(sorted(found))


def _refuse_damaged(store: Store, artifact: Artifact) -> None:
    problems = verify(store, [artifact])[0].problems
    if problems:
        raise ArtifactDamagedError(f"{artifact.path} is damaged: {problems[0]}.", "Run the flow again to rebuild it.")

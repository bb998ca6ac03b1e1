"""The two sides of an evaluation, named by a user: a file, an outputs artifact, or a policy to decode.

In: names. Out: outputs artifacts, made or found in the store, and how many calls their judging may take.
"""

from __future__ import annotations

import re
from collections.abc import Callable
from dataclasses import dataclass
from pathlib import Path

from alpaca_farm_core.annotators.estimate import estimate_calls
from alpaca_farm_core.artifacts.lineage import Lineage, lineage
from alpaca_farm_core.artifacts.manifest import Artifact
from alpaca_farm_core.artifacts.store import Store
from alpaca_farm_core.config.study import StudyConfig
from alpaca_farm_core.data.rows import read_outputs
from alpaca_farm_core.errors import ArtifactNotFoundError, DataError
from alpaca_farm_core.evaluation.config import EvaluationConfig
from alpaca_farm_core.evaluation.matching import generator_name, match
from alpaca_farm_core.evaluation.output_files import ImportOutputsConfig, import_stage
from alpaca_farm_core.generation.stage import STAGE_DECODE
from alpaca_farm_core.pipeline.progress import Progress
from alpaca_farm_core.pipeline.run import run_stage


@dataclass(frozen=True)
class Estimate:
    """What judging will take at most, before it starts.

    Attributes:
        model: Name of the model.
        reference: Name of the reference.
        n_pairs: Instructions both answered.
        n_ties: Of these, equal answers, which need no judge.
        api_calls: Calls to make.
        n_kept: Calls answered before, which are not made again.
        usd: What the calls to make are likely to cost; None where a price is not known.
        unpriced: Models without a price.
        n_unmatched: Instructions only one side answered; not judged.
    """

    model: str
    reference: str
    n_pairs: int
    n_ties: int
    api_calls: int
    n_kept: int
    usd: float | None
    unpriced: tuple[str, ...]
    n_unmatched: int


def resolve(
    named: str,
    store: Store,
    study: StudyConfig,
    data: str = "",
    generator: str = "",
    progress: Callable[[str], Progress] | None = None,
) -> Artifact:
    """Return the outputs that a user named.

    Args:
        named: A file; else an artifact: outputs as they are, a policy to be decoded as the study says.
        store: Where artifacts are.
        study: Settings of the decoding.
        data: Dataset artifact whose instructions a policy answers; empty takes the one it was trained on.
        generator: Name to give the model of a file.
        progress: Title of a stage → where it reports.

    Raises:
        ArtifactNotFoundError: neither a file nor an artifact.
        DataError: the file is no file of outputs, or the artifact is of another kind.
    """
    path = Path(named).expanduser()
    if path.is_file() or (path.suffix in (".json", ".jsonl")):
        return _import(path, store, generator, progress)
    artifact = store.get(named)
    if artifact.kind == "outputs":
        return artifact
    if artifact.kind != "policy":
        raise DataError(
            f"{artifact.reference} is of kind {artifact.kind}.",
            "Name a file of outputs, an outputs artifact or a policy.",
        )
    dataset = store.get(data) if data else trained_on(artifact, store)
    return run_stage(
        STAGE_DECODE,
        study.section("decode"),
        {"policy": artifact, "data": dataset},
        store=store,
        name=f"{artifact.name}-answers",
        execution=study.execution,
        progress=progress(f"decode {artifact.name}") if progress else None,
    ).artifact


def estimate(outputs: Artifact, reference: Artifact, study: StudyConfig, store: Store) -> Estimate:
    """Count the pairs to judge and the calls to make, and price them; asks nobody, needs no key.

    Raises:
        DataError: the two sides have no instruction in common, or one holds several models.
    """
    ours, theirs = (read_outputs(side.path / "outputs.jsonl") for side in (outputs, reference))
    names = generator_name(ours, "outputs"), generator_name(theirs, "reference outputs")
    matched = match(ours, theirs)
    pairs = matched.pairs()
    config = study.section("evaluate")
    assert isinstance(config, EvaluationConfig)
    calls = estimate_calls(config.seeded_annotator(), store.calls, study.execution, pairs)
    return Estimate(
        model=names[0],
        reference=names[1],
        n_pairs=len(pairs),
        n_ties=sum(pair.output_1 == pair.output_2 for pair in pairs),
        api_calls=calls.n_calls,
        n_kept=calls.n_kept,
        usd=calls.usd,
        unpriced=calls.unpriced,
        n_unmatched=matched.n_unmatched_model + matched.n_unmatched_reference,
    )


def artifact_name(text: str) -> str:
    """A name the store accepts, made from any text."""
    return re.sub(r"[^a-z0-9._-]+", "-", text.lower()).strip("-._") or "outputs"


def _import(path: Path, store: Store, generator: str, progress: Callable[[str], Progress] | None) -> Artifact:
    return run_stage(
        import_stage(path),
        ImportOutputsConfig(generator=generator, fallback=path.stem),
        {},
        store=store,
        name=artifact_name(generator or path.stem),
        progress=progress(f"import {path.name}") if progress else None,
    ).artifact


def trained_on(policy: Artifact, store: Store) -> Artifact:
    """The one dataset among a policy's ancestors.

    Raises:
        ArtifactNotFoundError: there is none in the store, or several.
    """
    found = {artifact.fingerprint: artifact for artifact in _datasets(lineage(store, policy.fingerprint))}
    if len(found) != 1:
        raise ArtifactNotFoundError(
            f"{policy.reference} comes from {len(found)} datasets in this store.", "Name one with --data."
        )
    return next(iter(found.values()))


def _datasets(node: Lineage) -> list[Artifact]:
    own = [node.artifact] if node.artifact is not None and node.artifact.kind == "dataset" else []
    return own + [found for source in node.inputs.values() for found in _datasets(source)]

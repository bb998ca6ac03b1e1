"""Which policies are due, and what each is compared with.

In: a store, settings and the time. Out: candidates as artifacts, and why others were left out. Reads
manifests only; makes nothing.
"""

from __future__ import annotations

from collections.abc import Iterator
from dataclasses import dataclass
from datetime import datetime, timedelta

from alpaca_farm_core.artifacts.lineage import Lineage, lineage
from alpaca_farm_core.artifacts.manifest import Artifact
from alpaca_farm_core.artifacts.store import Store
from alpaca_farm_core.errors import ArtifactNotFoundError, DataError
from alpaca_farm_core.evaluation.reevaluation.config import ReevaluateConfig
from alpaca_farm_core.evaluation.sides import trained_on


@dataclass(frozen=True)
class Candidate:
    """A policy to evaluate.

    Attributes:
        policy: The policy; its name is the model's name in the history.
        data: Dataset whose instructions it answers.
        reference: Policy or outputs it is compared with.
    """

    policy: Artifact
    data: Artifact
    reference: Artifact


@dataclass(frozen=True)
class Selection:
    """Candidates by name, and left-out policies with the reason."""

    candidates: dict[str, Candidate]
    skipped: dict[str, str]


def select(store: Store, settings: ReevaluateConfig, now: datetime) -> Selection:
    """Choose the policies to evaluate.

    Raises:
        ArtifactNotFoundError: a named policy, reference or dataset is not there, or nothing is due.
        DataError: a named artifact is of the wrong kind.
    """
    fixed = _reference(store, settings.reference) if settings.reference else None
    data = store.get(settings.data) if settings.data else None
    candidates: dict[str, Candidate] = {}
    skipped: dict[str, str] = {}
    for policy in _policies(store, settings, now):
        reference = fixed or _sft_model(store, policy)
        if reference.fingerprint == policy.fingerprint:
            skipped[policy.reference] = "it is the reference itself"
        else:
            candidates[policy.name] = Candidate(policy, data or trained_on(policy, store), reference)
    if not candidates:
        left = "; ".join(f"{name}: {reason}" for name, reason in skipped.items())
        raise ArtifactNotFoundError(
            f"No policy is due for evaluation{f' ({left})' if left else ''}.",
            "Choose some by reevaluate.policies, reevaluate.alias or a longer reevaluate.last_days.",
        )
    return Selection(candidates, skipped)


def _policies(store: Store, settings: ReevaluateConfig, now: datetime) -> list[Artifact]:
    """One version per name."""
    if settings.policies:
        found = [store.get(name if "/" in name else f"policy/{name}") for name in settings.policies]
        wrong = [artifact.reference for artifact in found if artifact.kind != "policy"]
        if wrong:
            raise DataError(f"{wrong[0]} is no policy.", "Name policies in reevaluate.policies.")
        return list({artifact.name: artifact for artifact in found}.values())
    newest = {artifact.name: artifact for artifact in store.artifacts("policy")}  # versions come in rising order
    if settings.alias:
        return [store.get(f"policy/{name}@{settings.alias}") for name in newest if _has(store, name, settings.alias)]
    if not settings.last_days:
        return list(newest.values())
    since = (now - timedelta(days=settings.last_days)).timestamp()
    return [artifact for artifact in newest.values() if artifact.manifest.volatile["finished_at"] >= since]


def _has(store: Store, name: str, alias: str) -> bool:
    return alias == "latest" or alias in store.aliases("policy", name)


def _reference(store: Store, named: str) -> Artifact:
    found = store.get(named)
    if found.kind not in ("policy", "outputs"):
        raise DataError(f"{found.reference} is of kind {found.kind}.", "Name a policy or outputs as the reference.")
    return found


def _sft_model(store: Store, policy: Artifact) -> Artifact:
    """The SFT model a policy comes from: itself, or the only one among its ancestors."""
    if policy.manifest.recipe.stage == "sft":
        return policy
    found = {artifact.fingerprint: artifact for artifact in _sft_models(lineage(store, policy.fingerprint))}
    if len(found) != 1:
        raise ArtifactNotFoundError(
            f"{policy.reference} comes from {len(found)} SFT models in this store.",
            "Say with reevaluate.reference what to compare it with.",
        )
    return next(iter(found.values()))


def _sft_models(node: Lineage) -> Iterator[Artifact]:
    for source in node.inputs.values():
        if source.artifact is not None and source.artifact.manifest.recipe.stage == "sft":
            yield source.artifact
        yield from _sft_models(source)

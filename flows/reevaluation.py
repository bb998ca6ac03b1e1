"""Composition of the nightly check: who is due → answers → judgements → is the judge the same → history.

Like those of `flows.compositions` it knows no Prefect. It starts from policies that are in the store; what
has not changed since the last check is the same stages again, and so comes from the store.
"""

from __future__ import annotations

from collections.abc import Iterable, Mapping
from dataclasses import dataclass
from datetime import UTC, datetime, timedelta
from functools import partial
from typing import Any

from alpaca_farm_core.annotators.config import AnnotatorConfig
from alpaca_farm_core.artifacts.manifest import Artifact, Kind
from alpaca_farm_core.artifacts.store import Store
from alpaca_farm_core.config.overrides import flatten
from alpaca_farm_core.evaluation.reevaluation.config import AnchorsConfig, HistoryConfig, ReevaluateConfig
from alpaca_farm_core.evaluation.reevaluation.history import BEFORE, EVALUATION, before_of, judge_of, read_history
from alpaca_farm_core.evaluation.reevaluation.select import Candidate, select
from alpaca_farm_core.pipeline.registry import stage_named
from alpaca_farm_core.pipeline.run import make_recipe
from alpaca_farm_core.pipeline.runner import Runner


def reevaluate(run: Runner, now: datetime | None = None) -> Mapping[str, Any]:
    """Policies in the store → answers → judged → the judge asked again → one more line of the history."""
    now = now or datetime.now(UTC)
    settings = run.study.reevaluate
    selection = select(run.store, settings, now)
    references = _references(run, selection.candidates.values())
    branches = [partial(_evaluate, run, one, references) for one in selection.candidates.values()]
    evaluations = dict(zip(selection.candidates, run.together(branches), strict=True))
    anchors = _anchors(run, evaluations, now) if settings.anchors else None
    config = HistoryConfig(
        at=now.isoformat(timespec="seconds"),
        models={name: candidate.policy.reference for name, candidate in selection.candidates.items()},
        skipped=selection.skipped,
        drop_standard_errors=settings.drop_standard_errors,
        compare_with=settings.compare_with,
    )
    check = _Check(run, settings, config, evaluations, anchors, now)
    history = check.same_again() or check.new()
    return {**{f"evaluation_{name}": judged for name, judged in evaluations.items()}, "history": history} | (
        {"anchors": anchors} if anchors is not None else {}
    )


def _references(run: Runner, candidates: Iterable[Candidate]) -> dict[tuple[str, str], Any]:
    """Answers that candidates are judged against, which several of them may share."""
    shared = {_shared(candidate): candidate for candidate in candidates}

    def answers(candidate: Candidate) -> Any:
        reference, held = candidate.reference, run.held(candidate.reference)
        if reference.kind != "policy":
            return held
        return run("decode", label=reference.name, policy=held, data=run.held(candidate.data))

    return dict(zip(shared, run.together([partial(answers, one) for one in shared.values()]), strict=True))


def _evaluate(run: Runner, candidate: Candidate, references: Mapping[tuple[str, str], Any]) -> Any:
    """Answers of a candidate, judged against its reference's."""
    name, data = candidate.policy.name, run.held(candidate.data)
    answers = run("decode", label=name, policy=run.held(candidate.policy), data=data)
    return run("evaluate", label=name, outputs=answers, reference=references[_shared(candidate)])


def _shared(candidate: Candidate) -> tuple[str, str]:
    return candidate.reference.fingerprint, candidate.data.fingerprint


def _anchors(run: Runner, evaluations: Mapping[str, Any], now: datetime) -> Any:
    """A round of anchors if one is due, else the last one."""
    settings = run.study.reevaluate
    judge = run.study.section("evaluate").seeded_annotator()  # type: ignore[attr-defined]
    config = AnchorsConfig(
        annotator=judge,
        count=settings.anchors,
        tolerance=settings.drift_tolerance,
        record=run.run_name,
        hour=f"{now:%Y-%m-%dT%H}:00+00:00",
    )
    last = newest(run.store, "anchors", f"{run.run_name}-anchors")
    if last is None:
        return run("anchors", config=config, **{EVALUATION + name: judged for name, judged in evaluations.items()})
    before = AnchorsConfig.build(dict(last.manifest.recipe.config))
    changed = _differing(before.annotator, judge)
    if changed or settings.restart_anchors:
        config = config.model_copy(update={"series": before.series + 1, "changed": tuple(changed)})
    elif now - datetime.fromisoformat(before.hour) < timedelta(hours=settings.every_hours):
        return _repeat(run, "anchors", last) or run.held(last)
    else:
        config = config.model_copy(update={"series": before.series, "round": before.round + 1})
    return run("anchors", config=config, previous=run.held(last))


@dataclass(frozen=True)
class _Check:
    """One check and what it found, before it is noted."""

    run: Runner
    settings: ReevaluateConfig
    config: HistoryConfig
    evaluations: Mapping[str, Any]
    anchors: Any
    now: datetime

    @property
    def last(self) -> Artifact | None:
        return newest(self.run.store, "history", f"{self.run.run_name}-history")

    def same_again(self) -> Any | None:
        """The last line of the history, if this check is the same and soon after it; else None."""
        last = self.last
        if last is None or self.now - _at(last) >= timedelta(hours=self.settings.every_hours):
            return None
        then = HistoryConfig.build(dict(last.manifest.recipe.config))
        if then.model_copy(update={"at": self.config.at}) != self.config:
            return None
        found = {role: self.run.fingerprint(handle) for role, handle in self._roles().items()}
        noted = {
            role: fingerprint
            for role, fingerprint in last.manifest.recipe.inputs.items()
            if role != "previous" and not role.startswith(BEFORE)
        }
        return _repeat(self.run, "history", last) if found == noted else None

    def new(self) -> Any:
        """Note a new line."""
        last = self.last
        roles = self._roles()
        if last is not None:
            roles |= {"previous": self.run.held(last), **self._earlier(read_history(last))}
        return self.run("history", config=self.config, **roles)

    def _roles(self) -> dict[str, Any]:
        roles = {EVALUATION + name: judged for name, judged in self.evaluations.items()}
        return roles if self.anchors is None else {**roles, "anchors": self.anchors}

    def _earlier(self, entries: list[dict[str, Any]]) -> dict[str, Any]:
        """Evaluations that the present ones are compared with, where the store still has them."""
        found: dict[str, Any] = {}
        for name, judged in self.evaluations.items():
            fingerprint = self.run.fingerprint(judged)
            model = self._conditions(name, fingerprint)
            before = before_of(entries, name, model, self.settings.compare_with)[0] if model else None
            if before is not None and before["evaluation"] != fingerprint:
                earlier = self.run.store.find(before["evaluation"])
                found |= {BEFORE + name: self.run.held(earlier)} if earlier else {}
        return found

    def _conditions(self, name: str, fingerprint: str) -> dict[str, str] | None:
        """Judge and reference of an evaluation; None where it is only planned."""
        evaluation = self.run.store.find(fingerprint, payload=False)
        if evaluation is None:
            return None
        recipe = evaluation.manifest.recipe
        return {"judge": judge_of(recipe), "against": recipe.inputs["reference"]}


def newest(store: Store, kind: Kind, name: str) -> Artifact | None:
    """The newest version of an artifact, if there is one."""
    there = any(artifact.name == name for artifact in store.artifacts(kind))
    return store.get(f"{kind}/{name}") if there else None


def _repeat(run: Runner, stage: str, artifact: Artifact) -> Any | None:
    """Call the stage that made an artifact again, which finds it; None where an input of it is gone."""
    recipe = artifact.manifest.recipe
    inputs = {role: run.store.find(fingerprint) for role, fingerprint in recipe.inputs.items()}
    config = stage_named(stage).config_class.build(dict(recipe.config))
    if make_recipe(stage_named(stage), config, recipe.inputs).fingerprint != recipe.fingerprint:
        return None  # another version of the stage, or of a file it reads
    held = {role: run.held(found) for role, found in inputs.items() if found is not None}
    return run(stage, config=config, **held) if len(held) == len(inputs) else None


def _differing(before: AnnotatorConfig, now: AnnotatorConfig) -> list[str]:
    old, new = flatten(before.model_dump(mode="json")), flatten(now.model_dump(mode="json"))
    return sorted(key for key in new if old.get(key) != new[key])


def _at(history: Artifact) -> datetime:
    return datetime.fromisoformat(history.manifest.recipe.config["at"])

"""Golden figures of every stage on a tiny input: a stage whose meaning changes must raise its `version`.

`goldens.json` holds the settings they were made with, in full, so that another default or preset
moves nothing here, and per stage its figures and first texts with the versions of the stage and of
all it was made from. After raising a version write them anew with `python -m tests.test_goldens`
(`--force` writes them even where no version was raised: for stages that nobody has used yet).
Settings that the file has stay as they are, new ones come from the preset.
The tolerance is met by other CPUs, thread counts and micro-batches.
"""

import json
import sys
import tempfile
from datetime import UTC, datetime
from pathlib import Path

import pytest

from alpaca_farm_core.annotators.config import HumanPreferencesConfig
from alpaca_farm_core.artifacts.files import read_json, read_jsonl, write_json
from alpaca_farm_core.artifacts.store import Store
from alpaca_farm_core.config.overrides import flatten
from alpaca_farm_core.config.presets import build_study
from alpaca_farm_core.evaluation.overoptimisation.config import CheckpointConfig
from alpaca_farm_core.generation.config import ApiOutputsConfig
from alpaca_farm_core.methods.method import SHARED
from alpaca_farm_core.methods.registry import BUILT_IN
from alpaca_farm_core.pipeline.registry import STAGES
from alpaca_farm_core.pipeline.runner import LocalRunner
from flows.compositions import compare, learn, rlhf
from flows.reevaluation import reevaluate
from tests.annotators.judge_server import JudgeServer, Reply
from tests.tiny import TINY

GOLDENS = Path(__file__).with_name("goldens.json")
TEXTS = {
    "dataset": "sft.jsonl",
    "sample": "outputs.jsonl",
    "decode": "outputs.jsonl",
    "api_outputs": "outputs.jsonl",
    "best_of_n": "outputs.jsonl",
    "expert_samples": "outputs.jsonl",
}
REGENERATE = "write the new figures with `python -m tests.test_goldens`"


class Recorder(LocalRunner):
    """Runs a study and notes each step's versions, figures and first texts."""

    def __init__(self, study, store):
        super().__init__(study, "golden", store)
        self.versions, self.stages = {}, {}

    def run(self, step, inputs):
        artifact = super().run(step, inputs)
        sources = [self.versions[source.fingerprint] for source in inputs.values()]
        versions = {name: version for source in sources for name, version in source.items()}
        self.versions[artifact.fingerprint] = {**versions, step.stage.name: step.stage.version}
        self.stages[step.title] = {
            "versions": dict(sorted(self.versions[artifact.fingerprint].items())),
            "figures": numbers(artifact.metrics),
            "texts": first_texts(artifact),
        }
        return artifact


def numbers(metrics):
    return {key: value for key, value in flatten(metrics).items() if isinstance(value, int | float)}


def first_texts(artifact, n=3):
    name = TEXTS.get(artifact.manifest.recipe.stage)
    return [row["output"] for row, _ in zip(read_jsonl(artifact.path / name), range(n), strict=False)] if name else []


def record(settings, root, **execution):
    with JudgeServer(fault=lambda number: Reply(text="A fork is small.")) as server:
        execution = {"execution.threads": 1, "execution.base_url": server.base_url, **execution}
        return recorded(Recorder(build_study("meadow", {**settings, **execution}), Store(root)), root)


def recorded(recorder, root):
    made = rlhf(recorder)
    recorder("api_outputs", config=ApiOutputsConfig(model="scripted", limit=3), data=made["data"])
    reevaluate(recorder, datetime(2000, 1, 1, tzinfo=UTC))
    step = recorder("checkpoint", config=CheckpointConfig(step=2), policy=made["ppo"])
    answers = recorder("decode", label="step", policy=step, data=made["data"])
    judged = recorder("evaluate", label="step", outputs=answers, reference=made["answers"]["sft"])
    recorder("overoptimisation", method_0=made["ppo"], evaluation_0_2=judged)
    picked = recorder(
        "best_of_n", label="best-of-n", policy=made["sft"], **{k: made[k] for k in ("reward_model", "data")}
    )
    judging = recorder.study.section("evaluate")
    recorder("judge_samples", config=judging, samples=picked, reference=made["answers"]["sft"])
    recorder("human_preferences", config=HumanPreferencesConfig(source=str(people(root)), seed=0))
    for method in BUILT_IN:
        learn(recorder, method, {name: made[name] for name in SHARED if name in made})
    compare(recorder, ("best-of-n",), (0,))
    return recorder.stages


def people(root):
    """A file of three labels."""
    rows = [{"instruction": f"{k}", "output_1": "a", "output_2": "b", "preference": k} for k in (1, 2, 1.5)]
    path = root / "people.json"
    path.write_text(json.dumps(rows))
    return path


@pytest.fixture(scope="module")
def goldens():
    return read_json(GOLDENS)


@pytest.fixture(scope="module")
def found(goldens, tmp_path_factory):
    return record(goldens["settings"], tmp_path_factory.mktemp("goldens"))


def check(stage, found, golden):
    assert found["versions"] == golden["versions"], f"a version was raised: {REGENERATE}"
    same = found["texts"] == golden["texts"] and found["figures"] == pytest.approx(
        golden["figures"], rel=1e-3, abs=2e-4
    )
    assert same, (
        f"{stage} makes something else of the same input. If that is meant, raise the `version` of the first "
        f"stage that does, and {REGENERATE}.\nfound  {found}\ngolden {golden}"
    )


def test_no_stage_has_changed_its_meaning(goldens, found):
    assert set(found) == set(goldens["stages"])
    for title, stage in found.items():  # upstream first: the first complaint is the cause
        check(title, stage, goldens["stages"][title])


def test_every_stage_has_goldens(goldens):
    assert {name for stage in goldens["stages"].values() for name in stage["versions"]} == set(STAGES)


def test_another_micro_batch_and_thread_count_stay_within_the_tolerance(goldens, tmp_path):
    execution = {"execution.micro_batch_tokens": 300, "execution.threads": 2, "execution.decode_batch_size": 5}
    for title, stage in record(goldens["settings"], tmp_path, **execution).items():
        check(title, stage, goldens["stages"][title])


def test_another_meaning_is_noticed(goldens, found):
    golden = goldens["stages"]["sft"]
    loss = golden["figures"]["train_loss"]
    with pytest.raises(AssertionError, match="raise the `version`"):
        check("sft", {**golden, "figures": {**golden["figures"], "train_loss": loss * 1.01}}, golden)


def main(force):
    """Write the figures anew; those of a stage whose versions stand stay guarded unless `force`."""
    settings = {**flatten(build_study("meadow", TINY).model_dump(mode="json"))}
    settings = {key: value for key, value in settings.items() if not key.startswith("execution.") and value != {}}
    kept = read_json(GOLDENS)["settings"] if GOLDENS.exists() else {}
    settings = {key: kept.get(key, value) for key, value in settings.items()}  # a tuned preset moves nothing here
    with tempfile.TemporaryDirectory() as root:
        stages = record(settings, Path(root))
    if GOLDENS.exists() and not force:
        guarded = read_json(GOLDENS)["stages"]
        for title, stage in stages.items():
            if title in guarded and stage["versions"] == guarded[title]["versions"]:
                check(title, stage, guarded[title])
    write_json(GOLDENS, {"settings": settings, "stages": stages})
    print(json.dumps({title: stage["versions"] for title, stage in stages.items()}, indent=1))


if __name__ == "__main__":
    main(force="--force" in sys.argv)

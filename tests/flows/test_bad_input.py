"""Bad input, bad judges and divergence through the whole composition: the right error, and nothing lost."""

import functools
import shutil

import pytest

from alpaca_farm_core.annotators import client, retry
from alpaca_farm_core.annotators.cache import CallCache
from alpaca_farm_core.artifacts.files import read_jsonl, write_jsonl
from alpaca_farm_core.artifacts.store import Store
from alpaca_farm_core.config.presets import build_study
from alpaca_farm_core.errors import (
    AnnotationError,
    ConfigError,
    DataError,
    MissingAnnotationsError,
    ModelError,
    TrainingDivergedError,
)
from alpaca_farm_core.pipeline.runner import LocalRunner
from flows.compositions import reward_model, sft, simulate_preferences
from flows.preflight import preflight
from tests.annotators.judge_server import HALF, JudgeServer, Reply, always, every, status
from tests.processes import PROCESSES
from tests.tiny import TINY

EXECUTION = {"execution.threads": 1, "execution.checkpoint_seconds": 0, "execution.concurrency": 2}


def run(compose, store, overrides=None, annotator=None):
    study = build_study("meadow", {**TINY, **EXECUTION, **(overrides or {})}, annotator)
    return compose(LocalRunner(study, "bad", store))


@pytest.fixture(scope="module")
def sampled(tmp_path_factory):
    """A store with dataset, SFT model, samples and preferences; not to be written to."""
    root = tmp_path_factory.mktemp("sampled") / "store"
    run(simulate_preferences, Store(root))
    return root


@pytest.fixture
def store(sampled, tmp_path):
    return Store(shutil.copytree(sampled, tmp_path / "copy"))


def references(store):
    return {artifact.reference for artifact in store.artifacts()}


# --- data and models


@pytest.mark.parametrize(
    ("name", "content", "said"),
    [
        ("absent.json", None, "There is no data file"),
        ("empty.json", "", "holds no rows"),
        ("list.json", "[]", "holds no rows"),
        ("broken.json", '[{"instruction": "a"', "line 1, column"),
        ("lines.jsonl", '{"instruction": "a"}\n{"instruction":', "line 2"),
        ("field.json", '[{"instruction": "a"}, {"prompt": "b"}]', "row 2: field 'instruction' is missing"),
        ("number.json", '[{"instruction": "a", "input": 3}]', "row 1: field 'input' is int"),
        ("few.json", '[{"instruction": "a", "output": "b"}]', ""),
        ("table.parquet", "not parquet", "not a readable Parquet file"),
    ],
)
def test_bad_data_files(tmp_path, name, content, said):
    file = tmp_path / name
    if content is not None:
        file.write_text(content)
    overrides = {key: value for key, value in TINY.items() if not key.startswith("dataset.")}
    study = build_study("meadow", {**overrides, "dataset.source": str(file)})
    store = Store(tmp_path / "store")
    with pytest.raises(DataError) as error:
        sft(LocalRunner(study, "bad", store))
    assert said in error.value.headline
    assert name in str(error.value) or name == "few.json"
    assert error.value.next_action
    assert error.value.exit_code == 2
    assert references(store) == set()


@pytest.mark.parametrize("content", [{}, {"config.json": "{}"}, {"config.json": "not json", "tokenizer.json": "{}"}])
def test_a_folder_that_is_no_model(store, tmp_path, content):
    folder = tmp_path / "model"
    folder.mkdir()
    for name, text in content.items():
        (folder / name).write_text(text)
    with pytest.raises(ModelError, match=str(folder)) as error:
        run(sft, store, {"sft.model.source": str(folder)})
    assert (error.value.exit_code, bool(error.value.next_action)) == (2, True)


def test_divergence_stops_and_keeps_the_last_good_checkpoint(store):
    before = references(store)
    with pytest.raises(TrainingDivergedError, match=r"diverged at step \d+.*checkpoint of step \d+ is kept") as error:
        run(sft, store, {"sft.learning_rate": 1e30, "sft.max_grad_norm": 1e30, "sft.epochs": 3})
    assert error.value.exit_code == 1
    assert list(store.root.glob("workspaces/*/scratch/checkpoints/*/*"))
    assert references(store) == before


# --- preferences


@pytest.mark.parametrize(
    ("preferences", "said"), [([1.5], "All 32 preferences are ties"), ([1.0], "are for output_1"), ([None], "None of")]
)
def test_preferences_that_teach_nothing(store, tmp_path, preferences, said):
    class Replaced(LocalRunner):
        def run(self, step, inputs):
            artifact = super().run(step, inputs)
            if step.stage.name == "preferences":
                file = artifact.path / "preferences.jsonl"
                state = "ok" if preferences[0] else "failed"
                rows = [{**row, "preference": preferences[0], "state": state} for row in read_jsonl(file)]
                write_jsonl(file, rows)
            return artifact

    with pytest.raises(DataError, match=said) as error:
        reward_model(Replaced(build_study("meadow", {**TINY, **EXECUTION}), "bad", store))
    assert error.value.exit_code == 2
    assert not any(reference.startswith("reward_model") for reference in references(store))


# --- judges


@pytest.fixture
def impatient(monkeypatch):
    """Give up a call after a few quick tries."""
    quick = functools.partial(
        retry.RetryPolicy, tries=6, tries_unreached=2, first_delay_s=0.01, max_delay_s=0.02, stop_after=3
    )
    quick.deadline_s = 5.0
    monkeypatch.setattr(client, "RetryPolicy", quick)


@pytest.mark.parametrize(
    ("fault", "error_class", "code", "said"),
    [
        (always(status(401)), AnnotationError, 1, "refused the API key (401)"),
        (always(status(404)), AnnotationError, 1, "has no model"),
        (always(status(400)), AnnotationError, 1, "refuses the request"),
        (always(status(429)), AnnotationError, 1, "gives no answers (429)"),
        (always(status(500)), AnnotationError, 1, "gives no answers (5xx)"),
        (always(HALF), AnnotationError, 1, "gives no answers"),
        (always(Reply(hang_s=1.0)), AnnotationError, 1, "gives no answers (timeout)"),
        (always(Reply(text="I would rather talk about the weather.")), MissingAnnotationsError, 4, ""),
        (always(Reply(refusal="No.")), MissingAnnotationsError, 4, ""),
    ],
    ids=["401", "404", "400", "429", "500", "half", "timeout", "nonsense", "refusal"],
)
def test_a_judge_that_does_not_judge(store, impatient, fault, error_class, code, said):
    before = references(store)
    with JudgeServer(fault=fault) as judge:
        where = {"execution.base_url": judge.base_url, "execution.call_timeout_seconds": 0.4}
        with pytest.raises(AnnotationError) as error:
            run(simulate_preferences, store, where, annotator="greedy")
    assert type(error.value) is error_class
    assert error.value.exit_code == code
    assert said in error.value.headline
    assert error.value.next_action
    assert references(store) == before


def test_a_judge_that_often_fails_gives_the_same_labels_in_the_end(store, impatient):
    with JudgeServer(fault=every(3, status(500))) as judge:
        made = run(simulate_preferences, store, {"execution.base_url": judge.base_url}, annotator="greedy")
    assert made["preferences"].metrics["n_missing"] == 0


def test_answers_before_a_break_are_not_bought_again(store, impatient):
    before = len(CallCache(store.calls))
    with JudgeServer(fault=lambda number: status(401) if number >= 10 else None) as judge:
        with pytest.raises(AnnotationError, match="401"):
            run(simulate_preferences, store, {"execution.base_url": judge.base_url}, annotator="greedy")
        assert len(CallCache(store.calls)) - before == judge.n_answered == 10
        judge.fault = lambda number: None
        made = run(simulate_preferences, store, {"execution.base_url": judge.base_url}, annotator="greedy")
    assert judge.n_answered == len(CallCache(store.calls)) - before == made["preferences"].metrics["n_total"] == 32


def test_no_key_for_openai(store):
    with pytest.raises(AnnotationError, match="OPENAI_API_KEY is not set") as error:
        run(simulate_preferences, store, annotator="greedy")
    assert "OPENAI_API_KEY" in error.value.next_action


def test_what_a_reward_lacks_is_said_before_anything_runs(tmp_path):
    lacks = {
        "http": (ConfigError, "execution.reward_url"),
        "annotator": (AnnotationError, "OPENAI_API_KEY"),
        "function": (ConfigError, "no-such-function"),
    }
    for kind, (error_class, said) in lacks.items():
        asked = {
            "rloo.reward.kind": kind,
            "rloo.reward.name": "no-such-function",
            "rloo.reward.annotator.name": "greedy",
        }
        study = build_study("meadow", {**TINY, **asked})
        with pytest.raises(error_class, match=said):
            preflight("rloo", study, "tiny", Store(tmp_path))


def test_no_server_there(store, impatient):
    with pytest.raises(AnnotationError, match="gives no answers"):
        run(simulate_preferences, store, {"execution.base_url": "http://127.0.0.1:9/v1"}, annotator="greedy")


def test_an_unknown_annotator_is_a_mistake_in_the_settings(tmp_path):
    with pytest.raises(ConfigError, match="gredy"):
        run(simulate_preferences, Store(tmp_path / "new"), annotator="gredy")


# --- two at once


def _same_run(root, barrier):
    barrier.wait()
    run(sft, Store(root))


def test_two_runs_of_the_same_thing_make_it_once(tmp_path):
    barrier = PROCESSES.Barrier(2)
    both = [PROCESSES.Process(target=_same_run, args=(tmp_path / "store", barrier)) for _ in range(2)]
    for process in both:
        process.start()
    for process in both:
        process.join(120)
        assert process.exitcode == 0
    assert references(Store(tmp_path / "store")) == {"dataset/bad-dataset@v1", "policy/bad-sft@v1"}

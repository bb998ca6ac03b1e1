"""Metrics in TensorBoard and W&B: those of metrics.jsonl, from process 0 alone, and no trace in the artifact."""

import importlib.util
import json

import pytest

from alpaca_farm_core.artifacts.files import read_jsonl
from alpaca_farm_core.artifacts.store import Store
from alpaca_farm_core.errors import TrainingStoppedError, UsageError
from alpaca_farm_core.training import trackers
from tests.methods import toy


@pytest.fixture(scope="module")
def world(tmp_path_factory):
    return toy.make_world(Store(tmp_path_factory.mktemp("trackers") / "store"))


def tracking(*names, **values):
    return toy.EXECUTION.model_copy(update={"trackers": names, **values})


class Recorder:
    """Stands for one of accelerate's trackers."""

    def __init__(self):
        self.logged, self.finished = [], 0

    def start(self):
        pass

    def log(self, values, step):
        self.logged.append((step, values))

    def finish(self):
        self.finished += 1


@pytest.fixture
def recorder(monkeypatch):
    made = Recorder()
    monkeypatch.setattr(trackers, "_tensorboard", lambda *_: made)
    monkeypatch.setattr(trackers, "find_spec", lambda name: object())
    return made


def test_trackers_get_the_rows_of_metrics_jsonl_and_the_artifact_is_the_same(world, tmp_path, recorder):
    made = toy.sft(Store(tmp_path / "other"), world.data, execution=tracking("tensorboard"))
    assert made.manifest.semantic() == world.policy.manifest.semantic()
    rows = list(read_jsonl(made.path / "metrics.jsonl"))
    assert [step for step, _ in recorder.logged] == [row.pop("step") for row in rows]
    for (_, values), row in zip(recorder.logged, rows, strict=True):
        assert {name: values[name] for name in row} == row
        assert set(values) == {*row, "tokens_per_second"}
    assert recorder.finished == 1


def test_they_are_finished_when_training_stops_and_go_on_at_the_step_of_the_checkpoint(world, tmp_path, recorder):
    store = Store(tmp_path / "other")
    with pytest.raises(TrainingStoppedError):
        toy.ppo(store, world, execution=tracking("tensorboard", deadline_hours=1e-9))
    assert [step for step, _ in recorder.logged] == []
    assert recorder.finished == 1
    toy.ppo(store, world, execution=tracking("tensorboard"))
    assert [step for step, _ in recorder.logged] == [2, 3, 4]
    assert recorder.finished == 2


def test_other_processes_track_nothing(world, tmp_path, monkeypatch, recorder):
    monkeypatch.setenv("RANK", "1")
    toy.sft(Store(tmp_path / "other"), world.data, execution=tracking("tensorboard"))
    assert recorder.logged == []


def test_a_missing_package_is_named_before_anything_is_trained(world, tmp_path, monkeypatch):
    monkeypatch.setattr(trackers, "find_spec", lambda name: None)
    with pytest.raises(UsageError, match="package wandb is not installed") as error:
        toy.sft(Store(tmp_path / "other"), world.data, execution=tracking("wandb", own_process="always"))
    assert "pip install 'alpaca-farm-flows[wandb]'" in error.value.next_action


@pytest.mark.slow
@pytest.mark.skipif(importlib.util.find_spec("tensorboard") is None, reason="tensorboard is not installed")
def test_tensorboard_reads_back_what_two_processes_learnt(world, tmp_path):
    from tensorboard.backend.event_processing.event_accumulator import EventAccumulator

    execution = tracking("tensorboard", processes=2, tracker_folder=str(tmp_path / "events"))
    made = toy.sft(Store(tmp_path / "other"), world.data, execution=execution)
    (folder,) = (tmp_path / "events").iterdir()
    assert folder.name == f"sft-{made.fingerprint[:8]}"
    assert len(list(folder.iterdir())) == 1  # of process 0
    events = EventAccumulator(str(folder))
    events.Reload()
    rows = list(read_jsonl(made.path / "metrics.jsonl"))
    for name in ("loss", "learning_rate", "grad_norm"):
        scalars = events.Scalars(name)
        assert [scalar.step for scalar in scalars] == [row["step"] for row in rows]
        assert [scalar.value for scalar in scalars] == pytest.approx([row[name] for row in rows], rel=1e-6)


@pytest.mark.slow
@pytest.mark.skipif(importlib.util.find_spec("wandb") is None, reason="wandb is not installed")
def test_wandb_offline_keeps_the_run_in_the_store(world, tmp_path, monkeypatch):
    monkeypatch.setenv("WANDB_MODE", "offline")
    monkeypatch.setenv("WANDB_API_KEY", "x" * 40)
    store = Store(tmp_path / "other")
    made = toy.sft(store, world.data, execution=tracking("wandb", own_process="always"))
    assert made.manifest.semantic() == world.policy.manifest.semantic()
    (run,) = (store.root / "trackers" / "wandb").glob("offline-run-*")
    (log,) = run.glob("run-*.wandb")
    assert made.fingerprint[:32] in log.name
    kept = log.read_bytes()
    last = list(read_jsonl(made.path / "metrics.jsonl"))[-1]
    assert b"grad_norm" in kept
    assert json.dumps(last["loss"]).encode() in kept

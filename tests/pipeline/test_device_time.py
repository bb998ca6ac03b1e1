"""GPU- and CPU-hours of a stage: processes × time of all attempts, in the volatile part of its manifest."""

import dataclasses
import sys
from types import SimpleNamespace

import pytest

from alpaca_farm_core.artifacts.files import write_json
from alpaca_farm_core.config.execution import ExecutionConfig
from alpaca_farm_core.evaluation.report import format as words
from alpaca_farm_core.pipeline.device_time import device_hours, noted_attempt, run_measured
from alpaca_farm_core.pipeline.run import run_stage
from alpaca_farm_core.pipeline.stage import StageContext, StageResult
from tests.pipeline import toy

FOUR = ExecutionConfig(processes=2, nodes=2, rendezvous="a:1")


def test_processes_of_a_training_stage_count_each(tmp_path):
    write_json(tmp_path / "attempts.json", [1800.0, 3600.0])
    training = dataclasses.replace(toy.NUMBERS, trains=True)
    assert device_hours(training, FOUR, tmp_path, StageResult(on_gpu=True)) == {"gpu_hours": 6.0}
    assert device_hours(training, FOUR, tmp_path, StageResult()) == {"cpu_hours": 6.0}
    assert device_hours(toy.NUMBERS, FOUR, tmp_path, StageResult()) == {"cpu_hours": 1.5}


def test_time_of_a_failed_attempt_is_part_of_the_artifacts(store):
    class Failing(Exception):
        pass

    def fails(context):
        raise Failing

    failing = dataclasses.replace(toy.NUMBERS, run=fails)
    config = toy.NumbersConfig()
    with pytest.raises(Failing):
        run_stage(failing, config, {}, store=store, name="numbers")
    (workspace,) = (store.root / "workspaces").iterdir()
    write_json(workspace / "attempts.json", [7200.0])  # as if it had lasted so long
    made = run_stage(toy.NUMBERS, config, {}, store=store, name="numbers").artifact
    assert 2 <= made.manifest.volatile["cpu_hours"] < 2.01
    assert "gpu_hours" not in made.manifest.volatile
    assert "cpu_hours" not in str(made.manifest.semantic())


def test_every_end_of_an_attempt_is_noted(tmp_path):
    for error in (ValueError, KeyboardInterrupt):
        with pytest.raises(error), noted_attempt(tmp_path):
            raise error
    assert len((tmp_path / "attempts.json").read_text().split(",")) == 2


@pytest.mark.parametrize(("allocated", "on_gpu"), [((0, 0), False), ((0, 512), True)])
def test_a_gpu_was_used_if_tensors_were_on_it(tmp_path, monkeypatch, allocated, on_gpu):
    reset = []
    cuda = SimpleNamespace(
        is_initialized=lambda: True,
        device_count=lambda: 2,
        reset_peak_memory_stats=reset.append,
        max_memory_allocated=lambda device: allocated[device],
    )
    monkeypatch.setitem(sys.modules, "torch", SimpleNamespace(cuda=cuda))
    context = StageContext(toy.NumbersConfig(), {}, tmp_path, tmp_path, tmp_path)
    assert run_measured(toy.NUMBERS, context).on_gpu is on_gpu
    assert reset == [0, 1]


@pytest.mark.parametrize(
    ("row", "text"),
    [
        ({"gpu_hours": 1.25, "cpu_hours": 0.0}, "1.25 GPU-h"),
        ({"gpu_hours": None, "cpu_hours": 0.031}, "0.0310 CPU-h"),
        ({"gpu_hours": 12.0, "cpu_hours": 0.5}, "12.00 GPU-h + 0.5000 CPU-h"),
        ({"gpu_hours": None, "cpu_hours": None}, "–"),
    ],
)
def test_device_time_as_people_read_it(row, text):
    assert words.hours(row) == text

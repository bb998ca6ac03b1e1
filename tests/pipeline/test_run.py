import dataclasses
import json
import os
import signal
import time

import pytest

from alpaca_farm_core.artifacts.files import write_json
from alpaca_farm_core.artifacts.store import Store
from alpaca_farm_core.errors import StoreError
from alpaca_farm_core.pipeline.run import make_recipe, run_stage
from alpaca_farm_core.pipeline.stage import StageResult
from tests.pipeline import toy
from tests.processes import PROCESSES


def run_numbers(store, name="numbers", **config):
    return run_stage(toy.NUMBERS, toy.NumbersConfig(**config), {}, store=store, name=name)


def test_second_run_is_a_hit_and_runs_nothing(store):
    first = run_numbers(store)
    toy.runs.clear()
    second = run_numbers(store)
    assert (first.cached, second.cached) == (False, True)
    assert second.artifact.path == first.artifact.path
    assert toy.runs == []


def test_fingerprint_is_over_recipe_and_not_over_execution(store):
    from alpaca_farm_core.config.execution import ExecutionConfig

    run_numbers(store)
    again = run_stage(
        toy.NUMBERS,
        toy.NumbersConfig(),
        {},
        store=store,
        name="x",
        execution=ExecutionConfig(threads=1, micro_batch_tokens=7),
    )
    assert again.cached
    assert not run_numbers(store, n=4).cached


def test_golden_fingerprint():
    # Written down once: a change here makes every user's store a miss.
    recipe = make_recipe(toy.NUMBERS, toy.NumbersConfig(), {})
    text = '{"config":{"n":3,"seed":0},"external":{},"inputs":{},"stage":"numbers","stage_version":1}'
    import hashlib

    assert recipe.fingerprint == hashlib.sha256(text.encode()).hexdigest()


def test_changed_upstream_changes_downstream(store):
    one = run_numbers(store)
    two = run_numbers(store, seed=1)
    scaled = [
        run_stage(toy.SCALE, toy.ScaleConfig(), {"numbers": run.artifact}, store=store, name="scaled")
        for run in (one, two)
    ]
    assert [run.cached for run in scaled] == [False, False]
    assert [run.artifact.version for run in scaled] == [1, 2]
    assert scaled[0].artifact.manifest.input_contents == {"numbers": one.artifact.manifest.content}


def test_rerun_in_another_store_is_bit_identical(tmp_path):
    a, b = (run_numbers(Store(tmp_path / name)).artifact for name in ("a", "b"))
    assert a.manifest.semantic() == b.manifest.semantic()
    assert a.manifest.content == b.manifest.content


def test_failed_body_publishes_nothing_and_keeps_its_workspace(store):
    def fails_once(context):
        marker = context.scratch / "attempts"
        marker.write_text(marker.read_text() + "x" if marker.exists() else "x")
        if marker.read_text() == "x":
            raise ValueError("first attempt")
        write_json(context.output / "numbers.json", marker.read_text())
        return StageResult()

    stage = dataclasses.replace(toy.NUMBERS, run=fails_once)
    with pytest.raises(ValueError, match="first attempt"):
        run_stage(stage, toy.NumbersConfig(), {}, store=store, name="n")
    assert list(store.artifacts()) == []
    done = run_stage(stage, toy.NumbersConfig(), {}, store=store, name="n")
    assert json.loads((done.artifact.path / "numbers.json").read_text()) == "xx"
    assert list((store.root / "workspaces").iterdir()) == []


def write_and_be_killed(root):
    def killed(context):
        with pytest.MonkeyPatch.context() as patch:
            patch.setattr(os, "fsync", lambda _: os.kill(os.getpid(), signal.SIGKILL))
            write_json(context.output / "numbers.json", [1.0])

    run_numbers_with(Store(root), killed)


def run_numbers_with(store, body):
    return run_stage(dataclasses.replace(toy.NUMBERS, run=body), toy.NumbersConfig(), {}, store=store, name="n")


def test_what_a_killed_writer_left_is_no_part_of_the_artifact(tmp_path):
    process = PROCESSES.Process(target=write_and_be_killed, args=(tmp_path / "killed",))
    process.start()
    process.join()
    assert process.exitcode == -signal.SIGKILL
    assert [path.suffix for path in (tmp_path / "killed").rglob("output/*") if path.is_file()] == [".tmp"]
    whole, resumed = (run_numbers(Store(tmp_path / name)).artifact for name in ("whole", "killed"))
    assert resumed.manifest.semantic() == whole.manifest.semantic()


@pytest.mark.parametrize("damage", ["truncate", "delete", "manifest"])
def test_damaged_artifact_is_reported_and_rebuilt(store, damage):
    artifact = run_numbers(store).artifact
    victim = artifact.path / ("manifest.json" if damage == "manifest" else "numbers.json")
    victim.unlink() if damage == "delete" else victim.write_text("{")
    said: list[str] = []
    assert store.find(artifact.fingerprint, on_damage=said.append) is None
    assert said
    assert str(artifact.path) in said[0]
    again = run_numbers(store)
    assert not again.cached
    assert again.artifact.version == 2
    assert run_numbers(store).artifact.version == 2


def test_artifact_whose_inputs_were_rebuilt_with_other_bytes_is_refreshed_on_request(store):
    scaled = run_stage(
        toy.SCALE, toy.ScaleConfig(), {"numbers": run_numbers(store).artifact}, store=store, name="scaled"
    )

    def other_bytes(context):
        write_json(context.output / "numbers.json", [1.0])
        return StageResult(n_missing=1)

    (store.get("dataset/numbers").path / "numbers.json").unlink()
    other = dataclasses.replace(toy.NUMBERS, run=other_bytes)
    rebuilt = run_stage(other, toy.NumbersConfig(), {}, store=store, name="numbers").artifact

    def scale(retry):
        return run_stage(
            toy.SCALE, toy.ScaleConfig(), {"numbers": rebuilt}, store=store, name="scaled", retry_missing=retry
        )

    assert scale(retry=False).artifact.reference == scaled.artifact.reference
    assert scale(retry=True).artifact.version == 2
    assert (
        run_stage(
            toy.NUMBERS, toy.NumbersConfig(), {}, store=store, name="numbers", retry_missing=True
        ).artifact.manifest.n_missing
        == 0
    )


def _slow_run(root, started):
    def slow(context):
        started.put(os.getpid())
        time.sleep(1.0)
        write_json(context.output / "numbers.json", os.getpid())
        return StageResult()

    run_stage(dataclasses.replace(toy.NUMBERS, run=slow), toy.NumbersConfig(), {}, store=Store(root), name="n")


def test_four_processes_run_one_fingerprint_once(tmp_path):
    started = PROCESSES.Queue()
    processes = [PROCESSES.Process(target=_slow_run, args=(tmp_path / "store", started)) for _ in range(4)]
    for process in processes:
        process.start()
    for process in processes:
        process.join(60)
        assert process.exitcode == 0
    assert started.qsize() == 1
    assert len(list(Store(tmp_path / "store").artifacts())) == 1


def test_lock_of_a_killed_process_is_free(tmp_path):
    started = PROCESSES.Queue()
    process = PROCESSES.Process(target=_slow_run, args=(tmp_path / "store", started))
    process.start()
    started.get(timeout=60)
    os.kill(process.pid, signal.SIGKILL)
    process.join(10)
    assert run_numbers(Store(tmp_path / "store")).cached is False


def test_a_stage_that_has_too_little_room_does_not_start(store):
    from alpaca_farm_core.config.execution import ExecutionConfig

    toy.runs.clear()
    with pytest.raises(StoreError, match=r"has [\d.]+ GB free, and execution.min_free_gb asks for 1e\+09"):
        run_stage(
            toy.NUMBERS,
            toy.NumbersConfig(),
            {},
            store=store,
            name="x",
            execution=ExecutionConfig(min_free_gb=1e9),
        )
    assert toy.runs == []
    assert not list((store.root / "workspaces").glob("*"))


def test_a_full_disk_is_said_and_nothing_is_published(store):
    import errno

    def full(context):
        raise OSError(errno.ENOSPC, "No space left on device")

    with pytest.raises(StoreError, match="is full"):
        run_stage(dataclasses.replace(toy.NUMBERS, run=full), toy.NumbersConfig(), {}, store=store, name="n")
    assert list(store.artifacts()) == []


def test_crash_between_index_and_rename_is_a_miss(store):
    fingerprint = make_recipe(toy.NUMBERS, toy.NumbersConfig(), {}).fingerprint
    store._append_build(fingerprint, store.root / "artifacts/dataset/numbers/v1")
    run_numbers(store, seed=5)  # takes v1, which the dangling line names
    assert store.find(fingerprint) is None
    assert run_numbers(store).artifact.version == 2

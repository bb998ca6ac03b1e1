"""Stages on the workers of a Dask or Ray cluster: the same artifacts, made by other processes."""

import importlib.util
import os
from contextlib import contextmanager
from types import SimpleNamespace

import psutil
import pytest

from alpaca_farm_core.artifacts.store import Store
from alpaca_farm_core.config.execution import ExecutionConfig
from alpaca_farm_core.config.presets import build_study
from alpaca_farm_core.errors import ConfigError, UsageError
from alpaca_farm_core.pipeline.runner import LocalRunner
from flows.compositions import compare as compose
from flows.rlhf import compare
from flows.trust import FormLimits
from tasks import cluster
from tests.tiny import TINY

METHODS = ["sft", "best-of-n", "feedme"]


def test_without_a_setting_there_is_no_cluster():
    with cluster.cluster_of(ExecutionConfig()) as found:
        assert found is None


def test_a_missing_package_is_named(monkeypatch):
    monkeypatch.setattr(cluster, "find_spec", lambda name: None)
    with (
        pytest.raises(UsageError, match="prefect-dask is not installed") as error,
        cluster.cluster_of(ExecutionConfig(task_runner="dask")),
    ):
        pass
    assert "pip install 'alpaca-farm-flows[dask]'" in error.value.next_action


def test_an_address_needs_a_kind_and_a_scheme_and_no_form_may_name_one():
    with pytest.raises(ConfigError, match="task_runner is 'local'"):
        ExecutionConfig.build({"cluster": "tcp://a:8786"})
    with pytest.raises(ConfigError, match="no address"):
        ExecutionConfig.build({"task_runner": "dask", "cluster": "a:8786"})
    asked = build_study("meadow", {"execution.task_runner": "dask", "execution.cluster": "tcp://a:8786"})
    with pytest.raises(ConfigError, match="a form may send nothing"):
        FormLimits().check(asked, build_study("meadow"))


def test_what_became_of_a_lost_worker_is_raised():
    def result():
        raise RuntimeError("worker died")

    unfinished = SimpleNamespace(is_final=lambda: False)
    future = SimpleNamespace(wait=lambda: None, state=unfinished, result=result)
    lost = SimpleNamespace(submit=lambda task, parameters: future)
    with pytest.raises(RuntimeError, match="worker died"):
        cluster.run_on(lost, None, {})


@contextmanager
def nothing_left_behind():
    yield
    commands = [" ".join(child.cmdline()) for child in psutil.Process().children(recursive=True)]
    alive = [command for command in commands if "spawn_main" in command or "raylet" in command]  # workers
    assert alive == []


@pytest.mark.slow
@pytest.mark.timeout(900)
@pytest.mark.usefixtures("prefect_server")
@pytest.mark.parametrize("kind", ["dask", "ray"])
def test_a_comparison_on_a_cluster_is_that_of_one_process(tmp_path, monkeypatch, kind):
    if importlib.util.find_spec(f"prefect_{kind}") is None:
        pytest.skip(f"prefect-{kind} is not installed")
    monkeypatch.setenv("ALPACA_FARM_STORE", str(tmp_path / "store"))
    overrides = {**TINY, "execution.threads": 1, "execution.branches": 2, "execution.task_runner": kind}
    with nothing_left_behind():
        state = compare(methods=METHODS, seeds=[0], preset="meadow", overrides=overrides, return_state=True)
    assert state.is_completed(), state.message
    found = state.result()["comparison"].open(Store())
    local = {**overrides, "execution.branches": 1, "execution.task_runner": "local"}
    made = compose(LocalRunner(build_study("meadow", local), "meadow", Store(tmp_path / "alone")), METHODS, [0])
    assert found.manifest.semantic() == made["comparison"].manifest.semantic()
    assert f"process {os.getpid()} " not in Store().lock_file(found.fingerprint).read_text()  # who made it
    again = compare(methods=METHODS, seeds=[0], preset="meadow", overrides=overrides, return_state=True)
    assert again.is_completed(), again.message
    assert again.result()["comparison"].open(Store()).path == found.path

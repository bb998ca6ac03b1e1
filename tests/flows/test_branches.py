"""Branches of a comparison side by side: they overlap, keep their order, and fail and stop together."""

import signal
import subprocess
import threading
import time

import pytest

from alpaca_farm_core.artifacts.store import Store
from alpaca_farm_core.config.presets import build_study
from alpaca_farm_core.pipeline.runner import LocalRunner
from flows.compositions import compare as compose
from flows.rlhf import compare
from tasks.branches import running_beside, side_by_side
from tests.flows.test_interrupts import start, wait_for_checkpoint
from tests.tiny import TINY

METHODS = ["sft", "best-of-n", "feedme"]


def test_two_run_at_once_and_results_keep_their_order():
    met = threading.Barrier(2, timeout=30)

    def branch(number):
        assert running_beside.get()
        met.wait()  # passes only when another branch has come as far
        return number

    assert side_by_side([lambda n=n: branch(n) for n in range(6)], 2) == [0, 1, 2, 3, 4, 5]
    assert not running_beside.get()


def test_after_a_failure_no_branch_begins_and_those_that_run_come_to_their_end():
    begun, failed, ended = threading.Event(), threading.Event(), []

    def fails():
        assert begun.wait(30)
        failed.set()
        raise ValueError("first")

    def goes_on():
        begun.set()
        assert failed.wait(30)
        time.sleep(0.1)
        ended.append(1)

    with pytest.raises(ValueError, match="first"):
        side_by_side([fails, goes_on, lambda: ended.append(2)], 2)
    assert ended == [1]


@pytest.mark.slow
@pytest.mark.timeout(600)
@pytest.mark.usefixtures("prefect_server")
def test_a_comparison_in_branches_is_that_of_one_after_the_other(tmp_path):
    beside = {**TINY, "execution.threads": 1, "execution.branches": 2}
    state = compare(methods=METHODS, seeds=[0, 1], preset="meadow", overrides=beside, return_state=True)
    assert state.is_completed(), state.message
    alone = Store(tmp_path / "alone")
    made = compose(LocalRunner(build_study("meadow", {**beside, "execution.branches": 1}), "meadow", alone), METHODS)
    found = state.result()["comparison"].open(Store())
    assert found.manifest.semantic() == made["comparison"].manifest.semantic()


@pytest.mark.slow
@pytest.mark.timeout(600)
def test_an_interrupt_stops_all_branches_behind_checkpoints_and_the_next_run_goes_on(tmp_path):
    store = tmp_path / "store"
    words = ["compare", "--methods", "sft,feedme", "--seeds", "0,1", "--set", "execution.branches=2"]
    process = start(store, *words)
    wait_for_checkpoint(process, store)
    process.send_signal(signal.SIGINT)
    out, err = process.communicate(timeout=60)
    assert process.returncode == 130, err
    assert "Traceback" not in out + err
    deadline = time.monotonic() + 30  # training processes end by themselves, behind a checkpoint
    while subprocess.run(["pgrep", "-f", str(store)], capture_output=True).stdout:
        assert time.monotonic() < deadline
        time.sleep(0.1)
    process = start(store, *words)
    out, err = process.communicate(timeout=400)
    assert process.returncode == 0, err
    assert "Resuming after step" in out

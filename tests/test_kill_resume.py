"""kill -9 in every stage of the flow and of every method, then the same again: the same bits, no call bought twice.

Each attempt is a process that runs the composition on one store. It tells which stage it is
in; the test kills it at a seeded random moment inside that stage, stage after stage, and at last
lets it finish. An undisturbed run in another store is what the result must equal.
"""

import os
import random
import signal
import time

import pytest

from alpaca_farm_core.annotators.cache import CallCache
from alpaca_farm_core.artifacts.store import Store
from alpaca_farm_core.config.presets import build_study
from alpaca_farm_core.methods.registry import method_named
from alpaca_farm_core.pipeline.progress import SilentProgress
from alpaca_farm_core.pipeline.runner import LocalRunner
from flows.compositions import learn, rlhf
from tests.annotators.judge_server import JudgeServer, shorter
from tests.processes import PROCESSES
from tests.tiny import TINY

CONCURRENCY = 2
KILLS = [
    "sft",
    "sft",
    "sample",
    "preferences",
    "preferences",
    "reward model",
    "ppo",
    "ppo",
    "decode ppo",
    "evaluate ppo",
    "best-of-n",
    "expert samples 1",
    "expert-iteration",
    "reference logprobs",
    "dpo",
    "dpo",
    "feedme",
    "reward-conditioning",
    "quark",
    "rloo",
    "grpo",
]
METHODS = ("best-of-n", "expert-iteration", "dpo", "feedme", "reward-conditioning", "quark", "rloo", "grpo")


def attempt(root, base_url, stage_began):
    """Run the whole flow; checkpoint after every step, so that a resume has something to resume from."""
    execution = {"threads": 1, "checkpoint_seconds": 0, "concurrency": CONCURRENCY, "base_url": base_url}
    overrides = {**TINY, **{f"execution.{key}": value for key, value in execution.items()}}
    study = build_study("meadow", overrides, annotator="greedy")

    def tell(step):
        stage_began.send(step.title)
        return SilentProgress()

    runner = LocalRunner(study, "killed", Store(root), progress=tell)
    made = rlhf(runner)
    for name in METHODS:
        learn(runner, method_named(name), dict(made))
    stage_began.send("done")


@pytest.mark.timeout(600)
def test_many_kills_leave_the_same_bits_and_repeat_no_committed_call(tmp_path):
    draw = random.Random(20)
    with JudgeServer(taste=shorter, latency_s=0.02) as judge:

        def run(root, kill_in=None, seconds=None):
            """Run to the end, or kill within the stage named; return the seconds of each stage begun."""
            receiver, sender = PROCESSES.Pipe(duplex=False)
            process = PROCESSES.Process(target=attempt, args=(root, judge.base_url, sender))
            process.start()
            sender.close()
            began = {}
            while "done" not in began:
                assert receiver.poll(120), f"no news after {list(began)}"
                began[receiver.recv()] = time.monotonic()
                if kill_in in began:
                    receiver.poll(draw.uniform(0.0, 0.9 * seconds[kill_in]))  # or when the next stage begins already
                    assert process.is_alive()
                    os.kill(process.pid, signal.SIGKILL)
                    process.join()
                    return {}
            process.join()
            assert process.exitcode == 0
            times = list(began.values())
            return {title: end - start for title, start, end in zip(began, times, times[1:], strict=False)}

        whole, killed = tmp_path / "whole", tmp_path / "killed"
        seconds = run(whole)
        n_calls = len(judge.bodies)
        assert n_calls == len(CallCache(whole / "calls"))
        for stage in KILLS:
            run(killed, stage, seconds)
        run(killed)

    expected, found = (
        {a.fingerprint: a.manifest.semantic() for a in Store(root).artifacts()} for root in (whole, killed)
    )
    for fingerprint, manifest in expected.items():
        assert found.get(fingerprint) == manifest, manifest["kind"]
    assert found.keys() == expected.keys()
    assert len(found) == len(seconds)
    assert len(CallCache(killed / "calls")) == n_calls
    # Only calls in flight at a kill may be made again; three kills fall into judging stages.
    assert n_calls <= len(judge.bodies) - n_calls <= n_calls + 3 * CONCURRENCY
    assert not list((killed / "workspaces").iterdir())

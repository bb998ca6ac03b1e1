"""What training processes tell their starter, how they are started, and who gets processes of its own."""

import pytest

from alpaca_farm_core.config.execution import ExecutionConfig
from alpaca_farm_core.errors import ConfigError, ModelError
from alpaca_farm_core.pipeline.progress import SilentProgress
from alpaca_farm_core.training import process
from alpaca_farm_core.training.messages import read_error, replay, write_error


class Told(SilentProgress):
    """Keeps what it is told."""

    def __init__(self):
        self.calls = []

    def start(self, description, total, unit, done=0):
        self.calls.append(("start", description, total, unit, done))

    def advance(self, n=1, metrics=None):
        self.calls.append(("advance", n, metrics))

    def say(self, message):
        self.calls.append(("say", message))


@pytest.mark.parametrize(
    ("settings", "apart"),
    [
        ({}, True),
        ({"own_process": "when_needed", "device": "cpu"}, False),
        ({"own_process": "when_needed", "device": "cuda:0"}, True),
        ({"own_process": "when_needed", "device": "cpu", "processes": 2}, True),
        ({"own_process": "when_needed", "device": "cpu", "nodes": 2, "rendezvous": "first:29500"}, True),
    ],
)
def test_who_gets_processes_of_its_own(settings, apart):
    assert process.needs_own_process(ExecutionConfig(**settings)) is apart


def test_several_machines_need_a_place_to_meet():
    with pytest.raises(ConfigError, match="rendezvous"):
        ExecutionConfig.build({"nodes": 2})


def test_the_commands(tmp_path):
    job = tmp_path / "workspaces" / "0123456789abcdef0123" / "scratch" / "job" / "job.json"
    assert process.launch_command(ExecutionConfig(), job)[1:] == ["-m", "alpaca_farm_core.training.child", str(job)]
    command = process.launch_command(ExecutionConfig(processes=8, nodes=2, rendezvous="first:29500"), job)
    assert " ".join(command[2:]) == (
        "torch.distributed.run --rdzv-backend c10d --rdzv-endpoint first:29500 --rdzv-id 0123456789abcdef "
        f"--nnodes 2 --nproc-per-node 8 --max-restarts 0 -m alpaca_farm_core.training.child {job}"
    )


def test_a_defect_arrives_with_its_traceback(tmp_path):
    try:
        raise KeyError("lost")
    except KeyError as error:
        write_error(tmp_path, 1, error)
    with pytest.raises(RuntimeError, match="KeyError: 'lost'"):
        raise read_error(tmp_path)


def test_the_cause_is_told_not_what_it_did_to_the_others(tmp_path):
    write_error(tmp_path, 0, RuntimeError("Connection closed by peer"))
    write_error(tmp_path, 1, ModelError("No such model.", "Choose another."))
    assert str(read_error(tmp_path)) == "No such model.\n  → Choose another."


def test_output_is_throttled_and_nothing_is_lost(tmp_path):
    told = Told()
    with (tmp_path / "log").open("w") as log:
        output = process.Output(told, log)
        for number in range(25):
            output.take(f"line {number}")
        output.take('\x1e["advance", {"n": 2, "metrics": null}]')
        output.end(0)
    said = [call[1] for call in told.calls if call[0] == "say"]
    assert said == [*(f"line {number}" for number in range(10)), f"… 15 more lines in {tmp_path / 'log'}"]
    assert ("advance", 2, None) in told.calls
    assert (tmp_path / "log").read_text().splitlines() == [f"line {number}" for number in range(25)]


def test_a_marked_line_calls_nothing_but_progress():
    with pytest.raises(KeyError):
        replay('\x1e["__class__", {}]', Told())

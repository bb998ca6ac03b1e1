"""What Prefect and the store cost: the demo's stages as plain Python against the same through a running server.

    python -m tests.benchmarks.overhead [--preset meadow] [--set KEY=VALUE …] [--arms plain,flow] [--noop 3]
                                        [--waiting 20] -o overhead.json

Each run of an arm has a store of its own, and a process of its own that has imported everything before the clock
starts. `plain` calls the stages' bodies through `LocalRunner`; `flow` runs the Prefect flow against a server that is
up. `--arms plain,flow,flow,plain` repeats them in that order, so that the noise is known. Then the last flow again
with nothing to do, from a cold process (`noop`, what a user waits for), and `--waiting` runs that queue for one slot:
the processor time that they and the server use per minute, beside that of runs that only sleep.
"""

from __future__ import annotations

import argparse
import json
import os
import platform
import subprocess
import sys
import tempfile
import time
from collections.abc import Iterator
from contextlib import contextmanager
from importlib import metadata
from pathlib import Path
from typing import Any

import httpx
import psutil

from alpaca_farm_core.artifacts.store import Store
from flows.cli.options import read_overrides
from flows.services.processes import Service, stop
from flows.services.server import TRAINING_LIMIT, Address, client_environment, start_server, wait_for_server
from tests.services.farm import free_port

_PLAIN = """
import json, sys, time
from alpaca_farm_core.artifacts.store import Store
from alpaca_farm_core.config.presets import build_study
from alpaca_farm_core.pipeline.runner import LocalRunner
from flows.compositions import composition_named
import torch, transformers, accelerate, flows.rlhf  # the same imports on both sides
preset, overrides, root = json.loads(sys.argv[1])
began, used = time.perf_counter(), time.process_time()
composition_named("rlhf")(LocalRunner(build_study(preset, overrides), "benchmark", Store(root)))
print(time.perf_counter() - began, time.process_time() - used)
"""

_FLOW = """
import json, sys, time
import torch, transformers, accelerate
from flows.rlhf import FLOWS
preset, overrides, root = json.loads(sys.argv[1])
began, used = time.perf_counter(), time.process_time()
state = FLOWS["rlhf"](preset=preset, overrides=overrides, run_name="benchmark", return_state=True)
assert state.is_completed(), state.message
print(time.perf_counter() - began, time.process_time() - used)
"""
_SCRIPTS = {"plain": _PLAIN, "flow": _FLOW}

_WAITING = """
import contextlib, sys, time
from prefect import flow
from prefect.concurrency.sync import concurrency

limit, hold_seconds = sys.argv[1], float(sys.argv[2])

@flow(log_prints=False)
def waiter():
    print("there", flush=True)
    slot = concurrency(limit, occupy=1, lease_duration=60, strict=True) if limit else contextlib.nullcontext()
    with slot:
        print("inside", flush=True)
        time.sleep(hold_seconds)

waiter()
"""
_SETTLE_SECONDS, _WINDOW_SECONDS = 20.0, 60.0


def run(script: str, environment: dict[str, str], *arguments: str) -> list[float]:
    """Run a script in a fresh process; return the numbers it prints last."""
    done = subprocess.run(
        [sys.executable, "-c", script, *arguments], env=environment, capture_output=True, text=True, check=True
    )
    return [float(word) for word in done.stdout.splitlines()[-1].split()]


def run_arm(way: str, root: Path, environment: dict[str, str], settings: tuple[str, dict[str, Any]]) -> dict[str, Any]:
    """One run on a new store: wall and processor seconds, and the seconds of its stages by their manifests."""
    told = json.dumps([*settings, str(root)])
    wall, cpu = run(_SCRIPTS[way], {**environment, "ALPACA_FARM_STORE": str(root)}, told)
    stages = sum(artifact.manifest.volatile["seconds"] for artifact in Store(root).artifacts())
    return {"way": way, "wall_seconds": wall, "cpu_seconds": cpu, "stage_seconds": stages, "outside": wall - stages}


@contextmanager
def queue(count: int, limit: str, environment: dict[str, str]) -> Iterator[list[psutil.Process]]:
    """`count` flow runs that wait for a slot of `limit`, or sleep where that is empty; killed at the end."""
    runs = []
    try:
        for _ in range(count):
            command = [sys.executable, "-c", _WAITING, limit, "3600"]
            runs.append(subprocess.Popen(command, env=environment, stdout=subprocess.PIPE, text=True))
        for one in runs:
            assert one.stdout is not None
            assert one.stdout.readline() == "there\n"
        yield [psutil.Process(one.pid) for one in runs]
    finally:
        for one in runs:
            one.kill()
            one.communicate()


def per_minute(runs: list[psutil.Process], server: psutil.Process) -> tuple[float, float]:
    """Processor seconds per minute of a run (the mean) and of the server, once they have settled."""
    time.sleep(_SETTLE_SECONDS)
    before, began = [_cpu(one) for one in (*runs, server)], time.perf_counter()
    time.sleep(_WINDOW_SECONDS)
    minutes = (time.perf_counter() - began) / 60
    *used, by_server = [(_cpu(one) - earlier) / minutes for one, earlier in zip((*runs, server), before, strict=True)]
    return sum(used) / max(1, len(used)), by_server


def _cpu(process: psutil.Process) -> float:
    times = process.cpu_times()
    return times.user + times.system


def waiting_cost(count: int, server: Service, environment: dict[str, str]) -> dict[str, float]:
    """Processor seconds per minute of runs that wait for a slot, of runs that sleep, and of the server meanwhile."""
    command = [sys.executable, "-m", "prefect", "gcl", "create", TRAINING_LIMIT, "--limit", "1"]
    subprocess.run(command, env=environment, check=True, capture_output=True)
    # A limit whose slot has been held for ten minutes: by how long they are held, the server says when to ask again.
    for change, told in (("increment", {}), ("decrement", {"occupancy_seconds": 600.0})):
        body = {"names": [TRAINING_LIMIT], "slots": 1, **told}
        httpx.post(f"{environment['PREFECT_API_URL']}/v2/concurrency_limits/{change}", json=body).raise_for_status()
    process = psutil.Process(server.process.pid)
    _, server_alone = per_minute([], process)
    with queue(count, "", environment) as runs:
        idle, server_idle = per_minute(runs, process)
    with queue(1, TRAINING_LIMIT, environment), queue(count, TRAINING_LIMIT, environment) as runs:
        waiting, server_waiting = per_minute(runs, process)
    return {
        "runs": count,
        "run_asleep": idle,
        "run_waiting": waiting,
        "server_with_none": server_alone,
        "server_with_runs_asleep": server_idle,
        "server_with_runs_waiting": server_waiting,
    }


def main() -> None:
    """Measure and write JSON."""
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("--preset", default="meadow")
    parser.add_argument("--set", dest="assignments", action="append", default=[])
    parser.add_argument("--config", help="YAML file of settings")
    parser.add_argument("--arms", default="plain,flow", help="plain and flow, in the order to run; may be empty")
    parser.add_argument("--noop", type=int, default=3, help="runs of the last flow with nothing to do")
    parser.add_argument("--waiting", type=int, default=20, help="runs that queue for one slot; 0 = leave this out")
    parser.add_argument("-o", "--output", type=Path, required=True)
    options = parser.parse_args()
    overrides = dict(read_overrides(options.config, tuple(options.assignments)))
    result: dict[str, Any] = {"command": " ".join(sys.argv), "arms": [], "noop_seconds": []}
    with tempfile.TemporaryDirectory(prefix="overhead-") as folder:
        root = Path(folder)
        address = Address(free_port())
        os.environ["PREFECT_HOME"] = str(root / "prefect")
        os.environ["PREFECT_LOGGING_HANDLERS_CONSOLE_LEVEL"] = "CRITICAL"
        server = start_server(address, root / "flow", root / "server.log")
        try:
            wait_for_server(server, address)
            environment = client_environment(address, root / "flow")
            last_flow = None
            for number, way in enumerate(filter(None, options.arms.split(","))):
                store = root / f"{way}-{number}"
                last_flow = store if way == "flow" else last_flow
                result["arms"].append(run_arm(way, store, environment, (options.preset, overrides)))
            for _ in range(options.noop if last_flow else 0):
                told = json.dumps([options.preset, overrides, str(last_flow)])
                began = time.perf_counter()
                run(_FLOW, {**environment, "ALPACA_FARM_STORE": str(last_flow)}, told)
                result["noop_seconds"].append(time.perf_counter() - began)
            result["cpu_seconds_per_minute"] = (
                waiting_cost(options.waiting, server, environment) if options.waiting else None
            )
        finally:
            stop([server], 20)
    result["machine"] = {"cpu": platform.processor() or platform.machine(), "cores": os.cpu_count()}
    result["versions"] = {name: metadata.version(name) for name in ("prefect", "torch", "transformers")}
    options.output.write_text(json.dumps(result, indent=2) + "\n")
    print(json.dumps(result, indent=2))


if __name__ == "__main__":
    main()

"""What Prefect and the store cost: the demo's stages as plain Python against the same through a running server.

    python -m tests.benchmarks.overhead [--preset meadow] [--set KEY=VALUE …] [--waiting 20] -o overhead.json

Each way has a store of its own, and a process of its own that has imported everything before the clock
starts. `plain` calls the stages' bodies through `LocalRunner`; `flow` runs the Prefect flow against a server
that is up. Then the flow again with nothing to do, from a cold process (`noop`, what a user waits for), and
`--waiting` tasks that queue for one slot, with the processor time they use while they wait.
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
from importlib import metadata
from pathlib import Path

from flows.cli.options import read_overrides
from flows.services.processes import stop
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
began = time.perf_counter()
composition_named("rlhf")(LocalRunner(build_study(preset, overrides), "benchmark", Store(root)))
print(time.perf_counter() - began)
"""

_FLOW = """
import json, sys, time
import torch, transformers, accelerate
from flows.rlhf import FLOWS
preset, overrides, root = json.loads(sys.argv[1])
began = time.perf_counter()
state = FLOWS["rlhf"](preset=preset, overrides=overrides, run_name="benchmark", return_state=True)
assert state.is_completed(), state.message
print(time.perf_counter() - began)
"""

_WAITING = """
import sys, time
from prefect import flow
from prefect.concurrency.sync import concurrency

@flow(log_prints=False)
def waiter():
    with concurrency(sys.argv[1], occupy=1, lease_duration=60, strict=True):
        time.sleep(0.1)

began, used = time.perf_counter(), time.process_time()
waiter()
print(time.process_time() - used, time.perf_counter() - began)
"""


def run(script: str, environment: dict[str, str], *arguments: str) -> list[float]:
    """Run a script in a fresh process; return the numbers it prints last."""
    done = subprocess.run(
        [sys.executable, "-c", script, *arguments], env=environment, capture_output=True, text=True, check=True
    )
    return [float(word) for word in done.stdout.splitlines()[-1].split()]


def waiting_cost(count: int, environment: dict[str, str], hold_seconds: float = 30.0) -> dict[str, float]:
    """Processor seconds of `count` runs while another holds the slot for `hold_seconds`, above those of a free one."""
    (alone, _) = run(_WAITING, environment, TRAINING_LIMIT)
    holder_script = _WAITING.replace("time.sleep(0.1)", f"time.sleep({hold_seconds})")
    holder = subprocess.Popen(
        [sys.executable, "-c", holder_script, TRAINING_LIMIT], env=environment, stdout=subprocess.DEVNULL
    )
    time.sleep(10)
    waiters = [
        subprocess.Popen(
            [sys.executable, "-c", _WAITING, TRAINING_LIMIT], env=environment, stdout=subprocess.PIPE, text=True
        )
        for _ in range(count)
    ]
    used = [float(waiter.communicate()[0].splitlines()[-1].split()[0]) for waiter in waiters]
    holder.wait()
    return {"runs": count, "cpu_seconds_alone": alone, "cpu_seconds_each": sum(used) / count}


def main() -> None:
    """Measure and write JSON."""
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("--preset", default="meadow")
    parser.add_argument("--set", dest="assignments", action="append", default=[])
    parser.add_argument("--waiting", type=int, default=20, help="runs that queue for one slot; 0 = leave this out")
    parser.add_argument("-o", "--output", type=Path, required=True)
    options = parser.parse_args()
    overrides = read_overrides(None, tuple(options.assignments))
    with tempfile.TemporaryDirectory(prefix="overhead-") as folder:
        root = Path(folder)
        address = Address(free_port())
        os.environ["PREFECT_HOME"] = str(root / "prefect")
        os.environ["PREFECT_LOGGING_HANDLERS_CONSOLE_LEVEL"] = "CRITICAL"
        server = start_server(address, root / "flow", root / "server.log")
        try:
            wait_for_server(server, address)
            environment = client_environment(address, root / "flow")
            told = [json.dumps([options.preset, overrides, str(root / way)]) for way in ("plain", "flow")]
            (plain,) = run(_PLAIN, {**environment, "ALPACA_FARM_STORE": str(root / "plain")}, told[0])
            (flow,) = run(_FLOW, environment, told[1])
            began = time.perf_counter()
            run(_FLOW, environment, told[1])
            noop = time.perf_counter() - began
            command = [sys.executable, "-m", "prefect", "gcl", "create", TRAINING_LIMIT, "--limit", "1"]
            subprocess.run(command, env=environment, check=True, capture_output=True)
            waiting = waiting_cost(options.waiting, environment) if options.waiting else None
        finally:
            stop([server], 20)
    result = {
        "command": " ".join(sys.argv),
        "plain_seconds": plain,
        "flow_seconds": flow,
        "overhead_seconds": flow - plain,
        "overhead_share": flow / plain - 1,
        "noop_seconds": noop,
        "waiting": waiting,
        "machine": {"cpu": platform.processor() or platform.machine(), "cores": os.cpu_count()},
        "versions": {name: metadata.version(name) for name in ("prefect", "torch", "transformers")},
    }
    options.output.write_text(json.dumps(result, indent=2) + "\n")
    print(json.dumps(result, indent=2))


if __name__ == "__main__":
    main()

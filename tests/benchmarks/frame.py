"""What the benchmark tables share: arms as fresh processes that take turns, medians, ratios, memory, the machine.

An arm is a command that is given the path of a job (JSON) as its last argument and prints its result, a JSON
object, as its last line. It is timed by itself (its result's `seconds`); its peak of resident memory is what Linux
says of the process. Arms of one repeat run one after the other on the same cores, and every other repeat
turns their order round, so that a machine that slows down or speeds up favours nobody.
"""

from __future__ import annotations

import json
import os
import platform
import statistics
import subprocess
import sys
import tempfile
import time
from collections.abc import Mapping, Sequence
from dataclasses import dataclass, field
from datetime import UTC, datetime
from importlib import metadata
from pathlib import Path
from typing import Any

HERE = Path(__file__).parent
ROOT = HERE.parents[1]
POLL_S = 0.02
PACKAGES = ("torch", "transformers", "accelerate", "tokenizers")

Result = dict[str, Any]


@dataclass(frozen=True)
class Arm:
    """One contender: its name, the command without the job, and the job."""

    name: str
    command: Sequence[str]
    job: Mapping[str, Any] = field(default_factory=dict)


def ours(module: str) -> list[str]:
    """Command of a module of this folder under this interpreter."""
    return [sys.executable, "-m", f"tests.benchmarks.{module}"]


def peer(python: str | Path, script: str) -> list[str]:
    """Command of a script of this folder under a peer's interpreter; it must not import this project."""
    return [str(python), str(HERE / script)]


def run(arm: Arm) -> Result:
    """Run one arm; its result with `peak_mb` (of the process) and `wall_s`."""
    with tempfile.TemporaryDirectory() as name:
        job, out, said = (Path(name) / part for part in ("job.json", "out.txt", "said.txt"))
        job.write_text(json.dumps({**arm.job, "folder": name}), encoding="utf-8")
        environment = {**os.environ, "PYTHONPATH": str(ROOT), "HF_HUB_OFFLINE": "1", "TOKENIZERS_PARALLELISM": "false"}
        began = time.perf_counter()
        with out.open("w") as stream, said.open("w") as errors:
            process = subprocess.Popen([*arm.command, str(job)], stdout=stream, stderr=errors, env=environment)
            peak_mb = 0.0
            while process.poll() is None:
                peak_mb = max(peak_mb, _high_water_mb(process.pid))
                time.sleep(POLL_S)
        wall = time.perf_counter() - began
        if process.returncode:
            raise SystemExit(f"{arm.name}: exit code {process.returncode}\n{said.read_text()[-4000:]}")
        result: Result = json.loads(out.read_text().strip().splitlines()[-1])
    result |= {"wall_s": wall, "peak_mb": peak_mb}
    if "imports_mb" in result:
        result["beyond_mb"] = result["peak_mb"] - result["imports_mb"] - result["state_mb"]
    figures = "  ".join(f"{key} {value:,.1f}" for key, value in result.items() if isinstance(value, float))
    print(f"{arm.name:24} {figures}", file=sys.stderr, flush=True)
    return result


def _high_water_mb(pid: int) -> float:
    """Most memory that a process has had resident, by the kernel; 0 when it is gone.

    Not `ru_maxrss` of the ended process: that begins with what the process had that started it.
    """
    try:
        lines = Path(f"/proc/{pid}/status").read_text().splitlines()
    except OSError:
        return 0.0
    return next((int(line.split()[1]) / 1024 for line in lines if line.startswith("VmHWM:")), 0.0)


def take_turns(arms: Sequence[Arm], repeats: int) -> dict[str, list[Result]]:
    """Run all arms `repeats` times, forwards and backwards in turn; results by arm, in the order of repeats."""
    results: dict[str, list[Result]] = {arm.name: [] for arm in arms}
    for repeat in range(repeats):
        for arm in arms if repeat % 2 == 0 else reversed(arms):
            results[arm.name].append(run(arm))
    return results


def median(results: Sequence[Result], key: str) -> float:
    """Median of one figure over the repeats."""
    return statistics.median(result[key] for result in results)


def ratio(results: Mapping[str, Sequence[Result]], one: str, other: str, key: str) -> dict[str, float]:
    """one ÷ other in each repeat: median, lowest and highest."""
    pairs = zip(results[one], results[other], strict=True)
    ratios = [mine[key] / theirs[key] for mine, theirs in pairs]
    return {"median": statistics.median(ratios), "lowest": min(ratios), "highest": max(ratios)}


def matmul_gflops(seconds: float = 0.5) -> dict[str, float]:
    """Measured rate of 1024 × 1024 matrix products with torch as this process is set up, in GFLOP/s."""
    import torch

    rates = {}
    for dtype in (torch.float32, torch.bfloat16):
        a, b = torch.randn(1024, 1024, dtype=dtype), torch.randn(1024, 1024, dtype=dtype)
        torch.mm(a, b)
        count, began = 0, time.perf_counter()
        while time.perf_counter() - began < seconds:
            torch.mm(a, b)
            count += 1
        rates[str(dtype).removeprefix("torch.")] = 2 * 1024**3 * count / (time.perf_counter() - began) / 1e9
    return rates


def machine(command: str, peers: Mapping[str, str | Path] | None = None) -> dict[str, Any]:
    """Where, when and with what: for the head of a JSON file."""
    return {
        "command": command,
        "date": datetime.now(UTC).isoformat(timespec="seconds"),
        "processor": _processor(),
        "cores_allowed": len(os.sched_getaffinity(0)),
        "threads": os.environ.get("OMP_NUM_THREADS", "all"),
        "load": os.getloadavg()[0],
        "platform": platform.platform(),
        "python": platform.python_version(),
        **{name: metadata.version(name) for name in PACKAGES},
        "matmul_gflops": matmul_gflops(),
        **{name: _version(python) for name, python in (peers or {}).items()},
    }


def write(path: Path, about: Mapping[str, Any], tables: Mapping[str, Any]) -> None:
    """Write a results file; tables that are there and not made anew stay."""
    old = json.loads(path.read_text())["tables"] if path.is_file() else {}
    dated = {name: {"machine": about, **table} for name, table in tables.items()}
    path.write_text(json.dumps({"tables": {**old, **dated}}, indent=1) + "\n", encoding="utf-8")


def _version(python: str | Path) -> str:
    code = "from importlib.metadata import version as v; print('trl', v('trl'), 'torch', v('torch'))"
    return subprocess.run([str(python), "-c", code], capture_output=True, text=True, check=True).stdout.strip()


def _processor() -> str:
    for line in Path("/proc/cpuinfo").read_text().splitlines() if Path("/proc/cpuinfo").is_file() else ():
        if line.startswith("model name"):
            return line.partition(":")[2].strip()
    return platform.processor()

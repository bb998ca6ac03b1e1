"""How long a user waits before anything happens: `python -m tests.benchmarks.startup [--artifacts 10000] -o OUT.json`.

Commands as typed, each in a process of its own, several times: `--help`; `artifacts list` of a store of many artifacts
with manifests as large as real ones (the first time, and again); a dry run; and a flow that finds everything in the
store, beside a Prefect flow that does nothing at all. Medians of wall time and of processor time.
"""

from __future__ import annotations

import argparse
import json
import os
import platform
import resource
import statistics
import subprocess
import sys
import tempfile
import time
from importlib import metadata
from pathlib import Path
from typing import Any

from alpaca_farm_core.artifacts.files import canonical_json
from alpaca_farm_core.artifacts.listing import FILE
from alpaca_farm_core.artifacts.manifest import FileEntry, Manifest, Recipe
from alpaca_farm_core.artifacts.store import Store
from alpaca_farm_core.config.presets import build_study
from alpaca_farm_core.pipeline.registry import stage_named
from alpaca_farm_core.pipeline.run import environment
from tests.tiny import TINY

LIMITS_S = {"help": 0.3, "list again": 1.0}
_STAGES = ("sft", "sample", "preferences", "reward_model", "ppo", "decode", "evaluate", "dpo", "best_of_n", "rloo")
_EMPTY_FLOW = "from prefect import flow\n@flow\ndef nothing(): pass\nnothing()"


def fill(store: Store, count: int) -> None:
    """Put `count` manifests into a store, ten versions of each name, without the files that they name."""
    study, around = build_study("meadow"), environment()
    executed = study.execution.model_dump(mode="json")
    for number in range(count):
        name, version = f"run-{number % max(1, count // 10)}", 1 + number // max(1, count // 10)
        stage = stage_named(_STAGES[number % len(_STAGES)])
        config = {**study.section(stage.name).model_dump(mode="json"), "seed": number}
        files = tuple(FileEntry(f"file-{n}.json", 1000 + n, f"{n:064x}") for n in range(9))
        volatile = {
            "created": "2026-01-01T00:00:00+00:00", "finished_at": float(number), "seconds": 12.5, "timings": {},
            "environment": around, "execution": executed, "name": name, "version": version,
        }  # fmt: skip
        metrics = {f"metric_{n}": n / 7 for n in range(12)}
        manifest = Manifest(stage.output, Recipe(stage.name, 1, config), files, metrics, {}, 0, volatile)
        folder = store.root / "artifacts" / stage.output / name / f"v{version}"
        folder.mkdir(parents=True)
        (folder / "manifest.json").write_text(canonical_json(manifest.to_json(), indent=1))


def seconds(command: list[str], around: dict[str, str]) -> tuple[float, float]:
    """Wall and processor time of one run."""
    before, began = resource.getrusage(resource.RUSAGE_CHILDREN), time.perf_counter()
    subprocess.run(command, env={**os.environ, **around}, check=True, capture_output=True)
    wall, after = time.perf_counter() - began, resource.getrusage(resource.RUSAGE_CHILDREN)
    return wall, after.ru_utime + after.ru_stime - before.ru_utime - before.ru_stime


def main() -> None:
    """Measure and write JSON."""
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("--artifacts", type=int, default=10000)
    parser.add_argument("--repeats", type=int, default=5)
    parser.add_argument("--no-flow", action="store_true", help="leave the flows out")
    parser.add_argument("-o", "--output", type=Path, required=True)
    options = parser.parse_args()
    farm = [sys.executable, "-m", "flows.cli.main"]
    with tempfile.TemporaryDirectory(prefix="startup-") as name:
        root = Path(name)
        many, tiny = Store(root / "many"), root / "tiny"
        fill(many, options.artifacts)
        settings = [word for key, value in TINY.items() for word in ("--set", f"{key}={json.dumps(value)}")]
        flow = [*farm, "run", "sft", "--preset", "meadow", "--store", str(tiny), *settings]
        commands: dict[str, list[str]] = {
            "help": [*farm, "--help"],
            "list first": [*farm, "artifacts", "list", "--store", str(many.root)],
            "list again": [*farm, "artifacts", "list", "--store", str(many.root)],
            "dry run": [*farm, "run", "rlhf", "--dry-run", "--store", str(many.root)],
        }
        around = {"PREFECT_HOME": str(root / "prefect")}
        if not options.no_flow:
            commands |= {"flow with nothing to do": flow, "empty Prefect flow": [sys.executable, "-c", _EMPTY_FLOW]}
            for command in list(commands.values())[-2:]:  # makes what is found later, and Prefect's database
                seconds(command, around)
        rows: dict[str, Any] = {}
        for title, command in commands.items():
            times = []
            for _ in range(options.repeats):
                if title == "list first":
                    (many.root / FILE).unlink(missing_ok=True)
                times.append(seconds(command, around))
            wall, cpu = (statistics.median(column) for column in zip(*times, strict=True))
            rows[title] = {"wall_seconds": wall, "cpu_seconds": cpu, "limit_seconds": LIMITS_S.get(title)}
            print(f"{title:25} {wall:6.2f} s, {cpu:6.2f} s of processor time", flush=True)
    result = {
        "command": " ".join(sys.argv),
        "artifacts": options.artifacts,
        "rows": rows,
        "machine": {"cpu": platform.processor() or platform.machine(), "cores": os.cpu_count()},
        "versions": {name: metadata.version(name) for name in ("prefect", "click", "pydantic")},
    }
    options.output.write_text(json.dumps(result, indent=2) + "\n")


if __name__ == "__main__":
    main()

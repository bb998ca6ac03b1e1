"""Annotation over real HTTP, beside AlpacaEval 0.6.6 in the same run. Needs an otherwise idle machine.

    python -m venv /somewhere/ae && /somewhere/ae/bin/pip install alpaca-eval==0.6.6
    python -m tests.benchmarks.bench_annotation --alpaca-eval /somewhere/ae/bin/python

A local server answers each call after 200 ms. Every arm is a whole command in a process of its own, timed from
its start to its end; arms take turns, the median counts. AlpacaEval runs with 16 and with 32 threads and no
chunks, and the better one counts. Writes annotation.json beside this file.
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
import urllib.request
from collections.abc import Iterator, Mapping, Sequence
from contextlib import contextmanager
from datetime import UTC, datetime
from importlib import metadata
from pathlib import Path
from typing import Any

LATENCY_S = 0.2
N_PAIRS, N_CACHED = 805, 50_000
CONCURRENCY = 256
HERE = Path(__file__).parent
CONFIG = """
judge:
  prompt_template: "judge/prompt.txt"
  fn_completions: "openai_completions"
  completions_kwargs:
    model_name: "gpt-4.1"
    max_tokens: 16
    temperature: 0
    num_procs: {threads}
  fn_completion_parser: "regex_parser"
  completion_parser_kwargs:
    outputs_to_match:
      1: '(?:^|\\n) ?Output \\(a\\)'
      2: '(?:^|\\n) ?Output \\(b\\)'
  batch_size: 1
"""
PROMPT = """<|im_start|>system
You compare two answers to the same instruction.
<|im_end|>
<|im_start|>user
## Instruction
{instruction}

## Output (a)
{output_1}

## Output (b)
{output_2}

## Which output is better? Answer Output (a) or Output (b).
<|im_end|>
"""


def make_files(folder: Path) -> None:
    """Write pairs (answers of about 350 characters) and the annotator in AlpacaEval's schema."""
    for threads in (16, 32):
        judge = folder / f"threads{threads}" / "judge"
        judge.mkdir(parents=True)
        (judge / "configs.yaml").write_text(CONFIG.format(threads=threads))
        (judge / "prompt.txt").write_text(PROMPT)
    for n in (N_PAIRS, N_CACHED):
        rows = [
            {
                "instruction": f"Instruction number {i}.",
                "output_1": f"one answer {i} " + "some words of it " * 20,
                "output_2": f"another answer {i} " + "other words here " * 20,
            }
            for i in range(n)
        ]
        (folder / f"pairs{n}.json").write_text(json.dumps(rows))


@contextmanager
def server(share: float = 0.0, status: int = 429, latency_s: float = LATENCY_S) -> Iterator[str]:
    """A server in a process of its own; yields its base URL."""
    command = [sys.executable, "-m", "tests.benchmarks.latency_server", "--latency", str(latency_s)]
    process = subprocess.Popen(
        [*command, "--share", str(share), "--status", str(status)], stdout=subprocess.PIPE, text=True
    )
    assert process.stdout is not None
    try:
        yield process.stdout.readline().strip()
    finally:
        process.terminate()
        process.wait()


def ask(base_url: str, path: str) -> dict[str, int]:
    with urllib.request.urlopen(base_url.removesuffix("/v1") + path) as answer:
        found: dict[str, int] = json.load(answer)
        return found


def run(command: Sequence[str], base_url: str, out: Path) -> dict[str, Any]:
    """Run one command; return its wall time, calls and labels."""
    ask(base_url, "/reset")
    environment = {**os.environ, "OPENAI_API_KEY": "benchmark", "OPENAI_BASE_URL": base_url}
    began = time.perf_counter()
    done = subprocess.run(command, env=environment, capture_output=True, text=True, check=False)
    wall = time.perf_counter() - began
    if done.returncode:
        raise SystemExit(done.stderr[-3000:])
    rows = json.loads(out.read_text())
    labelled = sum(row.get("preference") in (1, 2) for row in rows)
    inner = json.loads(done.stdout.strip().splitlines()[-1])
    print(f"{wall:6.2f} s  {len(rows)} pairs  {' '.join(map(str, command[1:3]))}", file=sys.stderr, flush=True)
    return {"wall_s": wall, "inner_s": inner["seconds"], "pairs": len(rows), "labelled": labelled} | ask(
        base_url, "/count"
    )


def ours(
    folder: Path, base_url: str, n: int = N_PAIRS, calls: str = "", concurrency: int = CONCURRENCY
) -> dict[str, Any]:
    out = folder / "ours.json"
    place = calls or tempfile.mkdtemp(dir=folder)
    module = [sys.executable, "-m", "tests.benchmarks.annotate_ours"]
    judge = str(folder / "threads32" / "judge")
    return run([*module, str(folder / f"pairs{n}.json"), judge, str(out), place, str(concurrency)], base_url, out)


def theirs(python: str, folder: Path, base_url: str, threads: int) -> dict[str, Any]:
    out = folder / "theirs.json"
    configs = str(folder / f"threads{threads}" / "judge" / "configs.yaml")
    script = str(HERE / "annotate_alpaca_eval.py")
    return run([python, script, str(folder / f"pairs{N_PAIRS}.json"), configs, str(out)], base_url, out)


def median(runs: Sequence[Mapping[str, Any]]) -> dict[str, Any]:
    """The run of median wall time, with all wall times."""
    middle = sorted(runs, key=lambda one: one["wall_s"])[(len(runs) - 1) // 2]
    return {**middle, "walls_s": [round(one["wall_s"], 3) for one in runs]}


def measure(python: str | None, repeats: int) -> dict[str, Any]:
    arms: dict[str, list[dict[str, Any]]] = {}
    with tempfile.TemporaryDirectory() as name:
        folder = Path(name)
        make_files(folder)
        with server(latency_s=0.0) as quick:
            calls = str(folder / "calls")
            fill = ours(folder, quick, N_CACHED, calls, concurrency=0)
            for _ in range(repeats):
                arms.setdefault("cached", []).append(ours(folder, quick, N_CACHED, calls))
        with server() as clean, server(0.1, 429) as limited, server(0.1, 500) as failing:
            for _ in range(repeats):
                arms.setdefault("ours", []).append(ours(folder, clean))
                arms.setdefault("ours_429", []).append(ours(folder, limited))
                arms.setdefault("ours_500", []).append(ours(folder, failing))
                for threads in (16, 32) if python else ():
                    arms.setdefault(f"alpaca_eval_{threads}", []).append(theirs(python, folder, clean, threads))  # type: ignore[arg-type]
    found: dict[str, Any] = {name: median(runs) for name, runs in arms.items()}
    return {**found, "fill_cache": fill, **judge(found)}


def judge(arms: Mapping[str, Any]) -> dict[str, Any]:
    """The figures that count, and whether they meet their targets."""
    mine, limited, failing, cached = (arms[name] for name in ("ours", "ours_429", "ours_500", "cached"))
    figures: dict[str, Any] = {
        "pairs_per_second": N_PAIRS / mine["wall_s"],
        "same_number_of_calls": mine["requests"] == N_PAIRS,
        "ratio_429": limited["wall_s"] / mine["wall_s"],
        "all_labelled": mine["labelled"] == limited["labelled"] == failing["labelled"] == N_PAIRS,
        "cached_pairs_per_second": N_CACHED / cached["inner_s"],
        "cached_calls": cached["requests"],
    }
    met = [
        figures["same_number_of_calls"], figures["ratio_429"] <= 1.3, figures["all_labelled"],
        figures["cached_pairs_per_second"] >= 10_000, cached["requests"] == 0,
    ]  # fmt: skip
    peers = [name for name in arms if name.startswith("alpaca_eval_")]
    if peers:
        best = min(peers, key=lambda name: arms[name]["wall_s"])
        figures["best_peer"] = best
        figures["times_as_fast"] = arms[best]["wall_s"] / mine["wall_s"]
        figures["same_number_of_calls"] &= arms[best]["requests"] == N_PAIRS
        met += [figures["times_as_fast"] >= 5, figures["same_number_of_calls"]]
    return {"figures": figures, "targets_met": all(met)}


def main() -> None:
    parser = argparse.ArgumentParser(description="Annotation benchmark.")
    parser.add_argument("--alpaca-eval", metavar="PYTHON", help="interpreter of an environment with alpaca-eval 0.6.6")
    parser.add_argument("--repeats", type=int, default=3)
    parser.add_argument("-o", "--out", type=Path, default=HERE / "annotation.json")
    options = parser.parse_args()
    results = measure(options.alpaca_eval, options.repeats)
    machine = {
        "command": f"python -m tests.benchmarks.bench_annotation --repeats {options.repeats}"
        + (" --alpaca-eval PYTHON" if options.alpaca_eval else ""),
        "date": datetime.now(UTC).isoformat(timespec="seconds"),
        "cpus": os.cpu_count(),
        "load": os.getloadavg()[0],
        "platform": platform.platform(),
        "python": platform.python_version(),
        "openai": metadata.version("openai"),
        "latency_s": LATENCY_S,
        "median_of": options.repeats,
    }
    options.out.write_text(json.dumps({"machine": machine, **results}, indent=1) + "\n", encoding="utf-8")
    print(json.dumps(results["figures"], indent=1), "targets met:", results["targets_met"])


if __name__ == "__main__":
    main()

"""Decoding beside `generate` of transformers: same weights, prompts and forced lengths, in the same run.

    python -m tests.benchmarks.decoding [--models nano llama18m smollm2] [--sizes 16 32] [--quick] [-o decoding.json]

Prompts have 10–200 tokens, responses are geometric with a mean of a third of the maximum of 256, at which they are
cut; draws at temperature 1. Each side is tried with several batch sizes in the first repeat and keeps its best one;
`generate` gets its prompts sorted by length. Beside the ratios stands `bare`: forward passes alone, of the same number
of tokens, in full batches without padding. Tables: `samples` (one per prompt) and `best_of_16` (16 of each prompt).
"""

from __future__ import annotations

import argparse
from pathlib import Path
from typing import Any

from tests.benchmarks.decode_arm import LONGEST_PROMPT, MAX_NEW_TOKENS, MEAN_TOKENS, SHORTEST_PROMPT
from tests.benchmarks.frame import HERE, Arm, Result, machine, median, ours, ratio, run, take_turns, write

SIZES = {"ours": (32, 64), "generate": (16, 32, 64)}
ROWS = {"nano": 128, "llama18m": 96, "smollm2": 48}
SAMPLES = {"samples": 1, "best_of_16": 16}
TARGETS = {"samples": 2.0, "best_of_16": 3.0}


def measure(model: str, task: str, rows: int, sizes: dict[str, tuple[int, ...]], repeats: int) -> dict[str, Any]:
    """One row of the table: both sides at their best batch size, and the limit."""
    job = {"model": model, "samples": SAMPLES[task], "rows": rows}

    def arm(side: str, size: int) -> Arm:
        return Arm(f"{model} {task} {side} {size}", ours("decode_arm"), {**job, "side": side, "batch_size": size})

    tried = [arm(side, size) for side in sizes for size in sizes[side]]
    first = take_turns(tried, 1)
    speeds = {side: {size: first[arm(side, size).name][0]["samples_per_s"] for size in sizes[side]} for side in sizes}
    best = {side: _best(speeds[side]) for side in sizes}
    later = take_turns([arm(side, best[side]) for side in reversed(sizes)], repeats - 1)
    results: dict[str, list[Result]] = {
        side: [*first[arm(side, size).name], *later[arm(side, size).name]] for side, size in best.items()
    }
    bare = run(arm("bare", best["ours"]))
    speed = median(results["ours"], "tokens_per_s")
    return {
        **{
            side: {
                "batch_size": best[side],
                **{key: median(results[side], key) for key in ("samples_per_s", "tokens_per_s", "peak_mb")},
            }
            for side in sizes
        },
        "times_as_fast": ratio(results, "ours", "generate", "samples_per_s"),
        "target": TARGETS[task],
        "peak_memory": ratio(results, "ours", "generate", "peak_mb"),
        "beyond_weights_and_imports": ratio(results, "ours", "generate", "beyond_mb"),
        "bare_tokens_per_s": bare["tokens_per_s"],
        "share_of_bare": speed / bare["tokens_per_s"],
        "tried": {name: runs[0]["samples_per_s"] for name, runs in first.items()},
        "rows": rows,
    }


def _best(speeds: dict[int, float]) -> int:
    """The smallest batch within 3 % of the best speed: beyond that, more rows are only more memory."""
    return min(size for size, speed in speeds.items() if speed >= 0.97 * max(speeds.values()))


def main() -> None:
    """Measure and write the tables."""
    parser = argparse.ArgumentParser(description="Decoding benchmark.")
    parser.add_argument("--models", nargs="+", choices=ROWS, default=list(ROWS))
    parser.add_argument("--tasks", nargs="+", choices=SAMPLES, default=list(SAMPLES))
    parser.add_argument("--sizes", nargs="+", type=int, help="batch sizes to try on both sides")
    parser.add_argument("--repeats", type=int, default=3)
    parser.add_argument("--quick", action="store_true", help="a quarter of the rows, one size, one repeat")
    parser.add_argument("-o", "--out", type=Path, default=HERE / "decoding.json")
    options = parser.parse_args()
    wanted = tuple(options.sizes or ()) or ((32,) if options.quick else ())
    sizes = {side: wanted or tried for side, tried in SIZES.items()}
    command = "python -m tests.benchmarks.decoding" + (" --quick" if options.quick else "")
    about = {
        **machine(command),
        "prompt_tokens": f"{SHORTEST_PROMPT}-{LONGEST_PROMPT}, uniform",
        "response_tokens": f"geometric, mean {MEAN_TOKENS:.0f}, cut at {MAX_NEW_TOKENS}",
        "median_of": 1 if options.quick else options.repeats,
    }
    for model in options.models:
        for task in options.tasks:
            rows = ROWS[model] // (4 if options.quick else 1)
            table = measure(model, task, rows, sizes, 1 if options.quick else options.repeats)
            write(options.out, about, {f"{model} {task}": table})
            times, share = table["times_as_fast"], table["share_of_bare"]
            print(f"{model} {task}: {times['median']:.2f} × generate ({times['lowest']:.2f}-{times['highest']:.2f}), "
                  f"{100 * share:.0f} % of bare forward passes")  # fmt: skip


if __name__ == "__main__":
    main()

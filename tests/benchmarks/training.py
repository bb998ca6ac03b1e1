"""Training beside TRL: SFT, reward modelling, DPO and PPO on the same weights and token ids, in the same run.

    make bench-peers                                       the peers' environments, from pinned versions
    python -m tests.benchmarks.training [--tables sft dpo] [--worlds llama14m] [--repeats 3] [-o training.json]

Supervised tables (peer: TRL 1.16). One epoch over rows of mixed lengths in batches of 16 rows; tokens are real ones
(a pair: twice its prompt and both answers), whatever a side computes. TRL pads its micro-batches of 8 rows, shuffled,
as it does by itself (`trl`), and once more as fast as it can be set (`trl_best`, see TUNED); its gradient checkpointing
is off, its logits are chunked by its own fused head, DPO's reference log-probabilities are made before the clock
starts on both sides. `bare` is the limit: see `train_bare`.

Tables of PPO (peer: TRL 1.12, the last with a PPOTrainer) and RLOO (TRL 1.16; GROUP answers to each prompt, one
epoch). Both sides sample for themselves, from a model whose EOS is never drawn, but episode i of a run ends after the
same number of tokens on both (`lengths` of the job), which neither decoder is told: it finds a row at its end. `ppo`,
`rloo`: lengths as of answers that end at every token with the same chance, cut at the maximum, mean a third of it;
`ppo_max`: all at the maximum. The first step is not timed: it touches most of the memory for the first time. Same
episodes, epochs, optimiser steps and decode batch; each side takes prompts in an order of its own, their mean lengths
are in the results. TRL's micro-batch is the best of PPO_MICRO_BATCHES, tried before the first repeat where there are
several. `bare` has the same passes over the same lengths as ours, and ours' own seconds of sampling.
"""

from __future__ import annotations

import argparse
import json
import math
import os
import random
from collections.abc import Mapping, Sequence
from pathlib import Path
from typing import Any

from safetensors import safe_open

from tests.benchmarks.frame import HERE, Arm, Result, machine, median, ours, peer, ratio, run, take_turns, write
from tests.benchmarks.worlds import NAMES, make_world

SUPERVISED, ON_POLICY = ("sft", "reward", "dpo"), ("ppo", "ppo_max", "rloo")
BATCH, MICRO_BATCH = 16, 8
ROWS = {"nano": 64, "llama14m": 48, "smollm2": 16}
EPISODES = {"nano": 32, "llama14m": 32, "smollm2": 16}
MAX_NEW_TOKENS = {"nano": 96, "llama14m": 192, "smollm2": 192}
WARM_UP = 1
"""Steps on samples of its own before the clock starts."""
STEPS = 2
GROUP = 4
"""Answers to each prompt in RLOO."""
PPO_MICRO_BATCHES = {"nano": (8,), "llama14m": (8,), "smollm2": (4,)}
TUNED: dict[str, dict[str, Any]] = {
    "sft": {"trl_padding_free": True},
    "reward": {"trl_train_sampling_strategy": "group_by_length"},
    "dpo": {"trl_train_sampling_strategy": "group_by_length"},
}
TARGETS = {"sft": 1.5, "reward": 1.5, "dpo": 1.5, "ppo": 3.0, "ppo_max": 1.3, "rloo": 1.5}
BYTES = {"trained": 16, "frozen": 4}
"""Per weight in float32: with gradient and AdamW's two moments, or alone."""


def forced_lengths(limit: int, count: int, seed: int = 0) -> list[int]:
    """Draw numbers of tokens after which answers end: geometric, cut at `limit`, with a mean of a third of it.

    One of each `count`-th part of the distribution, in random order: so that the mean of a few is right too.
    """
    low, high = 1e-6, 3 / limit
    for _ in range(60):  # the chance to end at each token; the mean falls with it
        chance = (low + high) / 2
        too_long = (1 - (1 - chance) ** limit) / chance > limit / 3
        low, high = (chance, high) if too_long else (low, chance)
    draw = random.Random(seed)
    shares = [(part + draw.random()) / count for part in range(count)]
    draw.shuffle(shares)
    return [min(limit, 1 + int(math.log(1 - share) / math.log(1 - high))) for share in shares]


def _lengths(limit: int, episodes: int, steps: int) -> list[int]:
    """Lengths of all episodes: each step's have the mean."""
    return [length for step in range(steps) for length in forced_lengths(limit, episodes, step)]


def job_of(table: str, world: Path, rows: int, precision: str, steps: int = STEPS, episodes: int = 0) -> dict[str, Any]:
    """What all arms of a table are told; `steps` are those on samples that are timed."""
    ids = json.loads((world / "rows.json").read_text())
    lengths = {name: [len(row) for row in ids[name][:rows]] for name in ("prompts", "responses", "others")}
    prompts, answers = sum(lengths["prompts"]), sum(lengths["responses"])
    kind = table.removesuffix("_max")
    weights = _weights(world / "endless")
    limit, episodes = MAX_NEW_TOKENS[world.name], episodes or EPISODES[world.name]
    n_answers = episodes * (WARM_UP + steps)
    # on samples of its own a policy has a reference and a reward model beside it, and in PPO a critic
    models = BYTES["trained"] * (2 if kind == "ppo" else 1) + BYTES["frozen"] * (2 if kind in ON_POLICY else 0)
    return {
        "kind": kind,
        "world": str(world),
        "rows": rows,
        "tokens": prompts + answers if kind == "sft" else 2 * prompts + answers + sum(lengths["others"]),
        "batch": BATCH,
        "micro_batch": MICRO_BATCH,
        "precision": precision,
        "state_mb": models * weights / 2**20,
        "max_new_tokens": limit,
        "lengths": [limit] * n_answers if table.endswith("_max") else _lengths(limit, episodes, WARM_UP + steps),
        "episodes": episodes,
        "epochs": 1 if kind == "rloo" else 2,
        "group": GROUP,
        "steps": WARM_UP + steps,
        "timed_steps": steps,
        "rollout_micro_batch": episodes,
    }


def supervised(table: str, job: Mapping[str, Any], python: Path, repeats: int) -> dict[str, Any]:
    """One supervised table."""
    trl = peer(python, "train_trl.py")
    arms = [
        Arm("ours", ours("train_ours"), job),
        Arm("trl", trl, job),
        Arm("trl_best", trl, {**job, **TUNED[table]}),
        Arm("bare", ours("train_bare"), job),
    ]
    results = take_turns(arms, repeats)
    return summary(results, "tokens_per_s", TARGETS[table], job)


def on_policy(table: str, job: Mapping[str, Any], python: Path, repeats: int) -> dict[str, Any]:
    """One table of a method that samples: TRL's best micro-batch, then turns; then bare passes over ours' lengths."""
    trl = peer(python, "train_trl.py")
    sizes = PPO_MICRO_BATCHES[Path(job["world"]).name]
    tried = {size: run(Arm(f"trl, {size} rows", trl, {**job, "micro_batch": size})) for size in sizes[1:] and sizes}
    best = max(sizes, key=lambda size: tried[size]["episodes_per_s"]) if tried else sizes[0]
    arms = [Arm("ours", ours("train_ours"), job), Arm("trl", trl, {**job, "micro_batch": best})]
    results = take_turns(arms, repeats)
    timed = job["lengths"][-job["timed_steps"] * job["episodes"] :]
    for name, runs in results.items():
        if any(sorted(result["lengths"]) != sorted(timed) for result in runs):
            raise SystemExit(f"{name}: answers have other lengths than they were given")
    for result in results["ours"]:
        lengths = {name: result.pop(name) for name in ("lengths", "prompt_lengths")}
        bare = run(Arm("bare", ours("train_bare"), {**job, **lengths}))
        # its own limit knows nothing of decoding
        bare["episodes_per_s"] = job["episodes"] * job["timed_steps"] / (bare["seconds"] + result["decode_s"])
        results.setdefault("bare", []).append(bare)
    for result in results["trl"]:
        result.pop("lengths")
    found = summary(results, "episodes_per_s", TARGETS[table], job)
    found["trl_micro_batch"] = best
    found["mean_length"] = sum(timed) / len(timed)
    found["mean_prompt"] = {side: median(results[side], "mean_prompt") for side in ("ours", "trl")}
    found["decode_s"] = median(results["ours"], "decode_s")
    return found


def summary(results: Mapping[str, Sequence[Result]], key: str, target: float, job: Mapping[str, Any]) -> dict[str, Any]:
    """Medians and ratios; `cpu_time` is by processor seconds, which hold when other programs
    run besides; `beyond` is memory beyond weights, gradients, optimiser state and imported code.
    """
    for result in (one for runs in results.values() for one in runs):
        result["per_cpu_s"] = result[key] * result["seconds"] / result["cpu_seconds"]
    sides = [name for name in results if name != "bare"]
    found: dict[str, Any] = {
        name: {
            one: median(results[name], one)
            for one in (key, "seconds", "cpu_seconds", "peak_mb", "imports_mb", "state_mb", "beyond_mb")
        }
        for name in results
    }
    for name in sides[1:]:
        found[f"times_as_fast_as_{name}"] = ratio(results, "ours", name, key)
        found[f"cpu_time_of_{name}"] = ratio(results, name, "ours", "per_cpu_s")
        found[f"memory_beyond_of_{name}"] = ratio(results, "ours", name, "beyond_mb")
    found["share_of_bare"] = ratio(results, "ours", "bare", key)
    found["trl_share_of_bare"] = ratio(results, "trl", "bare", key)
    for name in sides:
        losses = [result["losses"] for result in results[name] if result.get("losses")]
        if losses:
            found[name]["first_and_last_loss"] = [losses[0][0], losses[0][-1]]
    found["target_met"] = found["times_as_fast_as_trl"]["median"] >= target
    settings = {name: value for name, value in job.items() if name not in ("world", "lengths")}
    return {"settings": settings, "target": target, **found}


def _weights(folder: Path) -> int:
    """Number of weights in a model's file."""
    with safe_open(folder / "model.safetensors", framework="pt") as file:
        shapes = [file.get_slice(name).get_shape() for name in file.keys()]  # noqa: SIM118 — no mapping
    total = 0
    for shape in shapes:
        count = 1
        for size in shape:
            count *= size
        total += count
    return total


def main() -> None:
    parser = argparse.ArgumentParser(description=__doc__.splitlines()[0])
    parser.add_argument("--tables", nargs="+", default=[*SUPERVISED, *ON_POLICY], choices=[*SUPERVISED, *ON_POLICY])
    parser.add_argument("--worlds", nargs="+", default=["llama14m"], choices=NAMES)
    parser.add_argument("--precision", default="float32", choices=["float32", "bfloat16"])
    parser.add_argument("--repeats", type=int, default=3)
    parser.add_argument("--rows", type=int, default=0, help="rows of the supervised tables; 0 = by the world")
    parser.add_argument("--episodes", type=int, default=0, help="of a step of these tables; 0 = by the world")
    parser.add_argument("--steps", type=int, default=STEPS, help="timed steps of the tables of PPO and RLOO")
    parser.add_argument("--work", type=Path, default=Path(os.environ.get("BENCH_WORK", ".bench")))
    parser.add_argument("--trl", type=Path, default=Path(".bench/trl/bin/python"))
    parser.add_argument("--trl-ppo", type=Path, default=Path(".bench/trl-ppo/bin/python"))
    parser.add_argument("-o", "--out", type=Path, default=HERE / "training.json")
    options = parser.parse_args()
    command = (
        f"python -m tests.benchmarks.training --tables {' '.join(options.tables)} --worlds {' '.join(options.worlds)} "
        f"--precision {options.precision} --repeats {options.repeats} --steps {options.steps}"
        + (f" --episodes {options.episodes}" if options.episodes else "")
    )
    for name in options.worlds:
        world = make_world(name, options.work.absolute())
        for table in options.tables:
            rows = options.rows or ROWS[name]
            job = job_of(table, world, rows, options.precision, options.steps, options.episodes)
            python = options.trl_ppo if table.startswith("ppo") else options.trl
            found = (on_policy if table in ON_POLICY else supervised)(table, job, python.absolute(), options.repeats)
            suffix = "" if options.precision == "float32" else f" {options.precision}"
            write(options.out, machine(command, {"trl": python}), {f"{table} {name}{suffix}": found})
            print(table, name, json.dumps({key: value for key, value in found.items() if "times" in key}), flush=True)


if __name__ == "__main__":
    main()

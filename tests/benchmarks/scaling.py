"""How the tool's own cost grows: `python -m tests.benchmarks.scaling [--quick] [NAME …] -o scaling.json`.

Each law is measured at five sizes over two orders of magnitude, in processor seconds of this process, and
cost ~ size^exponent is fitted to them (least squares on logarithms; Student's 95 % interval). Fixed costs flatten the
fit, so the exponent between the two largest sizes stands beside it. Imports are warm. `--quick`: one order only.
"""

from __future__ import annotations

import argparse
import json
import math
import os
import platform
import random
import sys
import tempfile
import time
from collections.abc import Callable
from importlib import metadata
from pathlib import Path
from typing import Any

import numpy as np
from scipy import stats

from alpaca_farm_core.annotators.config import PreferencesConfig
from alpaca_farm_core.annotators.stage import STAGE as PREFERENCES
from alpaca_farm_core.artifacts.files import write_jsonl
from alpaca_farm_core.artifacts.gc import plan_removal
from alpaca_farm_core.artifacts.listing import summaries
from alpaca_farm_core.artifacts.manifest import Artifact, Manifest, Recipe
from alpaca_farm_core.artifacts.store import Store
from alpaca_farm_core.artifacts.transfer import export
from alpaca_farm_core.data.collate import collate, token_budget_micro_batches
from alpaca_farm_core.data.config import DatasetConfig
from alpaca_farm_core.data.prompts import load_template
from alpaca_farm_core.data.rows import read_split
from alpaca_farm_core.data.stage import STAGE as DATASET
from alpaca_farm_core.data.tokenise import tokenise_demonstrations
from alpaca_farm_core.evaluation.scoring import score_annotations
from alpaca_farm_core.models.nano import train_nano_tokenizer
from alpaca_farm_core.pipeline.run import run_stage
from alpaca_farm_core.types import Output
from tests.evaluation.annotation_rows import row, write_json

Prepared = Callable[[], object]
SIZES = (100, 300, 1000, 3000, 10000)


def made(store: Store, kind: Any, name: str, number: int, inputs: dict[str, str] | None = None) -> Artifact:
    """Publish an artifact without files."""
    recipe = Recipe("toy", 1, {"number": number, "name": name}, inputs or {})
    folder = store.workspace(recipe.fingerprint)
    folder.mkdir(parents=True)
    volatile = {"created": "2026-01-01T00:00:00", "seconds": 1.0, "finished_at": float(number)}
    contents = dict.fromkeys(recipe.inputs, "")
    return store.publish(folder, Manifest(kind, recipe, (), {}, contents, 0, volatile), name)


def world(size: int, store: Store) -> Artifact:
    """A dataset of `size` instructions to learn from, and few others."""
    sizes = {"n_sft": size, "n_preference": 2, "n_unlabeled": 2, "n_val": 2, "n_eval": 8}
    config = DatasetConfig.build({"meadow": {**sizes, "seed": 0}, "seed": 0})
    return run_stage(DATASET, config, {}, store=store, name="world").artifact


def judged(size: int, store: Store, label: float = 0.0) -> Prepared:
    """Judge `size` pairs of answers by the oracle."""
    rows = read_split(world(size, store).path, "sft")
    recipe = Recipe("toy", 1, {"size": size})
    folder = store.workspace(recipe.fingerprint)
    folder.mkdir(parents=True, exist_ok=True)
    answers = ((row.output, " ".join(row.output.split()[:3])) for row in rows)
    outputs = [
        Output(row.instruction, row.input, text, "toy", row.dataset, sample)
        for row, texts in zip(rows, answers, strict=True)
        for sample, text in enumerate(texts)
    ]
    write_jsonl(folder / "outputs.jsonl", [output.to_row() for output in outputs])
    volatile = {"created": "", "seconds": 1.0, "finished_at": 0.0}
    samples = store.publish(folder, Manifest("outputs", recipe, (), {}, {}, 0, volatile), "samples")
    config = PreferencesConfig.build({"seed": 0, "annotator": {"name": "oracle", "label_flip": label, "seed": 0}})
    return lambda: run_stage(PREFERENCES, config, {"samples": samples}, store=store, name="judged").artifact


def rejudged(size: int, store: Store) -> Prepared:
    """Judge pairs whose labels are all in the call cache."""
    judged(size, store)()
    again = judged(size, Store(store.root / "again"), label=0.25)
    (store.root / "calls").rename(store.root / "again" / "calls")
    return again


def exported(size: int, store: Store) -> Prepared:
    """Write preferences out of the store."""
    artifact = judged(size, store)()
    return lambda: export(store, artifact, store.root / "exported")


def scored(size: int, store: Store) -> Prepared:
    """Score a file of annotations, ten times as many as `size`."""
    rng = random.Random(0)
    rows = [row(1 + rng.random(), f"m {n % 10}", f"Instruction {n // 10}", "so it is " * 9) for n in range(10 * size)]
    path = write_json(store.root / "annotations.json", rows)
    return lambda: score_annotations(path)


def dataset(size: int, store: Store) -> Prepared:
    """Write the dataset."""
    return lambda: world(size, store)


def prepared(size: int, store: Store) -> Prepared:
    """Tokenise demonstrations, cut them into micro-batches and put these into tensors."""
    rows = read_split(world(size, store).path, "sft")
    template = load_template("plain")
    tokenizer = train_nano_tokenizer(rows[:100], template, 400, 256)

    def work() -> None:
        tokens = tokenise_demonstrations(tokenizer, template, rows, 256)
        lengths = [len(p) + len(r) for p, r in zip(tokens.prompt_ids, tokens.response_ids, strict=True)]
        for group in token_budget_micro_batches(lengths, 1024):
            collate([tokens.prompt_ids[i] for i in group], [tokens.response_ids[i] for i in group], 0)

    return work


def published(size: int, store: Store) -> Prepared:
    """Publish `size` artifacts, ten versions of each name."""

    def work() -> None:
        for number in range(size):
            made(store, "dataset", f"n-{number // 10}", number)

    return work


def one_name(size: int, store: Store) -> Prepared:
    """Publish `size` versions of one name."""

    def work() -> None:
        for number in range(size):
            made(store, "dataset", "n", number)

    return work


def listed(size: int, store: Store) -> Prepared:
    """List a store for the first time."""
    published(size, store)()
    return lambda: summaries(store)


def listed_again(size: int, store: Store) -> Prepared:
    """List a store once more."""
    listed(size, store)()
    return lambda: summaries(store)


def collected(size: int, store: Store) -> Prepared:
    """Find what may be removed where every second artifact is made from the one before."""
    source = ""
    for number in range(size):
        inputs = {"source": source} if number % 2 else {}
        source = made(store, "dataset", f"n-{number // 10}", number, inputs).fingerprint
    return lambda: plan_removal(store)


LAWS: dict[str, Callable[[int, Store], Prepared]] = {
    "annotate pairs (oracle)": judged,
    "annotate pairs (all cached)": rejudged,
    "export preferences": exported,
    "score annotations": scored,
    "dataset": dataset,
    "SFT data preparation": prepared,
    "publish artifacts": published,
    "publish versions of one name": one_name,
    "list artifacts, first time": listed,
    "list artifacts again": listed_again,
    "plan gc": collected,
}


def cost(prepare: Callable[[int, Store], Prepared], size: int) -> float:
    """Processor seconds of one run."""
    with tempfile.TemporaryDirectory() as folder:
        work = prepare(size, Store(Path(folder) / "store"))
        began = time.process_time()
        work()
        return time.process_time() - began


def exponent(sizes: list[int], costs: list[float]) -> tuple[float, float, float]:
    """Fitted exponent and its 95 % interval."""
    fit = stats.linregress(np.log(sizes), np.log(costs))
    margin = float(stats.t.ppf(0.975, len(sizes) - 2) * fit.stderr)
    return float(fit.slope), float(fit.slope) - margin, float(fit.slope) + margin


def main() -> None:
    """Measure and write JSON."""
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("names", nargs="*", default=list(LAWS), metavar="NAME", help=", ".join(LAWS))
    parser.add_argument("--quick", action="store_true")
    parser.add_argument("-o", "--output", type=Path, required=True)
    options = parser.parse_args()
    sizes = list(SIZES[:3] if options.quick else SIZES)
    laws = {}
    for name in options.names:
        cost(LAWS[name], 20)  # imports
        costs = [cost(LAWS[name], size) for size in sizes]
        slope, low, high = exponent(sizes, costs)
        last = math.log(costs[-1] / costs[-2]) / math.log(sizes[-1] / sizes[-2])
        laws[name] = {
            "sizes": sizes, "cpu_seconds": costs, "exponent": slope, "interval": [low, high], "last_exponent": last,
        }  # fmt: skip
        each = f"at the end {last:.2f}, {1e6 * costs[-1] / sizes[-1]:.0f} µs each at {sizes[-1]}"
        print(f"{name:30} exponent {slope:.2f} ({low:.2f} to {high:.2f}), {each}", flush=True)
    result = {
        "command": " ".join(sys.argv),
        "laws": laws,
        "machine": {"cpu": platform.processor() or platform.machine(), "cores": os.cpu_count()},
        "versions": {name: metadata.version(name) for name in ("numpy", "scipy")},
    }
    options.output.write_text(json.dumps(result, indent=2) + "\n")


if __name__ == "__main__":
    main()

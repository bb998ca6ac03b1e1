"""What training stages need of memory: planned from their settings, and measured in the process that ran them.

    python -m tests.benchmarks.memory [--models nano llama smollm2] [--set KEY=VALUE …] [--environment NAME=VALUE …]
        [--stages sft ppo …] [--work FOLDER] -o memory.json

Each stage runs as in production, in a process of its own, on a few rows of the embedded world: `nano` is the demo's
model, `llama` a random Llama of 19 M parameters, `smollm2` the 135 M model from its package. Measured is the peak of
resident memory (`VmHWM`) of that process. What a process takes that has only imported the libraries is measured
too; planned and measured are compared above it. `--environment` sets variables of the training processes.
"""

from __future__ import annotations

import argparse
import json
import os
import platform
import subprocess
import sys
import tempfile
from importlib import metadata
from pathlib import Path
from typing import Any

from alpaca_farm_core.artifacts.store import Store
from alpaca_farm_core.config.presets import build_study
from alpaca_farm_core.methods.registry import method_named
from alpaca_farm_core.pipeline.runner import LocalRunner, Planner
from alpaca_farm_core.training import memory
from flows.cli.memory import planned_memory
from flows.cli.options import read_overrides
from flows.compositions import learn

SMALL = {
    "dataset.meadow.n_sft": 64, "dataset.meadow.n_preference": 48, "dataset.meadow.n_unlabeled": 64,
    "dataset.meadow.n_val": 16, "dataset.meadow.n_eval": 16, "sft.epochs": 1, "sft.batch_size": 16,
    "sft.n_samples": 0, "dpo.n_samples": 0, "sample.max_new_tokens": 48, "reward_model.batch_size": 8,
    "reward_model.eval_size": 8, "dpo.batch_size": 8, "dpo.eval_size": 8, "ppo.steps": 2,
    "ppo.rollout_batch_size": 16, "ppo.minibatch_size": 16, "ppo.eval_prompts": 8, "ppo.save_every": 0,
    "ppo.eval_every": 0, "ppo.unfinished_penalty": None, "execution.own_process": "always", "execution.device": "cpu",
    "execution.threads": 1,
}  # fmt: skip
MODELS: dict[str, dict[str, Any]] = {
    "nano": {},
    "llama": {"sft.model.source": "", "sft.model.template": "plain"},
    "smollm2": {"sft.model.source": "smollm2", "sft.model.template": "chat"},
}
LLAMA = {
    "hidden_size": 384, "intermediate_size": 1024, "num_hidden_layers": 8, "num_attention_heads": 6,
    "num_key_value_heads": 2, "vocab_size": 16384, "tie_word_embeddings": True, "max_position_embeddings": 512,
}  # fmt: skip
_IMPORTS = """
import accelerate, torch, transformers, transformers.models.llama.modeling_llama, transformers.models.auto
from pathlib import Path
from alpaca_farm_core.training.on_policy import loop, setup
torch.zeros(8, 8) @ torch.zeros(8, 8)
print([line.split()[1] for line in Path("/proc/self/status").read_text().splitlines() if line.startswith("VmRSS")][0])
"""


def libraries() -> int:
    """Resident bytes of a process that has imported what training imports."""
    done = subprocess.run([sys.executable, "-c", _IMPORTS], capture_output=True, text=True, check=True)
    return int(done.stdout.split()[-1]) * 1024


def random_llama(folder: Path) -> Path:
    """Write a random Llama of 19 M parameters with a tokenizer of the embedded world, once."""
    if (folder / "config.json").is_file():
        return folder
    import torch
    from transformers import LlamaConfig, LlamaForCausalLM

    from alpaca_farm_core.data.prompts import load_template
    from alpaca_farm_core.models.nano import train_nano_tokenizer
    from alpaca_farm_core.types import Instruction

    rows = [Instruction(f"Say {word} {n} times.", "", " ".join([word] * n)) for word in "abcdefgh" for n in range(9)]
    tokenizer = train_nano_tokenizer(rows, load_template("plain"), 400, 512)
    torch.manual_seed(0)
    ids = {f"{name}_token_id": getattr(tokenizer, f"{name}_token_id") for name in ("pad", "bos", "eos")}
    LlamaForCausalLM(LlamaConfig(**LLAMA, **ids)).save_pretrained(folder)
    tokenizer.save_pretrained(folder)
    return folder


def measure(model: str, overrides: dict[str, Any], stages: list[str], work: Path) -> list[dict[str, Any]]:
    """Run the stages of PPO and DPO on one model; one row per training stage."""
    settings = {**SMALL, **MODELS[model], **overrides}
    if model == "llama":
        settings["sft.model.source"] = str(random_llama(work / "llama"))
    study = build_study("meadow", settings)
    store = Store(work / f"store-{model}")
    methods = [method_named(name) for name in ("ppo", "dpo") if name in stages] or [method_named("ppo")]
    planner, runner = Planner(study, model, store), LocalRunner(study, model, store)
    for method in methods:
        learn(planner, method)
    plans = {step.step.stage.name: planned_memory(step, planner) for step in planner.steps}
    made: dict[str, Any] = {}
    for method in methods:
        shared = {
            name: made[name] for name in ("data", "sft", "samples", "preferences", "reward_model") if name in made
        }
        made |= learn(runner, method, shared)
    rows = []
    for name in stages:
        plan, timings = plans[name], made[name].manifest.volatile["timings"]
        rows.append({"model": model, "stage": name, "plan": plan and {"phase": plan.phase, **plan.parts},
                     "planned": plan and plan.peak, "measured": round(1e9 * timings["peak_memory_gb"]),
                     "seconds": made[name].manifest.volatile["seconds"]})  # fmt: skip
    return rows


def main() -> None:
    """Measure and write JSON."""
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("--models", nargs="+", default=["nano", "llama"], choices=MODELS)
    parser.add_argument("--stages", nargs="+", default=["sft", "reward_model", "ppo", "dpo"])
    parser.add_argument("--set", dest="assignments", action="append", default=[])
    parser.add_argument("--environment", action="append", default=[])
    parser.add_argument("--work", type=Path, help="keep stores here, so that a later call finds SFT and reward models")
    parser.add_argument("-o", "--output", type=Path, required=True)
    options = parser.parse_args()
    os.environ.update(entry.split("=", 1) for entry in options.environment)
    overrides = read_overrides(None, tuple(options.assignments))
    base = libraries()
    with tempfile.TemporaryDirectory(prefix="memory-") as folder:
        work = options.work or Path(folder)
        rows = [row for model in options.models for row in measure(model, overrides, options.stages, work)]
    for row in rows:
        if row["planned"]:
            row["ratio"] = (row["planned"] - memory.LIBRARIES) / (row["measured"] - base)
        shown = {name: f"{row[name] / 1e6:.0f} MB" for name in ("planned", "measured") if row[name]}
        print(row["model"], row["stage"], shown, f"ratio {row.get('ratio', 0):.2f}, {row['seconds']:.0f} s")
    result = {
        "command": " ".join(sys.argv),
        "libraries": base,
        "rows": rows,
        "machine": {"cpu": platform.processor() or platform.machine(), "cores": os.cpu_count()},
        "versions": {name: metadata.version(name) for name in ("torch", "transformers")},
    }
    options.output.write_text(json.dumps(result, indent=2) + "\n")


if __name__ == "__main__":
    main()

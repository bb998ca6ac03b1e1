"""Peak memory of PPO in its modes, beside TRL's: `python -m tests.benchmarks.ppo_memory --trl-ppo PYTHON -o OUT.json`.

The same model, prompts, episodes and settings as the table `ppo` of `training`, two steps; each mode once, as a whole
process (imports included). The reward model is a full one: with adapters it would lie over the same base too.
"""

from __future__ import annotations

import argparse
import json
import os
import sys
from pathlib import Path
from typing import Any

from tests.benchmarks.frame import Arm, ours, peer, run
from tests.benchmarks.training import ROWS, job_of

MODES: dict[str, dict[str, Any]] = {
    "separate critic": {},
    "shared trunk": {"settings": {"critic": "shared_trunk"}},
    "shared trunk, activations again": {
        "settings": {"critic": "shared_trunk"},
        "execution": {"activation_checkpointing": True},
    },
    "adapters": {"settings": {"lora": {"rank": 16}}},
    "adapters, shared trunk": {"settings": {"lora": {"rank": 16}, "critic": "shared_trunk"}},
}


def main() -> None:
    """Measure and write JSON."""
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("--world", default="smollm2")
    parser.add_argument("--modes", nargs="+", default=list(MODES), choices=MODES)
    parser.add_argument("--work", type=Path, default=Path(os.environ.get("BENCH_WORK", ".bench")))
    parser.add_argument("--trl-ppo", type=Path, help="interpreter with TRL 1.12; without it ours alone")
    parser.add_argument("-o", "--output", type=Path, required=True)
    options = parser.parse_args()
    job = job_of("ppo", options.work / options.world, ROWS[options.world], "float32", steps=1)
    arms = [Arm(mode, ours("train_ours"), {**job, **MODES[mode]}) for mode in options.modes]
    if options.trl_ppo:
        arms.append(Arm("trl", peer(options.trl_ppo.absolute(), "train_trl.py"), {**job, "micro_batch": 4}))
    rows = {}
    for arm in arms:
        found = run(arm)
        rows[arm.name] = {name: found[name] for name in ("peak_mb", "imports_mb", "cpu_seconds", "episodes_per_s")}
    for row in rows.values():
        row["of_trl"] = row["peak_mb"] / rows["trl"]["peak_mb"] if "trl" in rows else None
    options.output.write_text(json.dumps({"command": " ".join(sys.argv), "rows": rows}, indent=2) + "\n")


if __name__ == "__main__":
    main()

"""The whole meadow from one seed: five disjoint splits of instructions.

In: `MeadowConfig`. Out: rows per split; no (instruction, input) occurs twice. `eval` holds only slot combinations
and a family that no other split contains. Demonstrations are written for sft, val and eval; preference and
unlabeled rows have an empty output, as their answers come from the policy.
"""

from __future__ import annotations

import random
from collections.abc import Mapping

from alpaca_farm_core.errors import DataError
from alpaca_farm_core.meadow.config import MeadowConfig
from alpaca_farm_core.meadow.demonstrations import demonstrate
from alpaca_farm_core.meadow.fact_families import HELD_OUT_FAMILY
from alpaca_farm_core.meadow.families import families
from alpaca_farm_core.meadow.grammar import Combination, Family, Task
from alpaca_farm_core.seeding import stable_random
from alpaca_farm_core.types import Instruction, Split

WEIGHTS: Mapping[str, int] = {
    "list": 18,
    "definition": 13,
    "colour": 8,
    "colours": 8,
    "place": 8,
    "size": 8,
    "letter": 8,
    "rewrite": 8,
    "comparison": 12,
    "advice": 11,
    "counting": 10,
}
_PATIENCE = 300  # draws in a row without a new text after which a family counts as used up

Pools = Mapping[str, list[Combination]]


def make_world(config: MeadowConfig) -> dict[Split, list[Instruction]]:
    """Write all splits. The same config gives the same rows in every process.

    Raises:
        DataError: the grammar cannot write that many different instructions.
    """
    assert config.seed is not None, "the study config fills in the seed"
    seed = config.seed
    seen, held_out = _split_combinations(seed, config.held_out_combinations)
    sizes: dict[Split, int] = {
        "sft": config.n_sft,
        "preference": config.n_preference,
        "unlabeled": config.n_unlabeled,
        "val": config.n_val,
    }
    tasks = _draw(stable_random(seed, "meadow", "train"), seen, sum(sizes.values()), "training splits")
    n_unseen_family = round(config.n_eval * config.held_out_family)
    unseen_family = {HELD_OUT_FAMILY: families()[HELD_OUT_FAMILY].combinations()}
    rng = stable_random(seed, "meadow", "eval")
    tested = _draw(rng, held_out, config.n_eval - n_unseen_family, "unseen combinations")
    tested += _draw(rng, unseen_family, n_unseen_family, "unseen family")
    rng.shuffle(tested)
    world: dict[Split, list[Instruction]] = {}
    for split, size in sizes.items():
        world[split] = [_row(config, row, split in ("sft", "val")) for row in tasks[:size]]
        del tasks[:size]
    world["eval"] = [_row(config, row, True) for row in tested]
    return world


def held_out_combinations(family: Family, seed: int, share: float) -> set[Combination]:
    """Choose the combinations of a family that only evaluation sees.

    At most `share` of them, in an order made from the seed. Every slot value stays in a combination that
    training sees, so that what is held out can be inferred from its parts.
    """
    everything = family.combinations()
    left: dict[tuple[int, str], int] = {}
    for combination in everything:
        for part in enumerate(combination):
            left[part] = left.get(part, 0) + 1
    order = list(everything)
    stable_random(seed, "meadow", "held out", family.name).shuffle(order)
    chosen: set[Combination] = set()
    for combination in order:
        if len(chosen) >= max(1, int(share * len(everything))):
            break
        parts = list(enumerate(combination))
        if all(left[part] > 1 for part in parts):
            chosen.add(combination)
            for part in parts:
                left[part] -= 1
    return chosen


def _split_combinations(seed: int, share: float) -> tuple[Pools, Pools]:
    """Combinations per family for training and for evaluation."""
    seen: dict[str, list[Combination]] = {}
    held_out: dict[str, list[Combination]] = {}
    for name in WEIGHTS:
        family = families()[name]
        chosen = held_out_combinations(family, seed, share)
        seen[name] = [combination for combination in family.combinations() if combination not in chosen]
        held_out[name] = [combination for combination in family.combinations() if combination in chosen]
    return seen, held_out


def _draw(rng: random.Random, pools: Pools, count: int, what: str) -> list[tuple[Instruction, Task]]:
    """Draw `count` different instructions, families by weight; a used-up family leaves its share to the others."""
    drawn: dict[str, tuple[Instruction, Task]] = {}
    misses = dict.fromkeys(pools, 0)
    while len(drawn) < count:
        open_families = [name for name in pools if misses[name] < _PATIENCE]
        if not open_families:
            raise DataError(
                f"The meadow can write only {len(drawn)} different instructions for its {what}; {count} are needed.",
                "Lower meadow.n_sft, n_preference, n_unlabeled, n_val or n_eval.",
            )
        name = rng.choices(open_families, [WEIGHTS.get(name, 1) for name in open_families])[0]
        family = families()[name]
        values = family.draw(rng.choice(pools[name]), rng)
        instruction, input = family.write(rng.choice(family.wordings(values)), values)
        row = Instruction(instruction, input, dataset=name)
        misses[name] = misses[name] + 1 if row.id in drawn else 0
        drawn.setdefault(row.id, (row, Task(name, values)))
    rows = list(drawn.values())
    rng.shuffle(rows)  # a used-up family must not be missing from the last split
    return rows


def _row(config: MeadowConfig, drawn: tuple[Instruction, Task], with_demonstration: bool) -> Instruction:
    """Attach a demonstration whose flaws depend on the seed and the instruction only."""
    row, task = drawn
    if not with_demonstration:
        return row
    rng = stable_random(config.seed or 0, "meadow", "demonstration", row.id)
    return Instruction(row.instruction, row.input, demonstrate(task, config.demonstrations, rng), row.dataset)

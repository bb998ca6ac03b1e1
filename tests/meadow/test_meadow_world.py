"""The world is a function of its config: sizes, splits that share nothing, and what evaluation holds out."""

from __future__ import annotations

import hashlib
import json
import os
import subprocess
import sys
from collections import Counter

import pytest

from alpaca_farm_core.errors import ConfigError, DataError
from alpaca_farm_core.meadow.config import MeadowConfig
from alpaca_farm_core.meadow.fact_families import HELD_OUT_FAMILY
from alpaca_farm_core.meadow.families import families, parse
from alpaca_farm_core.meadow.world import WEIGHTS, held_out_combinations, make_world
from alpaca_farm_core.types import SPLITS, Instruction, Split

World = dict[Split, list[Instruction]]
DIGEST = """
import hashlib, json
from alpaca_farm_core.meadow.config import MeadowConfig
from alpaca_farm_core.meadow.world import make_world
config = MeadowConfig(seed=5, n_sft=60, n_preference=30, n_unlabeled=30, n_val=10, n_eval=20)
rows = {split: [row.to_row() for row in rows] for split, rows in make_world(config).items()}
print(hashlib.sha256(json.dumps(rows).encode()).hexdigest())
"""


@pytest.fixture(scope="module")
def world() -> World:
    return make_world(MeadowConfig(seed=0))


def python(code: str, environment: dict[str, str]) -> str:
    run = subprocess.run([sys.executable, "-c", code], env=environment, capture_output=True, text=True, check=True)
    return run.stdout.strip()


def combination_of(row: Instruction) -> tuple[str, ...]:
    task = parse(row.instruction, row.input)
    assert task is not None
    assert task.family == row.dataset
    return (task.family, *families()[task.family].combination(task))


def test_splits_have_the_configured_sizes(world: World) -> None:
    config = MeadowConfig(seed=0)
    assert list(world) == list(SPLITS)
    assert [len(rows) for rows in world.values()] == [
        config.n_sft,
        config.n_preference,
        config.n_unlabeled,
        config.n_val,
        config.n_eval,
    ]


def test_no_instruction_occurs_twice_in_the_whole_world(world: World) -> None:
    ids = Counter(row.id for rows in world.values() for row in rows)
    assert max(ids.values()) == 1


def test_evaluation_shares_no_combination_and_not_the_held_out_family_with_any_other_split(world: World) -> None:
    tested = {combination_of(row) for row in world["eval"]}
    for split in SPLITS[:-1]:
        assert not tested & {combination_of(row) for row in world[split]}
        assert HELD_OUT_FAMILY not in {row.dataset for row in world[split]}


def test_evaluation_covers_every_family_and_the_unseen_one_at_its_configured_share(world: World) -> None:
    families_tested = Counter(row.dataset for row in world["eval"])
    assert set(families_tested) == {*WEIGHTS, HELD_OUT_FAMILY}
    assert families_tested[HELD_OUT_FAMILY] == round(256 * 0.15)


@pytest.mark.parametrize("seed", range(5))
def test_every_slot_value_of_a_held_out_combination_is_seen_in_training(seed: int) -> None:
    for name in WEIGHTS:
        family = families()[name]
        held_out = held_out_combinations(family, seed, 0.15)
        seen = set(family.combinations()) - held_out
        assert 1 <= len(held_out) <= max(1, 0.15 * len(family.combinations()))
        parts_seen = {part for combination in seen for part in enumerate(combination)}
        assert {part for combination in held_out for part in enumerate(combination)} <= parts_seen


def test_every_training_split_holds_every_family(world: World) -> None:
    for split in SPLITS[:3]:
        counts = Counter(row.dataset for row in world[split])
        assert set(counts) == set(WEIGHTS)
        assert min(counts.values()) >= 0.02 * len(world[split])


def test_demonstrations_come_with_sft_val_and_eval_only(world: World) -> None:
    for split, rows in world.items():
        assert all(bool(row.output) == (split in ("sft", "val", "eval")) for row in rows)


def test_another_process_with_another_hash_seed_writes_the_same_world() -> None:
    config = MeadowConfig(seed=5, n_sft=60, n_preference=30, n_unlabeled=30, n_val=10, n_eval=20)
    rows = {split: [row.to_row() for row in rows] for split, rows in make_world(config).items()}
    here = hashlib.sha256(json.dumps(rows).encode()).hexdigest()
    for hash_seed in ("1", "2"):
        environment = {**os.environ, "PYTHONHASHSEED": hash_seed}
        assert python(DIGEST, environment) == here


def test_another_seed_writes_another_world_and_holds_out_other_combinations() -> None:
    sizes = {"n_sft": 60, "n_preference": 30, "n_unlabeled": 30, "n_val": 10, "n_eval": 20}
    one, two = (make_world(MeadowConfig(seed=seed, **sizes)) for seed in (1, 2))
    assert {row.id for row in one["sft"]} != {row.id for row in two["sft"]}
    family = families()["list"]
    assert held_out_combinations(family, 1, 0.15) != held_out_combinations(family, 2, 0.15)


def test_asking_for_more_than_the_grammar_can_write_says_how_many_there_are() -> None:
    with pytest.raises(DataError, match=r"can write only 58\d different instructions for its unseen family; 1350 are"):
        make_world(
            MeadowConfig(
                seed=0, n_sft=1, n_preference=1, n_unlabeled=1, n_val=1, n_eval=9_000, held_out_combinations=0.001
            )
        )


def test_an_evaluation_split_without_room_for_the_unseen_family_is_refused() -> None:
    with pytest.raises(ConfigError, match=r"n_eval=2 is too small for held_out_family=0\.1"):
        MeadowConfig.build({"n_eval": 2, "held_out_family": 0.1})
    with pytest.raises(ConfigError, match="Unknown setting 'n_evil'"):
        MeadowConfig.build({"n_evil": 2})


def test_reading_the_config_loads_no_other_part_of_the_meadow() -> None:
    code = (
        "import sys, alpaca_farm_core.meadow.config; print([m for m in sys.modules if 'meadow' in m or m == 'torch'])"
    )
    run = subprocess.run([sys.executable, "-c", code], capture_output=True, text=True, check=True)
    assert run.stdout.strip() == "['alpaca_farm_core.meadow', 'alpaca_farm_core.meadow.config']"

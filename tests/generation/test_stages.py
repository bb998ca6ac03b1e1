import pytest

from alpaca_farm_core.artifacts.files import read_jsonl
from alpaca_farm_core.data.rows import read_outputs, read_split
from alpaca_farm_core.errors import DataError
from alpaca_farm_core.generation.config import DecodeConfig, SampleConfig
from alpaca_farm_core.generation.stage import STAGE_DECODE, STAGE_SAMPLE
from alpaca_farm_core.pipeline.run import run_stage
from tests.methods import toy
from tests.methods.conftest import world  # noqa: F401


def sample(store, world, progress=None, execution=toy.EXECUTION, **values):  # noqa: F811
    config = SampleConfig.build({"seed": 0, "split": "sft", "n": 3, "max_new_tokens": 8, **values})
    inputs = {"policy": world.policy, "data": world.data}
    return run_stage(
        STAGE_SAMPLE, config, inputs, store=store, name="sample", execution=execution, progress=progress
    ).artifact


SMALL = toy.EXECUTION.model_copy(
    update={"decode_batch_size": 5}
)  # batches of one prompt, chunks of 12 of the 72 answers


def test_every_instruction_has_n_answers_in_the_order_of_the_split(world, store):  # noqa: F811
    artifact = sample(store, world)
    rows = read_outputs(artifact.path / "outputs.jsonl")
    instructions = read_split(world.data.path, "sft")
    assert [(row.instruction, row.sample_id) for row in rows] == [
        (i.instruction, s) for i in instructions for s in range(3)
    ]
    assert {row.generator for row in rows} == {"sft"}
    assert artifact.metrics["n_outputs"] == 72
    assert artifact.metrics["n_too_long"] == 0
    assert artifact.metrics["finished_share"] == sum(row.finished for row in rows) / 72
    assert max(row.n_tokens for row in rows) <= 8
    assert not any("<|eos|>" in row.output or "<|pad|>" in row.output for row in rows)


def test_other_batches_give_the_same_answers(world, store, tmp_path):  # noqa: F811
    from alpaca_farm_core.artifacts.store import Store

    expected = list(read_jsonl(sample(store, world).path / "outputs.jsonl"))
    assert list(read_jsonl(sample(Store(tmp_path / "b"), world, execution=SMALL).path / "outputs.jsonl")) == expected


def test_killed_after_a_chunk_it_resumes_to_the_same_bits(world, store, tmp_path):  # noqa: F811
    from alpaca_farm_core.artifacts.store import Store

    expected = sample(store, world, execution=SMALL)
    other = Store(tmp_path / "b")
    with pytest.raises(toy.Killed):
        sample(other, world, execution=SMALL, progress=toy.KillAt(4))  # in the second chunk
    assert len(list(other.root.rglob("chunks_of_12/*.jsonl"))) == 1
    resumed = sample(other, world, execution=SMALL)
    assert resumed.manifest.semantic() == expected.manifest.semantic()


def test_prompts_without_room_are_dropped_and_counted(world, store):  # noqa: F811
    positions = 256
    artifact = sample(store, world, n=1, max_new_tokens=positions - 17)
    assert artifact.metrics["n_too_long"] > 0
    assert artifact.metrics["n_outputs"] + artifact.metrics["n_too_long"] == 24
    with pytest.raises(DataError, match="leaves no room"):
        sample(store, world, max_new_tokens=positions)


def test_decode_answers_each_heldout_instruction_once(world, store):  # noqa: F811
    config = DecodeConfig.build(
        {"seed": 0, "max_new_tokens": 8, "generator": "mine", "limit": 4, "precision": "bfloat16"}
    )
    assert config.temperature == 0.7
    inputs = {"policy": world.policy, "data": world.data}
    artifact = run_stage(STAGE_DECODE, config, inputs, store=store, name="decode", execution=toy.EXECUTION).artifact
    rows = read_outputs(artifact.path / "outputs.jsonl")
    assert [row.instruction for row in rows] == [i.instruction for i in read_split(world.data.path, "eval")][:4]
    assert {(row.generator, row.sample_id) for row in rows} == {("mine", 0)}

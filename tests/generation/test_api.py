"""API models as rows beside the methods: asked over real HTTP, once, within a budget; missing answers are counted."""

import json

import pytest

from alpaca_farm_core.config.presets import build_study
from alpaca_farm_core.data.rows import read_outputs, read_split
from alpaca_farm_core.errors import ConfigError, MissingAnnotationsError
from alpaca_farm_core.generation.api import check_api_outputs
from alpaca_farm_core.generation.config import ApiOutputsConfig
from alpaca_farm_core.generation.stage import STAGE_API
from alpaca_farm_core.pipeline.run import run_stage
from alpaca_farm_core.pipeline.runner import Planner
from flows.cli.main import main
from flows.compositions import compare
from tests.annotators.judge_server import JudgeServer, Reply
from tests.flows.test_compare import SETTINGS
from tests.methods import toy
from tests.methods.conftest import world  # noqa: F401


def answers(store, data, server, name="api", **values):
    config = ApiOutputsConfig.build({"model": "gpt-4o", **values})
    execution = toy.EXECUTION.model_copy(update={"base_url": server.base_url, "concurrency": 1})
    return run_stage(STAGE_API, config, {"data": data}, store=store, name=name, execution=execution).artifact


def test_every_instruction_is_asked_once_with_the_papers_prompt(world, store):  # noqa: F811
    with JudgeServer(fault=lambda number: Reply(text=f"answer {number}", finish_reason="length")) as server:
        made = answers(store, world.data, server, system="Be brief.", temperature=0.5, max_tokens=7)
        bodies = list(server.bodies)
        fewer = {"system": "Be brief.", "temperature": 0.5, "max_tokens": 7, "limit": 4}
        again = answers(store, world.data, server, name="again", **fewer)
        assert len(server.bodies) == len(bodies)  # another recipe, the same calls
    rows, asked = read_outputs(made.path / "outputs.jsonl"), read_split(world.data.path, "eval")
    assert [(row.instruction, row.input) for row in rows] == [(one.instruction, one.input) for one in asked]
    assert sorted(row.output for row in rows) == [f"answer {number}" for number in range(6)]
    assert {(row.generator, row.finished) for row in rows} == {("gpt-4o", False)}
    assert again.metrics["n_outputs"] == 4
    for body, one in zip(bodies, asked, strict=True):
        assert (body["model"], body["temperature"], body["max_tokens"]) == ("gpt-4o", 0.5, 7)
        assert body["messages"][0] == {"role": "system", "content": "Be brief."}
        prompt = body["messages"][1]["content"]
        assert f"### Instruction:\n{one.instruction}" in prompt
        assert ("### Input:" in prompt) == bool(one.input)


def test_what_is_refused_is_counted_never_an_empty_answer(world, store):  # noqa: F811
    refused = Reply(refusal="I cannot.")
    with JudgeServer(fault=lambda number: refused if number == 2 else Reply(text="yes")) as server:
        with pytest.raises(MissingAnnotationsError, match="1 of 6 instructions have no answer of gpt-4o") as error:
            answers(store, world.data, server)
        assert error.value.next_action
        made = answers(store, world.data, server, max_missing=0.2)
        assert len(server.bodies) == 6
    assert made.manifest.n_missing == 1
    assert {row.output for row in read_outputs(made.path / "outputs.jsonl")} == {"yes"}
    assert made.metrics["n_outputs"] == 5


def test_a_comparison_asks_each_model_once_for_all_seeds(store):
    planner = Planner(build_study("meadow", SETTINGS), "arm", store)
    compare(planner, ("sft", "best-of-n"), (0, 1), ("gpt-4.1", "my/Model"))
    asked = [planned for planned in planner.steps if planned.step.stage is STAGE_API]
    assert [planned.step.config.model for planned in asked] == ["gpt-4.1", "my/Model"]
    judged = [planned.step.label for planned in planner.steps if planned.step.stage.name == "evaluate"]
    assert judged.count("api-gpt-4-1") == judged.count("api-my-model") == 2
    assert planner.steps[-1].step.config.methods == ("sft", "best-of-n", "api-gpt-4-1", "api-my-model")


def test_the_dry_run_names_calls_and_price(store, capsys):
    words = ["run", "compare", "--methods", "sft,best-of-n", "--seeds", "0", "--api-models", "gpt-4o", "--dry-run"]
    with pytest.raises(SystemExit) as left:
        main([*words, "--json", "--store", str(store.root)])
    assert left.value.code == 0
    row = next(row for row in json.loads(capsys.readouterr().out) if row["stage"].startswith("api outputs"))
    assert row["api_calls"] == "≤ 256"
    # 240 characters are about 60 tokens at 2.5 dollars a million, and 300 tokens come at 10
    assert row["usd"] == pytest.approx(256 * (60 * 2.5 + 300 * 10) / 1e6, rel=0.2)


def test_no_model_no_run():
    with pytest.raises(ConfigError, match="No API model is named"):
        check_api_outputs(ApiOutputsConfig(), toy.EXECUTION)

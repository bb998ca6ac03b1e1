import pytest
from prefect.client.orchestration import get_client
from prefect.client.schemas.filters import ArtifactFilter, ArtifactFilterKey, FlowRunFilter, FlowRunFilterId

from alpaca_farm_core.artifacts.store import Store
from alpaca_farm_core.config.presets import build_study
from alpaca_farm_core.pipeline.runner import LocalRunner, Planner
from flows.compositions import rlhf as compose
from flows.rlhf import compare, rlhf
from tests.tiny import TINY

pytestmark = pytest.mark.usefixtures("prefect_server")

GRAPH = [
    "dataset",
    "sft",
    "sample",
    "preferences",
    "reward model",
    "ppo",
    "decode sft",
    "decode ppo",
    "evaluate ppo",
    "leaderboard",
    "report",
]


def run(overrides=TINY, **more):
    return rlhf(preset="meadow", overrides=overrides, return_state=True, **more)


def task_runs(state):
    with get_client(sync_client=True) as client:
        runs = client.read_task_runs(
            flow_run_filter=FlowRunFilter(id=FlowRunFilterId(any_=[state.state_details.flow_run_id]))
        )
    return sorted(runs, key=lambda task: task.start_time)


def test_the_whole_flow_then_cached_then_one_changed_setting():
    first = run()
    assert first.is_completed(), first.message
    tasks = task_runs(first)
    assert [task.name for task in tasks] == GRAPH
    assert {task.state.name for task in tasks} == {"Completed"}
    by_name = {task.name: task for task in tasks}
    upstream = {parent.id for parents in by_name["ppo"].task_inputs.values() for parent in parents}
    assert upstream == {by_name[name].id for name in ("dataset", "sft", "reward model")}
    with get_client(sync_client=True) as client:
        keys = {
            a.key for a in client.read_artifacts(artifact_filter=ArtifactFilter(key=ArtifactFilterKey(like_="meadow-")))
        }
    assert {f"{kind}-meadow-ppo-summary" for kind in ("policy", "outputs", "evaluation")} <= keys
    assert {"policy-meadow-ppo-reward", "policy-meadow-ppo-kl", "leaderboard-meadow-leaderboard-table"} <= keys

    second = run()
    assert {task.state.name for task in task_runs(second)} == {"Cached"}
    assert second.result() == first.result()

    third = run({**TINY, "ppo.kl_coef": 0.5})
    states = {task.name: task.state.name for task in task_runs(third)}
    ran = {name for name, state in states.items() if state == "Completed"}
    assert ran == {"ppo", "decode ppo", "evaluate ppo", "leaderboard", "report"}

    store = Store()
    plan = Planner(build_study("meadow", {**TINY, "ppo.kl_coef": 0.7}), "meadow", store)
    compose(plan)
    missed = {step.step.stage.name: step.reason for step in plan.steps if step.hit is None}
    assert [(d.name, d.new) for d in missed["ppo"].differences] == [("ppo.kl_coef", 0.7)]
    assert [(d.name, d.new) for d in missed["leaderboard"].differences] == [("ppo.kl_coef", 0.7)]

    local = compose(LocalRunner(build_study("meadow", TINY), "elsewhere", store))
    assert local["ppo"].reference == first.result()["ppo"].reference


def test_a_mistake_fails_the_run_with_a_headline_and_the_resuming_command():
    state = run({"ppo.kl_coeff": 1})
    assert state.is_failed()
    assert "Unknown setting 'ppo.kl_coeff'" in state.message
    assert "Did you mean 'kl_coef'?" in state.message
    assert "alpaca-farm run rlhf --preset meadow --method ppo --set ppo.kl_coeff=1" in state.message


def test_a_failing_stage_fails_its_task_and_keeps_what_was_done():
    state = run({**TINY, "reward_model.eval_size": 10_000})
    assert state.is_failed()
    tasks = {task.name: task.state for task in task_runs(state)}
    assert tasks["preferences"].is_completed()
    assert tasks["reward model"].is_failed()
    assert "→" in tasks["reward model"].message
    assert "ppo" not in tasks


def test_a_comparison_as_a_flow():
    state = compare(methods=["sft", "best-of-n"], seeds=[0], preset="meadow", overrides=TINY, return_state=True)
    assert state.is_completed(), state.message
    assert set(state.result()) == {"comparison"}
    tasks = {task.name: task.state.name for task in task_runs(state)}
    assert tasks["best-of-n, seed 0"] == tasks["comparison"] == "Completed"
    again = compare(methods=["sft", "best-of-n"], seeds=[0], preset="meadow", overrides=TINY, return_state=True)
    assert {task.state.name for task in task_runs(again)} == {"Cached"}

"""Rewards by function, endpoint and judge: the right numbers, asked for once, and clear errors."""

import json
import sys
import threading
from dataclasses import dataclass
from http.server import BaseHTTPRequestHandler, ThreadingHTTPServer

import pytest

from alpaca_farm_core import plugins
from alpaca_farm_core.annotators.retry import RetryPolicy
from alpaca_farm_core.artifacts.files import read_jsonl
from alpaca_farm_core.artifacts.store import Store
from alpaca_farm_core.errors import AnnotationError, ConfigError, ModelError
from alpaca_farm_core.methods.rloo.stage import STAGE
from alpaca_farm_core.pipeline.run import make_recipe
from alpaca_farm_core.training.rewards import endpoint
from tests.annotators.judge_server import JudgeServer, longer, shorter
from tests.methods import toy
from tests.methods.conftest import world  # noqa: F401  (a fixture)


def package(folder, source, names):
    """An installed package that offers reward functions."""
    folder.mkdir(exist_ok=True)
    (folder / "my_rewards.py").write_text(source)
    info = folder / "my_rewards-1.0.dist-info"
    info.mkdir(exist_ok=True)
    (info / "METADATA").write_text("Metadata-Version: 2.1\nName: my-rewards\nVersion: 1.0\n")
    lines = [f"{name} = my_rewards:{name}" for name in names]
    (info / "entry_points.txt").write_text("\n".join(["[alpaca_farm.rewards]", *lines, ""]))


SOURCE = """
calls = []
def brevity(rows):
    calls.append(len(rows))
    return [-len(row.output) / 10 - 1 for row in rows]
def broken(rows):
    raise ZeroDivisionError("by zero")
def short(rows):
    return [1.0]
def endless(rows):
    return [float("inf")] * len(rows)
number = 3
"""


@pytest.fixture
def functions(tmp_path, monkeypatch):
    package(tmp_path / "site", SOURCE, ["brevity", "broken", "short", "endless", "number"])
    monkeypatch.syspath_prepend(str(tmp_path / "site"))
    monkeypatch.delitem(sys.modules, "my_rewards", raising=False)
    plugins.plugins.cache_clear()
    yield tmp_path / "site"
    plugins.plugins.cache_clear()


def rloo(store, world, progress=None, execution=toy.EXECUTION, **reward):  # noqa: F811
    return toy.on_policy(
        "rloo", store, world, progress, execution, reward_model=False, reward=reward, steps=2, unfinished_penalty=None
    )


def test_a_function_by_entry_point(world, store, functions):  # noqa: F811
    artifact = rloo(store, world, kind="function", name="brevity")
    for row in read_jsonl(artifact.path / "rollouts.jsonl"):
        assert row["reward"] == pytest.approx(-len(row["output"]) / 10 - 1, abs=1e-5)


def test_another_body_of_the_function_is_another_recipe(functions, monkeypatch):
    config = STAGE.config_class.build({**toy.GROUP_VALUES, "reward": {"kind": "function", "name": "brevity"}})
    inputs = {"policy": "a", "data": "b"}
    before = make_recipe(STAGE, config, inputs).fingerprint
    assert make_recipe(STAGE, config, inputs).fingerprint == before
    package(functions, SOURCE + "# changed\n", ["brevity"])
    assert make_recipe(STAGE, config, inputs).fingerprint != before


@pytest.mark.parametrize(
    ("name", "error", "message"),
    [
        ("broken", AnnotationError, "failed: ZeroDivisionError: by zero"),
        ("short", AnnotationError, r"1 rewards for \d+ answers"),
        ("endless", AnnotationError, "the reward inf"),
        ("number", ConfigError, "is no function"),
        ("brevitiy", ConfigError, "Did you mean 'brevity'"),
    ],
)
def test_functions_that_cannot_be_used(world, store, functions, name, error, message):  # noqa: F811
    with pytest.raises(error) as caught:
        rloo(store, world, kind="function", name=name)
    assert caught.match(message) or message in str(caught.value)


class RewardServer:
    """Posts come in, −length ÷ 10 goes out; after `lasts` answers the server says 503."""

    def __init__(self, lasts=10**9, reply=None):
        self.rows, self.lasts, self.keys, outer = [], lasts, set(), self

        class Handler(BaseHTTPRequestHandler):
            def do_POST(self):
                row = json.loads(self.rfile.read(int(self.headers["Content-Length"])))
                outer.keys.add(self.headers["Authorization"])
                down = len(outer.rows) >= outer.lasts
                if not down:
                    outer.rows.append(row)
                body = json.dumps(reply or {"reward": -len(row["output"]) / 10}).encode()
                self.send_response(503 if down else 200)
                self.send_header("Content-Type", "application/json")
                self.send_header("Content-Length", str(len(body)))
                self.end_headers()
                self.wfile.write(body)

            def log_message(self, *_):
                pass

        self.server = ThreadingHTTPServer(("127.0.0.1", 0), Handler)
        self.url = f"http://127.0.0.1:{self.server.server_address[1]}/reward"
        self.thread = threading.Thread(target=self.server.serve_forever, args=(0.01,))

    def __enter__(self):
        self.thread.start()
        return self

    def __exit__(self, *_):
        self.server.shutdown()
        self.server.server_close()
        self.thread.join()


@dataclass(frozen=True)
class Hasty(RetryPolicy):
    tries: int = 2
    first_delay_s: float = 0.001
    stop_after: int = 2


@pytest.fixture
def hasty(monkeypatch):
    monkeypatch.setattr(endpoint, "RetryPolicy", Hasty)


def at(server):
    return toy.EXECUTION.model_copy(update={"reward_url": server.url, "concurrency": 2})


def test_an_endpoint_that_goes_down_mid_run_loses_nothing(world, store, tmp_path, monkeypatch, hasty):  # noqa: F811
    monkeypatch.setenv("OPENAI_API_KEY", "sk-not-for-you")
    monkeypatch.setenv("REWARD_API_KEY", "mine")
    with RewardServer() as server:
        expected = rloo(Store(tmp_path / "other"), world, kind="http", name="length", execution=at(server))
        distinct = {json.dumps(row, sort_keys=True) for row in server.rows}
    assert len(distinct) == len(server.rows)
    assert server.keys == {"Bearer mine"}
    with RewardServer(lasts=len(distinct) // 2) as server, pytest.raises(AnnotationError, match=r"5xx|503"):
        rloo(store, world, kind="http", name="length", execution=at(server))
    asked = {json.dumps(row, sort_keys=True) for row in server.rows}
    with RewardServer() as server:
        again = rloo(store, world, kind="http", name="length", execution=at(server))
        later = {json.dumps(row, sort_keys=True) for row in server.rows}
    assert again.manifest.semantic() == expected.manifest.semantic()
    assert asked | later == distinct
    assert not asked & later


def test_an_endpoint_that_answers_nonsense(world, store, hasty):  # noqa: F811
    with RewardServer(reply={"reward": "good"}) as server, pytest.raises(AnnotationError, match="no finite number"):
        rloo(store, world, kind="http", name="length", execution=at(server))


def test_no_address_and_no_reward_model(world, store):  # noqa: F811
    with pytest.raises(ConfigError, match=r"reward_url"):
        rloo(store, world, kind="http", name="length")
    with pytest.raises(ModelError, match="no reward model was given"):
        rloo(store, world, kind="model")


def test_a_judge_rewards_by_preference_over_the_reference_answers(world, store, tmp_path):  # noqa: F811
    """Two judges of opposite taste: who wins before the one loses before the other."""
    rewards = {}
    for taste in (shorter, longer):
        with JudgeServer(taste=taste) as judge:
            execution = toy.EXECUTION.model_copy(update={"base_url": judge.base_url, "concurrency": 2})
            artifact = toy.on_policy(
                "rloo",
                Store(tmp_path / taste.__name__),
                world,
                execution=execution,
                reward_model=False,
                reward={"kind": "annotator", "annotator": {"name": "greedy"}},
                steps=1,
                log_rollouts=12,
            )
        assert artifact.manifest.volatile["timings"]["n_calls"] == judge.n_answered > 0
        rewards[taste] = [row["reward"] for row in read_jsonl(artifact.path / "rollouts.jsonl")]
        (row,) = read_jsonl(artifact.path / "metrics.jsonl")
        assert row["undecided_share"] == 0
    assert set(rewards[shorter] + rewards[longer]) <= {0.0, 0.5, 1.0}
    opposite = [a + b == 1 for a, b in zip(rewards[shorter], rewards[longer], strict=True)]
    assert sum(opposite) >= 8  # of 12; answers as long as their opponent are left to their place
    assert 0 < sum(rewards[shorter]) < 12

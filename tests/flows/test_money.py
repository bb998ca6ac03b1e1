"""A whole flow through Prefect with a paid judge: it stops at the budget, goes on, and leaks no key."""

import json
import os
import subprocess
import sys

import pytest

from alpaca_farm_core.annotators.cache import CallCache
from alpaca_farm_core.artifacts.store import Store
from tests.annotators.judge_server import JudgeServer, status
from tests.tiny import TINY

CANARY = "sk-canary-93c1f0aa77d2"


def run(folder, base_url, budget):
    settings = {
        **TINY,
        "execution.threads": 1,
        "execution.base_url": base_url,
        "execution.budget_usd": budget,
        "preferences.annotator.max_missing": 0.5,
    }
    (folder / "tiny.yaml").write_text(json.dumps(settings))
    words = ["run", "simulate-preferences", "--config", "tiny.yaml", "--annotator", "greedy", "--run-name", "paid"]
    places = {"PREFECT_HOME": str(folder / "prefect"), "PYTHONPATH": os.getcwd(), "OPENAI_API_KEY": CANARY}
    places["PREFECT_SERVER_EPHEMERAL_STARTUP_TIMEOUT_SECONDS"] = "120"
    return subprocess.run(
        [sys.executable, "-m", "flows.cli.main", *words, "--store", str(folder / "store")],
        cwd=folder, env={**os.environ, **places}, capture_output=True, text=True, check=False,
    )  # fmt: skip


@pytest.mark.slow
def test_a_flow_stops_at_its_budget_goes_on_with_a_higher_one_and_keeps_the_key_to_itself(tmp_path):
    def fault(number):
        if number == 1:
            return status(500, message=f"internal error for {CANARY}")
        return status(400, "content_filter", f"not for {CANARY}") if number == 2 else None

    with JudgeServer(fault=fault) as judge:
        stopped = run(tmp_path, judge.base_url, 0.004)
        assert stopped.returncode == 3, stopped.stderr
        assert "The budget of $0.004 is reached" in stopped.stderr
        assert "Traceback" not in stopped.stdout + stopped.stderr
        store = Store(tmp_path / "store")
        spent = CallCache(store.calls).ledger.balance("paid")
        assert 0 < spent.spent <= 0.004 * 10**12
        assert spent.spent == judge.n_answered * 232_000_000
        n_before = len(judge.bodies)
        done = run(tmp_path, judge.base_url, 1)
        assert done.returncode == 0, done.stderr
        asked = [json.dumps(body, sort_keys=True) for body in judge.bodies]
        assert len(asked) > n_before
        assert len(asked) == len(set(asked)) + 1  # the one that met a server error
    manifest = next(a for a in store.artifacts() if a.manifest.kind == "preferences").manifest
    total = CallCache(store.calls).ledger.balance("paid").spent / 10**12
    assert manifest.volatile["cost_usd"] == pytest.approx(total - spent.spent / 10**12)
    assert manifest.volatile["timings"]["saved_usd"] == pytest.approx(spent.spent / 10**12)
    leaks = [path for path in tmp_path.rglob("*") if path.is_file() and CANARY.encode() in path.read_bytes()]
    assert leaks == []
    assert (tmp_path / "prefect").is_dir()
    assert any(path.suffix == ".db" for path in (tmp_path / "prefect").rglob("*"))
    assert CANARY not in stopped.stdout + stopped.stderr + done.stdout + done.stderr
    assert judge.headers[0]["authorization"] == f"Bearer {CANARY}"

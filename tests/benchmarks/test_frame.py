"""The benchmarks' own arithmetic: turns, ratios, memory, and the lengths of PPO's answers."""

from __future__ import annotations

import json
import statistics
import sys

import pytest

from tests.benchmarks.frame import Arm, median, ratio, take_turns, write
from tests.benchmarks.picture import collect, draw, markdown
from tests.benchmarks.training import forced_lengths

SCRIPT = """
import json, sys, time
job = json.load(open(sys.argv[1]))
with open(job["log"], "a") as log:
    log.write(job["name"])
block = bytearray(job["mb"] * 2**20)
time.sleep(0.2)
print("noise")
print(json.dumps({"speed": job["speed"], "imports_mb": 0.0, "state_mb": 1.0}))
"""


def test_arms_take_turns_and_their_memory_is_that_of_their_process(tmp_path):
    (tmp_path / "arm.py").write_text(SCRIPT)
    log = tmp_path / "log"
    command = [sys.executable, str(tmp_path / "arm.py")]
    arms = [
        Arm("a", command, {"name": "a", "speed": 6, "mb": 1, "log": str(log)}),
        Arm("b", command, {"name": "b", "speed": 3, "mb": 120, "log": str(log)}),
    ]
    results = take_turns(arms, 3)
    assert log.read_text() == "abbaab"
    assert [len(runs) for runs in results.values()] == [3, 3]
    assert 100 < median(results["b"], "peak_mb") - median(results["a"], "peak_mb") < 140
    assert results["a"][0]["beyond_mb"] == results["a"][0]["peak_mb"] - 1
    assert ratio(results, "a", "b", "speed") == {"median": 2, "lowest": 2, "highest": 2}


def test_an_arm_that_fails_says_what_it_said(tmp_path):
    with pytest.raises(SystemExit, match="out of luck"):
        take_turns([Arm("a", [sys.executable, "-c", "raise SystemExit('out of luck')"])], 1)


def test_ratios_pair_the_runs_of_a_repeat():
    results = {"a": [{"x": 4}, {"x": 9}, {"x": 5}], "b": [{"x": 2}, {"x": 3}, {"x": 5}]}
    assert ratio(results, "a", "b", "x") == {"median": 2, "lowest": 1, "highest": 3}


@pytest.mark.parametrize("count", [32, 10_000])
def test_forced_lengths_are_cut_at_the_limit_and_have_a_third_of_it_as_mean(count):
    lengths = forced_lengths(96, count)
    assert sum(lengths) / count == pytest.approx(32, rel=0.02)
    assert (min(lengths), max(lengths)) == (1, 96)


def test_a_forced_length_is_geometric_at_every_place():
    firsts = [forced_lengths(192, 3, seed)[0] for seed in range(4000)]
    assert statistics.mean(firsts) == pytest.approx(64, rel=0.05)
    assert statistics.median(firsts) == pytest.approx(47, rel=0.05)  # ln 2 of the mean of uncut ones, 68


def test_forced_lengths_are_those_of_their_seed():
    assert forced_lengths(96, 64) == forced_lengths(96, 64)
    assert forced_lengths(96, 64) != forced_lengths(96, 64, seed=1)


def test_tables_made_anew_replace_their_own_only(tmp_path):
    spread = {"median": 2.0, "lowest": 1.5, "highest": 2.5}
    table = {"times_as_fast_as_trl": spread, "memory_beyond_of_trl": spread, "share_of_bare": spread}
    file = tmp_path / "t.json"
    write(file, {"date": "1"}, {"sft": {**table, "trl_share_of_bare": spread}, "dpo": {"times_as_fast": spread}})
    write(file, {"date": "2"}, {"dpo": {"times_as_fast": {**spread, "median": 3.0}}})
    tables = json.loads(file.read_text())["tables"]
    assert [table["machine"]["date"] for table in tables.values()] == ["1", "2"]
    assert collect([file]) == {"sft": {"trl": 2.0}, "dpo": {"": 3.0}}
    assert "times as fast as the peer" in draw(collect([file]))
    assert markdown(tables).splitlines()[2:] == ["| sft | 2.0 (1.5–2.5) | – | 2.00 | 200 %, 200 % |"]

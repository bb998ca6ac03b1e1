"""The benchmarks' own arithmetic: turns, ratios, memory, and how often worlds end their answers."""

from __future__ import annotations

import json
import sys

import pytest

from tests.benchmarks.frame import Arm, median, ratio, take_turns, write
from tests.benchmarks.picture import collect, draw, markdown
from tests.benchmarks.worlds import _untruncated

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


@pytest.mark.parametrize("limit", [48, 96, 192])
def test_lengths_cut_at_the_limit_have_a_third_of_it_as_mean(limit):
    end = _untruncated(3 / limit, limit)
    going, mean = 1.0, 0.0
    for length in range(1, limit):
        mean += length * going * end
        going *= 1 - end
    assert mean + limit * going == pytest.approx(limit / 3, rel=1e-6)


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

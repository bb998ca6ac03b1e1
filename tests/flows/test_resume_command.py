"""The command that a failed flow prints: read by the command line, it gives the same settings."""

import shlex
from itertools import pairwise

from alpaca_farm_core.config.overrides import parse_assignments
from flows.launch import resume_command


def test_overrides_come_back_as_they_were():
    overrides = {"ppo.unfinished_penalty": None, "dataset.source": "my rows.json", "ppo.paper_compat": True, "seed": 3}
    words = shlex.split(resume_command("compare", "meadow", None, "two words", overrides, {"methods": ["ppo", "dpo"]}))
    assert words[:5] == ["alpaca-farm", "run", "compare", "--preset", "meadow"]
    assert words[5:9] == ["--run-name", "two words", "--methods", "ppo,dpo"]
    assert parse_assignments([value for word, value in pairwise(words) if word == "--set"]) == overrides

"""Form limits: which settings a form may change, and what the operator can allow."""

import pytest

from alpaca_farm_core.config.presets import build_study
from alpaca_farm_core.errors import ConfigError
from flows.trust import FormLimits


def check(limits, overrides, annotator=None):
    limits.check(build_study("meadow", overrides, annotator), build_study("meadow"))


@pytest.mark.parametrize(
    "overrides",
    [
        {"dataset.source": "/etc/secrets.json"},
        {"dataset.source": "rows.jsonl"},
        {"sft.model.source": "../models/llama"},
        {"sft.model.source": "~/models"},
        {"sft.model.template": "/etc/passwd.json"},
        {"preferences.annotator.name": "./judges/mine"},
        {"evaluate.annotator.name": "/root/judge"},
        {"execution.base_url": "http://evil.example/v1"},
        {"execution.reward_url": "http://evil.example/reward"},
        {"rloo.reward.name": "anything", "rloo.reward.kind": "function"},
        {"sft.model.source": "owner/name", "sft.model.trust_remote_code": True},
    ],
    ids=lambda overrides: next(iter(overrides.values())),
)
def test_files_addresses_and_code_are_refused(overrides):
    key = list(overrides)[-1]
    with pytest.raises(ConfigError, match=key) as error:
        check(FormLimits(), overrides)
    assert "ALPACA_FARM_FORM_" in error.value.next_action


def test_a_folder_that_happens_to_exist_is_a_path(tmp_path, monkeypatch):
    (tmp_path / "owner" / "model").mkdir(parents=True)
    check(FormLimits(), {"sft.model.source": "owner/model"})
    monkeypatch.chdir(tmp_path)
    with pytest.raises(ConfigError, match="outside the folders"):
        check(FormLimits(), {"sft.model.source": "owner/model"})


def test_what_the_operator_allows(tmp_path):
    limits = FormLimits.from_environment(
        {
            "ALPACA_FARM_FORM_ROOTS": f"{tmp_path}/data:{tmp_path}/more",
            "ALPACA_FARM_FORM_URLS": "http://127.0.0.1:8000/ https://judge.example/v1",
            "ALPACA_FARM_FORM_TRUST_REMOTE_CODE": "1",
        }
    )
    check(limits, {"dataset.source": f"{tmp_path}/data/rows.json", "sft.model.trust_remote_code": True})
    check(limits, {"execution.base_url": "http://127.0.0.1:8000/v1"})
    for outside in (f"{tmp_path}/data/../secrets.json", f"{tmp_path}/database/rows.json"):
        with pytest.raises(ConfigError, match="outside the folders"):
            check(limits, {"dataset.source": outside})
    with pytest.raises(ConfigError, match="form may send nothing"):
        check(limits, {"execution.base_url": "http://127.0.0.1:80001/v1"})


def test_a_link_out_of_an_allowed_folder_is_outside(tmp_path):
    (tmp_path / "data").mkdir()
    (tmp_path / "secret.json").write_text("[]")
    (tmp_path / "data" / "link.json").symlink_to(tmp_path / "secret.json")
    with pytest.raises(ConfigError, match="outside the folders"):
        check(FormLimits(roots=(tmp_path / "data",)), {"dataset.source": str(tmp_path / "data" / "link.json")})


def test_ordinary_settings_pass():
    check(FormLimits(), {"ppo.kl_coef": 0.02, "seed": 3, "sft.model.source": "Qwen/Qwen3-0.6B"}, annotator="greedy")

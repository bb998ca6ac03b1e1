"""Models and a judge over several nights: what is evaluated, noted, compared, and what raises an alarm."""

import json
import shutil
from datetime import UTC, datetime, timedelta
from types import SimpleNamespace

import pytest

from alpaca_farm_core.artifacts.store import Store
from alpaca_farm_core.config.presets import build_study
from alpaca_farm_core.errors import ArtifactNotFoundError, DataError
from alpaca_farm_core.evaluation.reevaluation.alarms import model_alarm
from alpaca_farm_core.evaluation.reevaluation.config import HistoryConfig
from alpaca_farm_core.evaluation.reevaluation.history import before_of, read_history
from alpaca_farm_core.evaluation.reevaluation.picture import history_pictures
from alpaca_farm_core.pipeline.runner import LocalRunner, Planner
from flows.compositions import composition_named
from flows.reevaluation import reevaluate
from tests.annotators.judge_server import JudgeServer, longer, shorter
from tests.tiny import TINY
from tests.worsened import worsen


@pytest.fixture(scope="session")
def two_policies(tmp_path_factory):
    """Root of a store with an SFT model and a PPO policy, never evaluated; not to be written to."""
    root = tmp_path_factory.mktemp("reevaluation") / "store"
    composition_named("ppo")(LocalRunner(build_study("meadow", TINY), "tiny", Store(root)))
    return root


class Nights:
    """Checks of one store, each so many days after the first."""

    def __init__(self, root, judge=None):
        self.store, self.judge = Store(root), judge
        self.began = datetime.now(UTC)

    def study(self, **settings):
        where = {} if self.judge is None else {"execution.base_url": self.judge.base_url}
        dotted = {key.replace("__", "."): value for key, value in settings.items()}
        return build_study("meadow", {**TINY, **where, **dotted}, None if self.judge is None else "greedy")

    def check(self, day, **settings):
        """Run a check; return its history artifact."""
        runner = LocalRunner(self.study(**settings), "night", self.store)
        return reevaluate(runner, self.began + timedelta(days=day))["history"]

    def plan(self, day, **settings):
        planner = Planner(self.study(**settings), "night", self.store)
        reevaluate(planner, self.began + timedelta(days=day))
        return {step.step.title: step.hit is not None for step in planner.steps}


@pytest.fixture
def nights(two_policies, tmp_path):
    shutil.copytree(two_policies, tmp_path / "copy")
    return Nights(tmp_path / "copy")


@pytest.fixture
def judged_nights(nights, monkeypatch):
    monkeypatch.setenv("OPENAI_API_KEY", "none")
    with JudgeServer(taste=longer) as judge:
        nights.judge = judge
        yield nights


def last(history):
    return read_history(history)[-1]


def texts(history):
    return [alarm["text"] for alarm in last(history)["alarms"]]


def test_what_is_new_is_evaluated_and_the_same_again_is_all_found(nights):
    planned = nights.plan(0)
    assert planned == dict.fromkeys(
        ("decode tiny-ppo", "decode tiny-sft", "evaluate tiny-ppo", "anchors", "history"), False
    )
    first = nights.check(0)
    entry = last(first)
    assert set(entry["models"]) == {"tiny-ppo"}
    assert entry["models"]["tiny-ppo"]["policy"] == "policy/tiny-ppo@v1"
    assert entry["notes"] == ["policy/tiny-sft@v1 was not evaluated: it is the reference itself"]
    assert set(nights.plan(0.5).values()) == {True}
    assert nights.check(0.5).reference == first.reference

    assert [name for name, hit in nights.plan(1).items() if not hit] == ["anchors", "history"]
    second = nights.check(1)
    assert [entry["at"][:10] for entry in read_history(second)] == [
        f"{nights.began + timedelta(days=day):%Y-%m-%d}" for day in (0, 1)
    ]
    assert last(second)["models"] == entry["models"]
    assert (last(second)["alarms"], last(second)["anchors"]["n_rounds"]) == ([], 2)
    assert {path.name for path in second.path.glob("*.svg")} == {"win_rate.svg", "judge.svg"}
    # Nothing that depends on the time of day is in the anchors' payload: only what was said.
    assert "answered_at" not in (nights.store.get("anchors/night-anchors").path / "anchors.json").read_text()


def test_a_worsened_model_raises_an_alarm_once(judged_nights):
    nights = judged_nights
    before = last(nights.check(0))["models"]["tiny-ppo"]
    worsen(nights.store, nights.store.get("policy/tiny-ppo"))
    entry = last(nights.check(0.1))  # soon after, but not the same
    (alarm,) = entry["alarms"]
    after = entry["models"]["tiny-ppo"]
    assert after["win_rate"] < 10 < 25 < before["win_rate"]
    assert (alarm["kind"], alarm["name"]) == ("model", "tiny-ppo")
    assert alarm["difference"] == pytest.approx(after["win_rate"] - before["win_rate"])
    assert -alarm["difference"] > 3 * alarm["standard_error"]
    assert "(policy/tiny-ppo@v1 → policy/tiny-ppo@v2)" in alarm["text"].replace("; ", "(")
    assert texts(nights.check(1)) == []
    # Against the best so far it is still down.
    assert "tiny-ppo fell from" in texts(nights.check(2, reevaluate__compare_with="best"))[0]


def test_a_tolerated_fall_is_none(judged_nights):
    judged_nights.check(0)
    worsen(judged_nights.store, judged_nights.store.get("policy/tiny-ppo"))
    assert texts(judged_nights.check(1, reevaluate__drop_standard_errors=1000)) == []


def test_a_judge_of_another_taste_is_flagged_until_it_is_accepted(judged_nights):
    nights = judged_nights
    first = last(nights.check(0))
    n_pairs = first["anchors"]["n_anchors"]
    asked = len(nights.judge.bodies)
    assert asked <= 16  # the anchors are pairs of the evaluation, whose answers are there
    nights.judge.taste = shorter
    drifted = last(nights.check(1))
    assert len(nights.judge.bodies) == asked + n_pairs  # asked anew, and only about the anchors
    assert drifted["models"] == first["models"]
    assert {alarm["kind"] for alarm in drifted["alarms"]} == {"judge"}
    assert any("anchors changed sides, surely more than 10%" in text for text in (a["text"] for a in drifted["alarms"]))
    assert texts(nights.check(1.1)) != []  # not asked again so soon; the same line
    assert len(nights.judge.bodies) == asked + n_pairs
    assert texts(nights.check(2)) != []
    assert texts(nights.check(3, reevaluate__restart_anchors=True)) == []
    assert texts(nights.check(4)) == []


def test_other_settings_of_the_judge_are_named_and_not_compared(nights):
    nights.check(0)
    changed = {"evaluate__annotator__oracle_temperature": 0.5}
    entry = last(nights.check(1, **changed))
    assert [alarm["text"] for alarm in entry["alarms"]] == [
        "the judge: its settings changed (oracle_temperature): win rates from before are not comparable"
    ]
    assert "tiny-ppo has another judge or reference than before: not compared" in entry["notes"]
    assert texts(nights.check(2, **changed)) == []


def test_which_policies(nights):
    store = nights.store
    silent = worsen(store, store.get("policy/tiny-ppo"))
    store.tag(store.get("policy/tiny-ppo@v1"), "candidate")

    def chosen(day=0, **settings):
        return last(nights.check(day, **settings))["models"]

    assert chosen(reevaluate__alias="candidate")["tiny-ppo"]["policy"] == "policy/tiny-ppo@v1"
    assert chosen()["tiny-ppo"]["policy"] == silent.reference
    assert chosen(reevaluate__policies=["tiny-ppo@v1"])["tiny-ppo"]["policy"] == "policy/tiny-ppo@v1"
    both = chosen(reevaluate__reference="policy/tiny-ppo@v1", reevaluate__data="dataset/tiny-dataset")
    assert both.keys() == {"tiny-sft", "tiny-ppo"}
    against_outputs = chosen(
        reevaluate__reference="outputs/night-tiny-sft", reevaluate__policies=["tiny-sft"], reevaluate__anchors=0
    )
    assert against_outputs["tiny-sft"]["win_rate"] == 50.0
    with pytest.raises(ArtifactNotFoundError, match="No policy is due"):
        chosen(day=8)
    assert chosen(day=8, reevaluate__last_days=0).keys() == {"tiny-ppo"}
    with pytest.raises(ArtifactNotFoundError, match="No policy is due"):
        chosen(reevaluate__alias="nobody")
    with pytest.raises(DataError, match="is no policy"):
        chosen(reevaluate__policies=["dataset/tiny-dataset"])
    with pytest.raises(DataError, match="is of kind dataset"):
        chosen(reevaluate__reference="dataset/tiny-dataset")


def test_a_lost_earlier_evaluation_is_compared_by_its_figures(nights):
    # 0.60 ± 0.03 and 0.48 ± 0.04: the difference is 12 points with an error of 5, that is 2.4 standard errors.
    before = {"win_rate": 60.0, "standard_error": 3.0, "policy": "policy/a@v1"}
    now = {"win_rate": 48.0, "standard_error": 4.0, "policy": "policy/a@v2"}
    unused = SimpleNamespace()
    alarm = model_alarm("a", before, now, None, unused, HistoryConfig(drop_standard_errors=2.3))
    assert (alarm["difference"], alarm["standard_error"]) == (-12.0, 5.0)
    assert alarm["text"] == "a fell from 60.0 to 48.0 % (-12.0 points, 2.4 standard errors; policy/a@v1 → policy/a@v2)"
    assert model_alarm("a", before, now, None, unused, HistoryConfig(drop_standard_errors=2.5)) is None
    assert model_alarm("a", now, before, None, unused, HistoryConfig(drop_standard_errors=0.1)) is None
    gone = {**now, "win_rate": None, "standard_error": None}
    assert "has no win rate" in model_alarm("a", before, gone, None, unused, HistoryConfig())["text"]
    one_row = {**now, "standard_error": None}
    assert model_alarm("a", before, one_row, None, unused, HistoryConfig()) is None


def test_paired_instructions_see_a_smaller_fall(tmp_path):
    def evaluation(name, wins):
        folder = tmp_path / name
        folder.mkdir()
        rows = [{"instruction": f"{i}", "input": "", "preference": 2.0 if i < wins else 1.0} for i in range(100)]
        (folder / "annotations.json").write_text(json.dumps(rows))
        return SimpleNamespace(path=folder)

    # 60 → 52 of the same 100: eight rows lost. Paired: mean −0.08, sd √(0.08 · 0.92 · 100/99) → error 2.7266 points.
    before = {"win_rate": 60.0, "standard_error": 4.92, "policy": "v1"}
    now = {"win_rate": 52.0, "standard_error": 5.02, "policy": "v2"}
    config = HistoryConfig(drop_standard_errors=2.5)
    alarm = model_alarm("a", before, now, evaluation("before", 60), evaluation("now", 52), config)
    assert (alarm["difference"], alarm["standard_error"]) == (pytest.approx(-8), pytest.approx(2.72660, abs=1e-4))
    assert model_alarm("a", before, now, None, SimpleNamespace(), config) is None


def test_only_what_is_comparable_is_compared():
    def entry(rate, judge="j", against="r"):
        return {"models": {"a": {"win_rate": rate, "judge": judge, "against": against}}}

    entries = [entry(60.0), entry(70.0, judge="k"), entry(50.0), {"models": {}}]
    now = {"judge": "j", "against": "r"}
    assert before_of(entries, "a", now, "previous")[0]["win_rate"] == 50.0
    assert before_of(entries, "a", now, "best")[0]["win_rate"] == 60.0
    assert before_of(entries, "b", now, "best") == (None, "")
    assert before_of(entries, "a", {**now, "against": "s"}, "best") == (
        None,
        "a has another judge or reference than before: not compared",
    )


def test_the_picture_keeps_apart_what_is_not_comparable():
    def entry(day, rate, judge, alarms=()):
        model = {"win_rate": rate, "interval": [rate - 5, rate + 5], "judge": judge, "against": "r"}
        at = (datetime(2026, 3, 1, tzinfo=UTC) + timedelta(days=day)).isoformat()
        return {"at": at, "models": {"<a>": model}, "anchors": None, "alarms": list(alarms)}

    picture = history_pictures([entry(0, 40, "j"), entry(1, 60, "k"), entry(2, 55, "k", ["!"])])["win_rate"]
    assert "&lt;a&gt;, otherwise judged" in picture
    assert "<a>" not in picture
    assert "last alarm" in picture
    assert "days since 2026-03-01 00:00 UTC" in picture
    assert picture.count("opacity:.14") == 1
    short = history_pictures([entry(0, 40, "j"), entry(0.1, 50, "j")])["win_rate"]
    assert "hours since" in short  # 2.4 of them
    assert "minutes since" in history_pictures([entry(0, 40, "j"), entry(0.01, 50, "j")])["win_rate"]
    assert "last alarm" not in history_pictures([entry(0, 40, "j")])["win_rate"]

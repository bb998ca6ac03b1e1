import json
import re
from html.parser import HTMLParser
from xml.etree import ElementTree

import pytest

from alpaca_farm_core.artifacts.files import read_json, write_json
from alpaca_farm_core.artifacts.manifest import MANIFEST, Artifact
from alpaca_farm_core.errors import DataError
from alpaca_farm_core.evaluation import judge
from alpaca_farm_core.evaluation.config import EvaluationConfig
from alpaca_farm_core.evaluation.report import format as words
from alpaca_farm_core.evaluation.report.config import ReportConfig
from alpaca_farm_core.evaluation.report.lineage import build_lineage, generations
from alpaca_farm_core.evaluation.report.stage import STAGE_REPORT
from alpaca_farm_core.evaluation.stage import STAGE_EVALUATE
from alpaca_farm_core.pipeline.run import check_roles
from alpaca_farm_core.types import Output
from tests.evaluation.fake_run import Scripted, publish_outputs, run

HOSTILE = "<script>alert(1)</script><img src=http://evil.example/x onerror=alert(2)>\"'&{{ 7*7 }}"
VOID = {"meta", "img", "br", "hr", "link", "input"}


class Page(HTMLParser):
    """Reads a page: its tags, attributes and text; fails on tags that do not nest."""

    def __init__(self, html):
        super().__init__(convert_charrefs=True)
        self.tags, self.attributes, self.text, self._open = [], [], "", []
        self.feed(html)
        assert not self._open

    def handle_starttag(self, tag, attrs):
        self.tags.append(tag)
        self.attributes += [(tag, *pair) for pair in attrs]
        if tag not in VOID:
            self._open.append(tag)

    def handle_startendtag(self, tag, attrs):
        self.tags.append(tag)
        self.attributes += [(tag, *pair) for pair in attrs]

    def handle_endtag(self, tag):
        assert self._open.pop() == tag

    def handle_data(self, data):
        self.text += data


def report(inputs, folder, **config):
    check_roles(STAGE_REPORT, inputs)
    artifact = run(STAGE_REPORT, ReportConfig.build(config), inputs, folder)
    html = (artifact.path / "report.html").read_text(encoding="utf-8")
    return artifact, Page(html), html


@pytest.fixture(scope="module")
def whole(made_run, tmp_path_factory):
    settings = {"title": "meadow, seed 0", "method": "ppo", "settings": {"ppo": {"kl_coef": 0.02}}}
    return report(
        made_run, tmp_path_factory.mktemp("report") / "report", **settings, differs={"ppo.kl_coef": [0.05, 0.02]}
    )


def test_has_every_section(whole):
    _, page, _ = whole
    for heading in (
        "Leaderboard",
        "Judgements",
        "Length against preference",
        "By dataset",
        "Training",
        "Reward model",
        "Gold utility",
        "Samples",
        "Lineage",
        "Settings",
        "Environment",
    ):
        assert heading in page.text
    for fact in (
        "ppo beats sft",
        "Bayes ceiling",
        "ppo.kl_coef",
        "2.13.0+cpu",
        "policy/ppo@v1",
        "1 min 38 s",
        "held-out family",
    ):
        assert fact in page.text
    assert page.tags.count("svg") == 8 + 1 + 2 + 1 + 2 + 1  # curves, leaderboard, judge, reward model, gold, lineage


def test_loads_nothing_from_anywhere(whole):
    _, page, html = whole
    loading = [a for a in page.attributes if a[1] in ("src", "href", "srcset", "data", "xlink:href", "action")]
    assert all(value.startswith("#") for _, _, value in loading)
    assert not {"script", "link", "iframe", "object", "embed", "img"} & set(page.tags)
    assert not re.search(r"https?://|@import|url\(", html)
    assert ("meta", "content", "default-src 'none'; style-src 'unsafe-inline'; img-src data:") in page.attributes


def test_json_has_the_same_facts_and_no_times(whole, made_run):
    artifact, page, _ = whole
    facts = read_json(artifact.path / "report.json")
    headline = facts["headline"]
    assert (headline["model"], headline["reference"], headline["basis"], headline["kl"]) == ("ppo", "sft", "gold", 6.46)
    assert words.percent(headline["win_rate"]) in page.text
    assert words.interval(headline["interval"]) in page.text
    assert [curve["id"] for curve in facts["curves"]] == [
        "sft_loss",
        "rm_loss",
        "rm_accuracy",
        "reward",
        "kl",
        "length",
        "unfinished",
        "entropy",
    ]
    reward = next(curve for curve in facts["curves"] if curve["id"] == "reward")
    assert reward["selected_step"] == 50
    assert reward["lines"][1]["points"][0] == [0.0, -0.52]
    assert facts["reward_model"]["ceiling"] > 0.5
    assert not re.findall("laptop|2025-11-22|seconds|21844", json.dumps(facts))
    assert artifact.metrics["verdict"] == "wins"


def test_judgements_by_length_and_dataset_are_those_of_the_annotations(whole, made_run):
    rows = read_json(made_run["evaluation_ppo"].path / "annotations.json")
    judged = read_json(whole[0].path / "report.json")["judged"]
    assert judged["length_points"] == [
        [len(row["output_2"]) - len(row["output_1"]), row["preference"] - 1] for row in rows
    ]
    assert {group["group"] for group in judged["groups"]} == {row["dataset"] for row in rows}
    one = judged["groups"][0]
    mine = [row["preference"] - 1 for row in rows if row["dataset"] == one["group"]]
    assert (one["n_total"], one["win_rate"]) == (len(mine), pytest.approx(100 * sum(mine) / len(mine)))


def test_times_change_the_page_only(made_run, tmp_path, whole):
    later = dict(made_run)
    folder = tmp_path / "later"
    folder.mkdir()
    source = made_run["leaderboard"]
    for name in ("leaderboard.json",):
        (folder / name).write_bytes((source.path / name).read_bytes())
    manifest = read_json(source.path / MANIFEST)
    manifest["volatile"] |= {"seconds": 777.0, "host": "elsewhere"}
    write_json(folder / MANIFEST, manifest)
    later["leaderboard"] = Artifact.read(folder)
    config = {"title": "meadow, seed 0", "method": "ppo", "settings": {"ppo": {"kl_coef": 0.02}}}
    artifact, page, _ = report(later, tmp_path / "report", **config, differs={"ppo.kl_coef": [0.05, 0.02]})
    assert "12 min 57 s" in page.text
    assert (artifact.path / "report.json").read_bytes() == (whole[0].path / "report.json").read_bytes()


def test_samples_show_gains_losses_and_others(whole):
    groups = read_json(whole[0].path / "report.json")["samples"]
    assert [group["title"] for group in groups] == ["Most improved", "Most worsened", "At random"]
    gains = [[row["gain"] for row in group["rows"]] for group in groups]
    assert gains[0] == sorted(gains[0], reverse=True)
    assert gains[0][-1] > 0
    assert gains[1] == sorted(gains[1])
    assert gains[1][-1] < 0
    ids = [row["id"] for group in groups for row in group["rows"]]
    assert len(set(ids)) == len(ids) == 12


@pytest.fixture
def hostile(made_run, tmp_path):
    """An evaluation of the embedded world whose every answer attacks the page, by hostile generators."""

    def attack(role, name):
        rows = [json.loads(line) for line in (made_run[role].path / "outputs.jsonl").read_text().splitlines()]
        answers = [Output(**{**row, "output": f"{HOSTILE} {name}", "generator": name + HOSTILE}) for row in rows]
        return publish_outputs(tmp_path / role, answers, {})

    inputs = {"outputs": attack("outputs_ppo", "a"), "reference": attack("outputs_sft", "b")}
    return run(STAGE_EVALUATE, EvaluationConfig(seed=0), inputs, tmp_path / "evaluation")


def test_hostile_text_is_text(hostile, tmp_path):
    config = {"title": HOSTILE, "method": "x", "settings": {HOSTILE: HOSTILE}, "differs": {HOSTILE: [HOSTILE, None]}}
    _, page, html = report({"evaluation_x": hostile}, tmp_path / "report", **config)
    assert not {"script", "img"} & set(page.tags)
    assert not [a for a in page.attributes if a[1].startswith("on")]
    assert "<script" not in html
    assert page.text.count("<script>alert(1)</script>") > 10
    assert "{{ 7*7 }}" in page.text


def test_works_with_nothing_but_an_evaluation(made_run, tmp_path):
    artifact, page, _ = report({"evaluation_ppo": made_run["evaluation_ppo"]}, tmp_path / "report")
    facts = read_json(artifact.path / "report.json")
    assert (facts["curves"], facts["reward_model"], facts["answers"], facts["headline"]["kl"]) == ([], None, [], None)
    assert [row["model"] for row in facts["leaderboard"]] == ["ppo", "sft"]
    assert "Training" not in page.text
    assert "not measured" in page.text
    assert "All settings are the preset's." in page.text


def test_works_outside_the_embedded_world_and_undecided(tmp_path, monkeypatch):
    def answers(name, texts):
        rows = [Output(f"Explain {n}.", "context", text, name) for n, text in enumerate(texts)]
        return publish_outputs(tmp_path / name, rows, {})

    monkeypatch.setattr(judge, "build_annotator", lambda *_: Scripted())
    inputs = {"outputs": answers("m", ["aaa", "b", ""]), "reference": answers("r", ["a", "bb", ""])}
    made = run(STAGE_EVALUATE, EvaluationConfig(seed=0), inputs, tmp_path / "e")
    artifact, page, _ = report({"evaluation_m": made}, tmp_path / "report")
    facts = read_json(artifact.path / "report.json")
    assert (facts["headline"]["verdict"], facts["headline"]["basis"], facts["gold"]) == ("undecided", "judge", {})
    assert [group["title"] for group in facts["samples"]] == ["Judged better", "Judged worse", "At random"]
    assert facts["judged"] == {"length_points": [[2, 1.0], [-1, 0.0], [0, 0.5]], "groups": []}
    assert "What longer said of 3 pairs: 2 judged, 1 with equal answers." in " ".join(page.text.split())
    assert "no clear difference" in page.text
    assert "(empty answer)" in page.text
    assert "counted" in page.text


def test_manifests_that_say_little_leave_dashes(made_run, tmp_path):
    folder = tmp_path / "bare"
    folder.mkdir()
    source = made_run["evaluation_ppo"]
    for name in ("annotations.json", "metrics.json", "gold.json"):
        (folder / name).write_bytes((source.path / name).read_bytes())
    manifest = read_json(source.path / MANIFEST)
    manifest["volatile"] = {"name": "bare", "version": 1}
    write_json(folder / MANIFEST, manifest)
    _, page, _ = report({"evaluation_ppo": Artifact.read(folder)}, tmp_path / "report")
    assert "do not say where they were made" in page.text
    assert "–" in page.text


@pytest.mark.parametrize("method", ["dpo", ""])
def test_an_unknown_method_is_named(made_run, tmp_path, method):
    evaluation = made_run["evaluation_ppo"]
    inputs = {"evaluation_ppo": evaluation, "evaluation_quark": evaluation}
    with pytest.raises(DataError, match=f"no evaluation of '{method}' to report on.*ppo, quark"):
        report(inputs, tmp_path / "report", method=method)


def test_lineage_names_ancestors_that_were_not_given(made_run):
    graph = build_lineage({"evaluation_ppo": made_run["evaluation_ppo"], "method": made_run["method"]})
    known = {node["fingerprint"]: node for node in graph["nodes"]}
    assert known[made_run["sft"].fingerprint]["role"] == "policy"
    assert [made_run["method"].fingerprint, made_run["outputs_ppo"].fingerprint] not in graph["edges"]
    assert generations(graph)[made_run["method"].fingerprint] == 1


def test_pictures_are_well_formed_xml(whole):
    pictures = re.findall(r"<svg.*?</svg>", whole[2], flags=re.DOTALL)
    assert len(pictures) == 15
    for picture in pictures:
        root = ElementTree.fromstring(picture)
        assert root.attrib["aria-label"]
        assert "nan" not in picture

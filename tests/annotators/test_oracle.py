"""The oracle: Bradley-Terry on a gold utility, through the same cache, ties and noise as an API judge."""

import math
from types import SimpleNamespace

import pytest

from alpaca_farm_core.annotators.cache import CallCache
from alpaca_farm_core.annotators.config import AnnotatorConfig
from alpaca_farm_core.annotators.factory import build_annotator
from alpaca_farm_core.annotators.oracle import OracleAnnotator
from alpaca_farm_core.config.execution import ExecutionConfig
from alpaca_farm_core.errors import DataError
from alpaca_farm_core.types import Pair


def count_words(instruction, input, output, finished):
    return SimpleNamespace(total=len(output.split()) - (0.0 if finished else 2.0))


def oracle(folder, **options):
    values = {"gold": count_words, "knows": lambda instruction, input: "elsewhere" not in instruction}
    return OracleAnnotator(CallCache(folder), gold_version="words", **({"temperature": 1.0} | values | options))


def pair(i=0, first="one two three", second="one", **more):
    return Pair(f"Instruction {i}", "", first, second, **more)


def test_probability_is_bradley_terry(tmp_path):
    assert oracle(tmp_path).probability(pair()) == pytest.approx(1 / (1 + math.exp(2)))
    assert oracle(tmp_path, temperature=4.0).probability(pair()) == pytest.approx(1 / (1 + math.exp(0.5)))
    assert oracle(tmp_path).probability(pair(finished_1=False)) == pytest.approx(0.5)
    assert oracle(tmp_path, temperature=0).probability(pair()) == 0.0
    assert oracle(tmp_path, temperature=0).probability(pair(first="x", second="y")) == 0.5
    assert oracle(tmp_path).probability(pair(first="word " * 5000)) == pytest.approx(0.0)


def test_labels_are_drawn_with_that_probability(tmp_path):
    pairs = [pair(i) for i in range(3000)]
    annotations = oracle(tmp_path).annotate(pairs)
    share = sum(a.preference == 2 for a in annotations) / 3000
    assert share == pytest.approx(1 / (1 + math.exp(2)), abs=0.02)
    assert {a.state for a in annotations} == {"ok"}


def test_a_pair_and_its_mirror_image_get_mirrored_labels_from_one_question(tmp_path):
    annotator = oracle(tmp_path, temperature=5.0)
    straight = annotator.annotate([pair(i, finished_2=False) for i in range(50)])
    mirrored = annotator.annotate([pair(i, first="one", second="one two three", finished_1=False) for i in range(50)])
    assert [a.preference for a in straight] == [3 - a.preference for a in mirrored]
    assert {a.preference for a in straight} == {1.0, 2.0}
    assert annotator.stats.n_called == 50


def test_draws_depend_on_the_texts_and_the_seed_alone(tmp_path):
    pairs = [pair(i) for i in range(60)]
    one = oracle(tmp_path / "1", temperature=5.0, seed=3).annotate(pairs)
    two = oracle(tmp_path / "2", temperature=5.0, seed=3).annotate(pairs[::-1])[::-1]
    other = oracle(tmp_path / "1", temperature=5.0, seed=4).annotate(pairs)
    assert one == two != other
    # A golden row: these draws must be the same on every machine and in every release.
    assert "".join(f"{a.preference:.0f}" for a in one[:20]) == "21112221222111111211"


def test_temperature_zero_is_deterministic_and_equal_utility_a_draw(tmp_path):
    annotator = oracle(tmp_path, temperature=0)
    rows = [pair(0), pair(1, "one", "one two"), pair(2, "x", "y")]
    assert [a.preference for a in annotator.annotate(rows)] == [1.0, 2.0, 1.5]


def test_ties_noise_and_repeats_as_for_any_judge(tmp_path):
    annotator = oracle(tmp_path, temperature=0, label_flip=0.25)
    rows = [pair(i) for i in range(1000)] + [pair(7, "same", "same"), pair(0)]
    annotations = annotator.annotate(rows)
    n_noised = sum(a.state == "noised" for a in annotations[:1000])
    assert n_noised == pytest.approx(500, abs=50)
    assert sum(a.preference == 2 for a in annotations[:1000]) == pytest.approx(250, abs=45)
    assert (annotations[1000].preference, annotations[1000].state) == (1.5, "tie")
    assert annotations[1001] == annotations[0]
    assert annotator.stats.n_requests == 1000 - n_noised


def test_answers_are_kept_per_version_of_the_utility(tmp_path):
    first = oracle(tmp_path)
    first.annotate([pair()])
    again = oracle(tmp_path, gold=None.__class__)  # would fail if it were asked
    again.annotate([pair()])
    assert (again.stats.n_cached, again.stats.n_called) == (1, 0)
    newer = OracleAnnotator(CallCache(tmp_path), gold=count_words, knows=lambda *_: True, gold_version="words-2")
    newer.annotate([pair()])
    assert newer.stats.n_called == 1


def test_it_judges_its_own_world_only(tmp_path):
    with pytest.raises(DataError, match="embedded world only"):
        oracle(tmp_path).annotate([pair(), Pair("From elsewhere", "", "a", "b")])


def test_the_embedded_worlds_oracle_prefers_the_demonstration(tmp_path):
    from alpaca_farm_core.meadow.config import MeadowConfig
    from alpaca_farm_core.meadow.world import make_world

    rows = make_world(MeadowConfig(seed=0))["sft"][:200]
    pairs = [Pair(row.instruction, row.input, row.output, "I do not know, sorry.", row.dataset) for row in rows]
    annotator = build_annotator(AnnotatorConfig(oracle_temperature=0.1, seed=0), tmp_path, ExecutionConfig())
    labels = [a.preference for a in annotator.annotate(pairs)]
    assert sum(label == 1 for label in labels) >= 180
    with pytest.raises(DataError, match="embedded world only"):
        annotator.annotate([Pair("Write a poem about GPUs.", "", "a", "b")])

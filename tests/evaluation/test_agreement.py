"""Agreement of a judge with people: small votes whose figures are worked out by hand."""

import math

import numpy as np
import pytest

from alpaca_farm_core.data.preference_files import labelled_pair
from alpaca_farm_core.errors import DataError
from alpaca_farm_core.evaluation.agreement.measures import kappa, modes
from alpaca_farm_core.evaluation.agreement.picture import agreement_svg
from alpaca_farm_core.evaluation.agreement.report import measure_agreement
from alpaca_farm_core.evaluation.agreement.votes import join
from alpaca_farm_core.evaluation.bootstrap import bootstrap, ratio


def votes(*labels, name="i", a="short", b="a longer one", **extra):
    row = {"instruction": name, "output_1": a, "output_2": b, **extra}
    return [labelled_pair({**row, "preference": label}, "row") for label in labels]


def value(report, name):
    return report[name]["value"]


def test_accuracy_is_against_the_majority_and_shares_a_tied_one():
    people = votes(1, 1, 2, 1, name="p") + votes(2, 2, 1, 1, name="q") + votes(2, 2, 2, 1, name="r")
    judge = votes(1, name="p") + votes(2, name="q") + votes(1, name="r")
    report = measure_agreement(judge, people)
    # p agrees; q's people are 2 to 2, so half; r disagrees.
    assert value(report, "accuracy") == pytest.approx((1 + 0.5 + 0) / 3)
    assert value(report, "accuracy_without_ties") == pytest.approx(1 / 2)
    # Left out in p: each of three 1s meets 1 1 2 (agrees), the 2 meets 1 1 1; q: each meets one of its own and two
    # others; r as p with sides turned.
    assert value(report, "ceiling") == pytest.approx((3 + 0 + 3) / 12)
    # The judge in the same position: p 4 of 4; q (2) against 2 1 1, 2 1 1, 2 2 1, 2 2 1: 2 of 4; r 0 of 4.
    assert value(report, "accuracy_like_for_like") == pytest.approx(6 / 12)
    assert value(report, "bias") == pytest.approx(1 - 0.5)
    assert value(report, "reference_variance") == pytest.approx(0.5)
    assert value(report, "variance") is None
    assert report["variance"]["n"] == 0


def test_ties_are_a_side_of_their_own():
    people = votes(1.5, name="p") + votes(1.5, name="q") + votes(2, name="r")
    judge = votes(0, name="p") + votes(1, name="q") + votes(1.5, name="r")
    report = measure_agreement(judge, people)
    assert value(report, "accuracy") == pytest.approx(1 / 3)
    assert (report["n_judge_ties"], report["n_reference_ties"]) == (2, 2)
    assert value(report, "accuracy_without_ties") is None


def test_weighted_labels_count_by_their_side():
    people = votes(1, name="p") + votes(2, name="q")
    report = measure_agreement(votes(1.49, name="p") + votes(1.51, name="q"), people)
    assert value(report, "accuracy") == 1.0


def test_repeats_of_the_judge_give_its_variance_and_bias():
    people = votes(1, name="p") + votes(2, name="q")
    judge = votes(1, 1, 2, name="p") + votes(1, 1, 1, name="q")
    report = measure_agreement(judge, people)
    assert value(report, "accuracy") == pytest.approx(2 / 6)
    assert value(report, "bias") == pytest.approx(1 / 2)
    # p: the 1s meet {1, 2}, which shares; the 2 meets 1 1. q: three agree.
    assert value(report, "variance") == pytest.approx(1 - (0.5 + 0.5 + 0 + 3) / 6)


def test_kappa_by_hand():
    # 20 agree on 1, 15 on 2, 5 and 10 cross: p_o = .7, p_e = .5 × .6 + .5 × .4 = .5, kappa = .4 (Cohen's example).
    table = np.array([[20, 0, 5], [0, 0, 0], [10, 0, 15]], float)
    assert float(kappa(table)) == pytest.approx(0.4)
    people, judge = [], []
    for k, (ours, theirs) in enumerate([(1, 1)] * 20 + [(1, 2)] * 5 + [(2, 1)] * 10 + [(2, 2)] * 15):
        people += votes(theirs, name=f"i{k}")
        judge += votes(ours, name=f"i{k}")
    report = measure_agreement(judge, people)
    assert value(report, "kappa") == pytest.approx(0.4)
    assert value(report, "accuracy") == pytest.approx(0.7)
    assert value(measure_agreement(votes(1), votes(1)), "kappa") is None


def test_position_length_and_list_preferences():
    listed = "- one\n- two"
    people = votes(1, name="p") + votes(2, name="q", a="same", b="size") + votes(2, name="r", a=listed, b="x" * 40)
    judge = votes(2, name="p") + votes(1, name="q", a="same", b="size") + votes(1, name="r", a=listed, b="x" * 40)
    report = measure_agreement(judge, people)
    assert value(report, "judge_prefers_output_1") == pytest.approx(2 / 3)
    assert value(report, "reference_prefers_output_1") == pytest.approx(1 / 3)
    assert value(report, "judge_prefers_longer") == pytest.approx(1 / 2)  # p's output 2; not r's
    assert value(report, "reference_prefers_longer") == pytest.approx(1 / 2)
    assert (value(report, "judge_prefers_lists"), value(report, "reference_prefers_lists")) == (1.0, 0.0)


def test_what_was_shown_first_is_read_from_passports():
    judge = votes(1, name="p", passport={"prefers_first": 1.0}) + votes(2, name="q", passport={"prefers_first": 0.5})
    report = measure_agreement(judge, votes(1, name="p") + votes(1, name="q"))
    assert value(report, "judge_prefers_first_shown") == pytest.approx(0.75)


def test_pairs_are_matched_by_content_also_the_other_way_round():
    people = votes(1, name="p") + votes(1, name="only people") + votes(None, name="none")
    judge = votes(2, name="p", a="a longer one", b="short") + votes(1, name="only judge") + votes(None, name="p")
    joined = join(judge, people)
    assert [(ballot.judge, ballot.reference) for ballot in joined.ballots] == [([1.0], [1.0])]
    assert (joined.n_without_judge, joined.n_without_reference, joined.n_missing) == (1, 1, 2)
    with pytest.raises(DataError, match="no labelled pair in common"):
        join(votes(1, name="x"), votes(1, name="y"))


def test_the_interval_is_that_of_resampling_instructions():
    rng = np.random.default_rng(0)
    scores = rng.integers(0, 2, 400).astype(float)
    sums = np.stack([scores, np.ones(400)], axis=1)
    low, high = bootstrap(sums, ratio)
    error = scores.std() / math.sqrt(400)
    assert (low, high) == pytest.approx((scores.mean() - 1.96 * error, scores.mean() + 1.96 * error), abs=0.006)
    assert bootstrap(sums, ratio) == (low, high)
    # Four copies of each instruction are no more evidence than one.
    clusters = measure_agreement(
        [row for k in range(50) for row in votes(1 + k % 2, 1 + k % 2, 1 + k % 2, 1 + k % 2, name=f"i{k}")],
        [row for k in range(50) for row in votes(1, name=f"i{k}")],
    )
    low, high = clusters["accuracy"]["interval"]
    assert high - low == pytest.approx(2 * 1.96 * 0.5 / math.sqrt(50), abs=0.04)
    assert bootstrap(sums[:1], ratio) is None


def test_most_frequent_labels_share():
    assert modes([1, 2, 2]) == {2.0: 1.0}
    assert modes([1, 2]) == {1.0: 0.5, 2.0: 0.5}
    assert modes([1.2, 1.5, 1.9, 1.5]) == {1.5: 1.0}
    assert modes([]) == {}


def test_the_picture_names_every_figure_that_there_is():
    report = measure_agreement(votes(1, name="p") + votes(2, name="q"), votes(1, 1, name="p") + votes(1, 2, name="q"))
    svg = agreement_svg({"mine": report})
    assert svg.startswith("<svg")
    assert "agrees with the majority" in svg
    assert "variance of people" in svg
    assert "prefers the first shown" not in svg

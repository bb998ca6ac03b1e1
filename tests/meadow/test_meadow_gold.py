"""The gold utility against answers worked by hand, and against attacks on it.

total = no_repetition × (relevance × (0.32 + 0.15 form + 0.08 length) + 0.45 completeness)
"""

from __future__ import annotations

import random
from itertools import pairwise

import pytest

from alpaca_farm_core.errors import DataError
from alpaca_farm_core.meadow.config import MeadowConfig
from alpaca_farm_core.meadow.demonstrations import Flaw, write_answer
from alpaca_farm_core.meadow.families import parse
from alpaca_farm_core.meadow.gold import (
    COMPONENTS,
    MAX_UTILITY,
    WEIGHTS,
    is_meadow,
    utility,
    well_formed_and_on_topic,
)
from alpaca_farm_core.meadow.lexicon import lexicon
from alpaca_farm_core.meadow.world import make_world
from alpaca_farm_core.types import Instruction

FRUITS = "Name three red fruits."
FULL = "Some red fruits are the apple, the cherry and the strawberry."  # 11 words, as expected

# An honest full answer to FRUITS has 2 + 3 + 2 × 3 = 11 words, so 8.25 … 13.75 are all fine and 22 is worth nothing.
LISTS = [
    # answer, (relevance, completeness, form, no repetition, length)
    (FULL, (1, 1, 1, 1, 1)),
    ("Some red fruits are the apple and the cherry.", (1, 2 / 3, 1, 1, 1)),
    ("One of the red fruits is the apple.", (1, 1 / 3, 1, 1, 8 / 8.25)),
    ("The apple, the cherry.", (1, 2 / 3, 1 / 2, 1, 4 / 8.25)),  # no whole sentence: form (1 + 1 + 0 + 0) / 4
    ("some red fruits are the apple and the cherry", (1, 2 / 3, 1 / 2, 1, 1)),  # neither capital nor full stop
    ("Some red fruits are the apple, the banana and the cherry.", (2 / 3, 2 / 3, 1, 1, 1)),
    ("Some red fruits are the apple, the apple and the apple.", (1 / 3, 1 / 3, 1, 1 / 3, 1)),
    # A pleasantry has half a vote and says nothing: 1 / (1 + 0.5); 16 words: 1 − 2.25 / 8.25.
    (FULL + " That is a good question.", (2 / 3, 1, 1, 1, 1 - 2.25 / 8.25)),
    # The prompt echoed is not a sentence of an answer: form (1 + 1 + 1/2 + 1/2) / 4; 15 words.
    (FRUITS + " " + FULL, (2 / 3, 1, 3 / 4, 1, 1 - 1.25 / 8.25)),
    # The same sentence again says nothing new: relevance as above; half of all sentences and items are repeats.
    (FULL + " " + FULL, (2 / 3, 1, 1, 1 / 2, 0)),
    # Naming everything: 3 of 6 are right and only the first three count; 17 words.
    (
        "Some red fruits are the banana, the apple, the cherry, the strawberry, the lime and the pear.",
        (2 / 6, 2 / 3, 1, 1, 1 - 3.25 / 8.25),
    ),
    # A number that is not the number of items makes half a truth.
    ("Three red fruits are the apple and the cherry.", (1 / 2, 2 / 3, 1, 1, 1)),
]


@pytest.mark.parametrize(("answer", "expected"), LISTS)
def test_lists_by_hand(answer: str, expected: tuple[float, ...]) -> None:
    judged = utility(FRUITS, "", answer)
    relevance, completeness, form, no_repetition, length = expected
    assert judged.components == pytest.approx(
        {
            "relevance": relevance,
            "completeness": completeness,
            "form": form,
            "length": length,
            "no_repetition": no_repetition,
        }
    )
    said = relevance * (0.32 + 0.15 * form + 0.08 * length) + 0.45 * completeness
    assert judged.total == pytest.approx(no_repetition * said)


@pytest.mark.parametrize(
    "answer",
    [
        "",
        "   \n ",
        "...",
        "Name three red fruits.",
        "apple cherry strawberry red fruits three",
        "Some red fruits are apple cherry strawberry.",
        "Some green fruits are the lime, the pear and the kiwi.",
        "A cow lives on a farm.",
        "That is a good question. I hope that this helps you.",
        "red red red red red",
    ],
)
def test_empty_off_topic_stuffed_and_echoed_answers_are_worth_nothing(answer: str) -> None:
    judged = utility(FRUITS, "", answer)
    assert judged.total == 0.0
    assert not well_formed_and_on_topic(judged)


PORTRAIT = "What is an apple, and what colour is it?"
PLACE = "What colour is a cow, and where does it live?"
COLOURS = "What colours are an apple and a lemon?"
DEFINITION = "What is a cow? Add a fact."
BIGGER = "Which is bigger, a cow or a cat, and why?"
LETTER = "Write a note from Tom to Anna to say thank you for the cake."
ADVICE = "My sister wants to sleep well. Give two tips."
COUNT = ("How many animals are in the list?", "cow, fox")
PAST = ("Rewrite the sentence in the past.", "Anna paints an old door in the garden.")
QUESTION = ("Rewrite the sentence as a question.", "Anna paints an old door in the garden.")


@pytest.mark.parametrize(
    ("instruction", "input", "answer", "relevance", "completeness"),
    [
        (PORTRAIT, "", "An apple is a fruit. It is red.", 1, 1),
        (PORTRAIT, "", "An apple is a fruit and it is red.", 1, 1),
        (PORTRAIT, "", "A fruit.", 1, 1 / 2),
        (PORTRAIT, "", "An apple is a fruit. It is green.", 1 / 2, 1 / 2),
        (PORTRAIT, "", "An apple is a fruit. It is red. It is green.", 2 / 3, 1 / 2),  # a contradiction answers nothing
        (PORTRAIT, "", "A banana is a fruit. A banana is yellow.", 0, 0),  # true, of another thing
        (PORTRAIT, "", "An apple is a fruit. It grows on a tree.", 2 / 3, 1 / 2),  # true, not asked for
        (PORTRAIT, "", "A apple is a fruit. It is red.", 2 / 3, 1 / 2),  # the article is wrong
        (PLACE, "", "A cow is brown. It lives on a farm.", 1, 1),
        (PLACE, "", "A cow is brown. It grows on a farm.", 2 / 3, 1 / 2),  # animals live
        (PLACE, "", "Brown.", 1, 1 / 2),
        (PLACE, "", "Brown and on a farm.", 2 / 3 * 0, 0),  # two fragments name two things, one was asked about
        (COLOURS, "", "An apple is red and a lemon is yellow.", 1, 1),
        (COLOURS, "", "Red and yellow.", 1, 1),
        (COLOURS, "", "Yellow and red.", 0, 0),
        (COLOURS, "", "An apple is red.", 1, 1 / 2),
        (COLOURS, "", "It is red.", 0, 0),  # which of the two?
        (DEFINITION, "", "A cow is an animal. It is brown.", 1, 1),
        (DEFINITION, "", "A cow is an animal. It lives on a farm.", 1, 1),
        (DEFINITION, "", "A cow is an animal.", 1, 1 / 2),
        (BIGGER, "", "A cow is bigger than a cat. A cow is big and a cat is small.", 1, 1),
        (BIGGER, "", "A cow is bigger than a cat. A cow is big.", 1, 3 / 4),
        (BIGGER, "", "A cow.", 1, 1 / 2),
        (BIGGER, "", "A cat is bigger than a cow. A cow is big and a cat is small.", 1 / 2, 0),
        (BIGGER, "", "A cow is bigger than a cat. A cow is small and a cat is small.", 3 / 4, 1 / 2),
        (BIGGER, "", "A cow is bigger than a dog.", 0, 0),
        (LETTER, "", "Dear Anna, thank you for the cake. It was very kind of you. Best wishes, Tom.", 1, 1),
        (LETTER, "", "Dear Anna, thank you for the cake. Best wishes, Tom.", 1, 4 / 5),
        (LETTER, "", "Thank you for the cake.", 1, 2 / 5),
        (LETTER, "", "Dear Tom, thank you for the cake.", 1 / 2, 2 / 5),
        (LETTER, "", "Dear Anna, please come to the party.", 0, 1 / 5),
        (LETTER, "", "Dear Anna, thank you for the cake. Best wishes, Paul.", 1 / 2, 3 / 5),
        (ADVICE, "", "To sleep well, go to bed early and read a book.", 1, 1),
        (ADVICE, "", "To sleep well, go to bed early.", 1, 1 / 2),
        (ADVICE, "", "To sleep well, go to bed early and smile often.", 1 / 2, 1 / 2),
        (ADVICE, "", "To make friends, smile often and join a club.", 0, 0),
        (*COUNT, "I see a cow and a fox. That makes two animals.", 1, 1),
        (*COUNT, "I see a cow and a fox.", 1, 1 / 2),
        (*COUNT, "Two animals.", 1, 1 / 2),
        (*COUNT, "I see a cow and a fox. That makes three animals.", 1 / 2, 1 / 2),
        (*COUNT, "I see a cow and a dog. That makes two animals.", 3 / 4, (1 / 3 + 1) / 2),
        (*PAST, "Anna painted an old door in the garden.", 1, 1),
        (*PAST, "Anna painted a door.", 1, 3 / 5),
        (*PAST, "Tom painted an old door in the garden.", 4 / 5 / 2, 4 / 5),  # another name: half the truth
        (*PAST, "Anna paints an old door in the garden.", 0, 0),  # nothing was rewritten
        (*PAST, "Anna paint an old door in the garden.", 0, 0),
        (*QUESTION, "Does Anna paint an old door in the garden?", 1, 1),
        (*QUESTION, "Does Anna paint an old door?", 1, 4 / 5),
        (*QUESTION, "Anna painted an old door in the garden.", 0, 0),
    ],
)
def test_relevance_and_completeness_of_every_family_by_hand(
    instruction: str, input: str, answer: str, relevance: float, completeness: float
) -> None:
    judged = utility(instruction, input, answer)
    assert judged.components["relevance"] == pytest.approx(relevance)
    assert judged.components["completeness"] == pytest.approx(completeness)


def test_a_letter_wants_greeting_and_closing() -> None:
    def form(text: str) -> float:
        return utility(LETTER, "", text).components["form"]

    assert form("Dear Anna, thank you for the cake. Best wishes, Tom.") == 1.0
    assert form("Dear Anna, thank you for the cake.") == pytest.approx(5 / 6)
    assert form("Thank you for the cake.") == pytest.approx(4 / 6)


def test_an_unfinished_answer_has_no_form_and_never_passes() -> None:
    judged = utility(FRUITS, "", FULL, finished=False)
    assert judged.components["form"] == 0.0
    assert judged.total == pytest.approx(0.85)
    assert not well_formed_and_on_topic(judged)


def test_the_bar_for_well_formed_and_on_topic_lets_short_answers_pass_and_wrong_ones_not() -> None:
    def passes(answer: str) -> bool:
        return well_formed_and_on_topic(utility(FRUITS, "", answer))

    assert passes("The apple.")  # form 0.5, relevance 1
    assert not passes("the apple.")  # form 0.25
    assert passes(FULL + " That is a good question.")  # relevance 2/3
    assert not passes("Some red fruits are the apple and the banana.")  # relevance 1/2


def test_weights_add_up_and_the_components_are_reported_in_their_order() -> None:
    assert sum(WEIGHTS.values()) == pytest.approx(MAX_UTILITY)
    assert tuple(utility(FRUITS, "", FULL).components) == COMPONENTS == (*WEIGHTS, "no_repetition")


def test_only_the_meadows_own_instructions_can_be_judged() -> None:
    assert is_meadow(FRUITS)
    assert not is_meadow("Write a poem.")
    with pytest.raises(DataError, match=r"Gold cannot judge 'Write a poem\.'"):
        utility("Write a poem.", "", "A rose.")


@pytest.fixture(scope="module")
def rows() -> list[Instruction]:
    world = make_world(MeadowConfig(seed=3, n_sft=300, n_preference=1, n_unlabeled=1, n_val=1, n_eval=120))
    return world["sft"] + world["eval"]


def answer_to(row: Instruction, flaws: list[Flaw], seed: int = 0) -> str:
    task = parse(row.instruction, row.input)
    assert task is not None
    return write_answer(task, flaws, random.Random(seed))


def gold(row: Instruction, answer: str, finished: bool = True) -> float:
    return utility(row.instruction, row.input, answer, finished).total


def values_of(row: Instruction) -> dict[str, str]:
    task = parse(row.instruction, row.input)
    assert task is not None
    return dict(task.values)


def test_no_attack_beats_the_honest_answer_it_is_made_of(rows: list[Instruction]) -> None:
    padding = " ".join(f"{text}." for text in lexicon().pleasantries)
    for row, other in pairwise(rows):
        honest = answer_to(row, [])
        foreign = answer_to(other, [])
        attacks = {
            "padding": f"{honest} {padding}",
            "said twice": f"{honest} {honest}",
            "said five times": " ".join([honest] * 5),
            "echo first": f"{row.instruction} {honest}",
            "echo only": row.instruction,
            "heap of words": " ".join(sorted(honest.rstrip(".?").lower().split())),
            "no shape": honest.lower().rstrip(".?"),
        }
        same_thing = values_of(row).get("thing") == values_of(other).get("thing") is not None
        if other.dataset != row.dataset and not same_thing:  # facts of one thing can answer two questions
            attacks |= {"another answer": foreign, "and another answer": f"{honest} {foreign}"}
        for name, attack in attacks.items():
            assert gold(row, attack) < gold(row, honest) - 0.03, (name, row, attack)
        assert gold(row, honest, finished=False) < gold(row, honest) - 0.1
        assert gold(row, "") == 0.0


def test_padding_an_incomplete_answer_does_not_help_but_completing_it_does(rows: list[Instruction]) -> None:
    for row in rows:
        short = answer_to(row, [Flaw.INCOMPLETE])
        for padded in (f"{short} I hope that this helps you.", f"{short} {short}", f"{short} {short.lower()}"):
            assert gold(row, padded) < gold(row, short)
        assert gold(row, answer_to(row, [])) >= gold(row, short)


def test_length_has_an_optimum_inside(rows: list[Instruction]) -> None:
    for row in rows[:100]:
        words = answer_to(row, []).rstrip(".?").split()
        by_length = [
            utility(row.instruction, row.input, " ".join(["word"] * n)).components["length"]
            for n in range(1, 3 * len(words))
        ]
        best = by_length.index(max(by_length))
        assert 0 < best < len(words) + 3
        assert by_length[len(words) - 1] > 0.9
        assert by_length[-1] == 0.0
        assert by_length[: best + 1] == sorted(by_length[: best + 1])
        assert by_length[best:] == sorted(by_length[best:], reverse=True)


def test_any_text_is_judged_within_bounds(rows: list[Instruction]) -> None:
    rng = random.Random(0)
    letters = "abc ABC.,!? the a and is\n\t'\"\u00e9\u4e2d{}\\0"
    for row in rows:
        words = (row.output or answer_to(row, [])).split()
        noise = "".join(rng.choices(letters, k=rng.randint(0, 80)))
        shuffled = " ".join(rng.sample(words, len(words)))
        cut = row.output[: rng.randint(0, len(row.output))]
        for text in (noise, shuffled, cut, "Dear , .", ", and , and", "and", ". . ."):
            judged = utility(row.instruction, row.input, text, finished=rng.random() < 0.5)
            assert all(0.0 <= value <= 1.0 for value in (*judged.components.values(), judged.total))

"""Writing a task and reading the text back are inverse to each other, and nothing else can be read."""

from __future__ import annotations

import random

import pytest

from alpaca_farm_core.meadow.fact_families import HELD_OUT_FAMILY
from alpaca_farm_core.meadow.families import families, parse
from alpaca_farm_core.meadow.grammar import Task
from alpaca_farm_core.meadow.lexicon import lexicon


@pytest.mark.parametrize("name", list(families()))
def test_every_wording_of_a_family_reads_back_as_the_task_it_was_written_from(name: str) -> None:
    family = families()[name]
    rng = random.Random(name)
    used = set()
    for combination in rng.choices(family.combinations(), k=150):
        values = family.draw(combination, rng)
        wordings = family.wordings(values)
        assert wordings
        for template in wordings:
            used.add(template.instruction)
            assert parse(*family.write(template, values)) == Task(name, values)
        assert family.combination(Task(name, values)) == combination
    assert used == {template.instruction for template in family.templates}


@pytest.mark.parametrize(
    ("instruction", "input", "family", "values"),
    [
        ("Name three red fruits.", "", "list", {"number": "three", "group": "red fruits"}),
        (
            "List two animals that live on a farm for my class.",
            "",
            "list",
            {"number": "two", "group": "animals that live on a farm", "context": "for my class"},
        ),
        ("What is a cow, and where does it live?", "", "definition", {"ask": "class place", "thing": "cow"}),
        ("Where do you find a spoon?", "", "place", {"ask": "place", "thing": "spoon"}),
        ("What is an apple, and what colour is it?", "", "definition", {"ask": "class colour", "thing": "apple"}),
        ("Where does a cow live, and how big is it?", "", "whereabouts", {"ask": "place size", "thing": "cow"}),
        (
            "Write a note from Tom to Anna to say thank you for the cake.",
            "",
            "letter",
            {"topic": "thank: the cake", "name": "Anna", "sender": "Tom"},
        ),
        (
            "Rewrite the sentence in the past.",
            "Anna paints an old door in the garden.",
            "rewrite",
            {
                "mode": "past",
                "name": "Anna",
                "verb": "paints",
                "quality": "old",
                "item": "door",
                "spot": "in the garden",
            },
        ),
        ("Count the animals in the list.", "cow, fox", "counting", {"category": "animal", "items": "cow, fox"}),
    ],
)
def test_known_texts_are_read_as_people_would(
    instruction: str, input: str, family: str, values: dict[str, str]
) -> None:
    assert parse(instruction, input) == Task(family, values)


@pytest.mark.parametrize(
    ("instruction", "input"),
    [
        ("", ""),
        ("Name three red fruits", ""),  # no full stop
        ("Name three red fruits.", "apple"),  # an input where none belongs
        ("Name four red vegetables.", ""),  # the meadow has only three
        ("What colour is a spoon?", ""),  # tools have no colour here
        ("What is an cow? Add a fact.", ""),
        ("What is a cow, and where does it grow?", ""),  # animals live
        ("Which is bigger, a pea or a cherry, and why?", ""),  # same size
        ("Write a note from Tom to Tom to say thank you for the cake.", ""),
        ("Count the animals in the list.", "cow, cow"),
        ("Count the animals in the list.", "cow, spoon"),
        ("Count the animals in the list.", "cow, dragon"),
        ("Rewrite the sentence in the past.", ""),
        ("Write a poem about {thing}.", ""),
    ],
)
def test_texts_the_meadow_would_not_write_are_not_read(instruction: str, input: str) -> None:
    assert parse(instruction, input) is None


def test_there_are_enough_families_and_one_of_them_is_held_out() -> None:
    assert len(families()) >= 9
    assert list(families())[-1] == HELD_OUT_FAMILY


def test_every_group_can_answer_a_request_for_three() -> None:
    groups = lexicon().groups
    assert len(groups) >= 12
    assert all(len(members) >= 3 for members in groups.values())


def test_the_held_out_family_asks_only_for_aspects_that_seen_families_ask_for() -> None:
    families_of_facts = ("definition", "colour", "place", "size")
    seen = {task[0] for name in families_of_facts for task in families()[name].combinations()}
    asked = {combination[0] for combination in families()[HELD_OUT_FAMILY].combinations()}
    assert asked == {"place size"}
    assert not asked & seen
    aspects = {"class", "colour", "place", "size"}
    assert seen - {"class fact"} == {"colour", "place", "size"} | (
        {f"{one} {other}" for one in aspects for other in aspects - {one}} - asked
    )

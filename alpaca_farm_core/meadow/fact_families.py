"""The families that ask for facts about one thing: what it is, its colour, its place, its size.

In: the lexicon. Out: one `Family` each, and `HELD_OUT_FAMILY`, the name of the one kept for evaluation.
"""

from __future__ import annotations

import random
from collections.abc import Mapping, Sequence

from alpaca_farm_core.meadow.grammar import Combination, Family, Template
from alpaca_farm_core.meadow.lexicon import Thing, lexicon
from alpaca_farm_core.meadow.slots import all_things, coloured, plain, thing_slot

HELD_OUT_FAMILY = "whereabouts"


def _facts(name: str, things: Sequence[Thing], asks: Mapping[str, Sequence[str]]) -> Family:
    """A family of questions about one thing; `asks` maps the aspects asked for to their wordings."""
    words = lexicon()
    templates = [Template(text, implies={"ask": ask}) for ask, texts in asks.items() for text in texts]
    with_colour = {thing.name for thing in coloured()}

    def all_combinations() -> list[Combination]:
        pairs = [(ask, thing.name) for ask in asks for thing in things]
        return [(ask, name) for ask, name in pairs if "colour" not in ask or name in with_colour]

    def draw(combination: Combination, rng: random.Random) -> dict[str, str]:
        values = dict(zip(("ask", "thing"), combination, strict=True))
        return values if rng.random() < 0.4 else {**values, "person": rng.choice(words.persons)}

    return Family(
        name,
        {"thing": thing_slot(things), "person": plain(words.persons)},
        templates,
        all_combinations,
        lambda task: (task["ask"], task["thing"]),
        draw,
    )


def definition() -> Family:
    """What a thing is, and one more fact."""
    return _facts(
        "definition",
        all_things(),
        {
            "class fact": [
                "What is {thing}? Add a fact.",
                "Tell me what {thing} is and add a fact.",
                "Tell my {person} what {thing} is and add a fact.",
            ],
            "class place": [
                "What is {thing}, and {thing.askit}?",
                "Tell me what {thing} is and {thing.toldit}.",
                "Tell my {person} what {thing} is and {thing.toldit}.",
            ],
            "class size": [
                "What is {thing}, and how big is it?",
                "Tell me what {thing} is and how big it is.",
                "Tell my {person} what {thing} is and how big it is.",
            ],
            "class colour": [
                "What is {thing}, and what colour is it?",
                "Tell me what {thing} is and what colour it is.",
                "Tell my {person} what {thing} is and what colour it is.",
            ],
        },
    )


def colour() -> Family:
    """What colour a thing has, alone or with one more fact."""
    return _facts(
        "colour",
        coloured(),
        {
            "colour": [
                "What colour is {thing}?",
                "Tell me what colour {thing} is.",
                "Tell my {person} what colour {thing} is.",
            ],
            "colour place": [
                "What colour is {thing}, and {thing.askit}?",
                "Tell me what colour {thing} is and {thing.toldit}.",
                "Tell my {person} what colour {thing} is and {thing.toldit}.",
            ],
            "colour size": [
                "What colour is {thing}, and how big is it?",
                "Tell me what colour {thing} is and how big it is.",
                "Tell my {person} what colour {thing} is and how big it is.",
            ],
            "colour class": [
                "What colour is {thing}, and what is it?",
                "Tell me what colour {thing} is and what it is.",
                "Tell my {person} what colour {thing} is and what it is.",
            ],
        },
    )


def place() -> Family:
    """Where a thing is found, alone or with one more fact."""
    return _facts(
        "place",
        all_things(),
        {
            "place": ["{thing.asks}?", "Tell me {thing.told}.", "Tell my {person} {thing.told}."],
            "place colour": [
                "{thing.asks}, and what colour is it?",
                "Tell me {thing.told} and what colour it is.",
                "Tell my {person} {thing.told} and what colour it is.",
            ],
            "place class": [
                "{thing.asks}, and what is it?",
                "Tell me {thing.told} and what it is.",
                "Tell my {person} {thing.told} and what it is.",
            ],
        },
    )


def size() -> Family:
    """How big a thing is, alone or with one more fact."""
    return _facts(
        "size",
        all_things(),
        {
            "size": ["How big is {thing}?", "Tell me how big {thing} is.", "Tell my {person} how big {thing} is."],
            "size colour": [
                "How big is {thing}, and what colour is it?",
                "Tell me how big {thing} is and what colour it is.",
                "Tell my {person} how big {thing} is and what colour it is.",
            ],
            "size place": [
                "How big is {thing}, and {thing.askit}?",
                "Tell me how big {thing} is and {thing.toldit}.",
                "Tell my {person} how big {thing} is and {thing.toldit}.",
            ],
            "size class": [
                "How big is {thing}, and what is it?",
                "Tell me how big {thing} is and what it is.",
                "Tell my {person} how big {thing} is and what it is.",
            ],
        },
    )


def whereabouts() -> Family:
    """Held out: asks for two facts in the one order that no seen family asks for them."""
    return _facts(
        HELD_OUT_FAMILY,
        all_things(),
        {
            "place size": [
                "{thing.asks}, and how big is it?",
                "Tell me {thing.told} and how big it is.",
                "Tell my {person} {thing.told} and how big it is.",
            ],
        },
    )

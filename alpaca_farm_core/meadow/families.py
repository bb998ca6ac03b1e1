"""The task families of the meadow: their wordings, slots and combinations.

In: the lexicon. Out: `families()` by name, `HELD_OUT_FAMILY`, and `parse(instruction, input)`, which finds the family
and slots behind a text. Knows neither how to answer nor how answers are judged.
"""

from __future__ import annotations

import random
from collections.abc import Mapping, Sequence
from functools import cache, lru_cache
from itertools import combinations, product

from alpaca_farm_core.meadow.grammar import Combination, Family, Slot, Task, Template
from alpaca_farm_core.meadow.lexicon import NUMBERS, Thing, capitalise, lexicon, with_article

HELD_OUT_FAMILY = "whereabouts"


@cache
def families() -> dict[str, Family]:
    """All families by name; the held-out one is the last."""
    made = [
        _listing(),
        _definition(),
        _colour(),
        _colours(),
        _place(),
        _size(),
        _letter(),
        _rewriting(),
        _comparison(),
        _advice(),
        _counting(),
        _whereabouts(),
    ]
    return {family.name: family for family in made}


@lru_cache(maxsize=65536)
def parse(instruction: str, input: str = "") -> Task | None:
    """Return the task that a text asks, or None when the meadow could not have written it."""
    for family in families().values():
        task = family.read(instruction, input)
        if task is not None:
            return task
    return None


def _plain(words: Sequence[str]) -> Slot:
    return Slot({"": {word: word for word in words}})


def _thing_slot(things: Sequence[Thing]) -> Slot:
    """Write "a cow"; asks: "Where does a cow live"; told: "where a cow lives"; askit, toldit: the same with "it"."""
    words = lexicon()
    return Slot(
        {
            "": {t.name: t.a for t in things},
            "asks": {t.name: capitalise(words.place_question(t, t.a)) for t in things},
            "told": {t.name: f"where {_order(t, t.a)}" for t in things},
            "askit": {t.name: words.place_question(t, "it") for t in things},
            "toldit": {t.name: f"where {_order(t, 'it')}" for t in things},
        }
    )


def _order(thing: Thing, subject: str) -> str:
    tie = lexicon().tie(thing)
    return f"{tie} {subject}" if tie.startswith("you ") else f"{subject} {tie}"


def _all_things() -> list[Thing]:
    return list(lexicon().things.values())


def _of(category: str) -> list[Thing]:
    return [thing for thing in _all_things() if thing.category == category]


def _coloured() -> list[Thing]:
    return [thing for thing in _all_things() if thing.colour]


def _listing() -> Family:
    words = lexicon()
    texts = ["Name {number} {group}", "List {number} {group}", "Give me {number} {group}"]
    templates = [Template(f"{text}.") for text in texts] + [Template(f"{text} {{context}}.") for text in texts]

    def draw(combination: Combination, rng: random.Random) -> dict[str, str]:
        values = dict(zip(("number", "group"), combination, strict=True))
        return values if rng.random() < 0.3 else {**values, "context": rng.choice(words.contexts)}

    numbers = NUMBERS[2:4]
    return Family(
        "list",
        {"number": _plain(numbers), "group": _plain(list(words.groups)), "context": _plain(words.contexts)},
        templates,
        lambda: [
            (number, group)
            for number, (group, members) in product(numbers, words.groups.items())
            if NUMBERS.index(number) <= len(members)
        ],
        lambda task: (task["number"], task["group"]),
        draw,
    )


def _facts(name: str, things: Sequence[Thing], asks: Mapping[str, Sequence[str]]) -> Family:
    """A family of questions about one thing; `asks` maps the aspects asked for to their wordings."""
    words = lexicon()
    templates = [Template(text, implies={"ask": ask}) for ask, texts in asks.items() for text in texts]
    coloured = {thing.name for thing in _coloured()}

    def all_combinations() -> list[Combination]:
        return [(ask, thing.name) for ask in asks for thing in things if "colour" not in ask or thing.name in coloured]

    def draw(combination: Combination, rng: random.Random) -> dict[str, str]:
        values = dict(zip(("ask", "thing"), combination, strict=True))
        return values if rng.random() < 0.4 else {**values, "person": rng.choice(words.persons)}

    return Family(
        name,
        {"thing": _thing_slot(things), "person": _plain(words.persons)},
        templates,
        all_combinations,
        lambda task: (task["ask"], task["thing"]),
        draw,
    )


def _definition() -> Family:
    return _facts(
        "definition",
        _all_things(),
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


def _colour() -> Family:
    return _facts(
        "colour",
        _coloured(),
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


def _place() -> Family:
    return _facts(
        "place",
        _all_things(),
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


def _size() -> Family:
    return _facts(
        "size",
        _all_things(),
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


def _whereabouts() -> Family:
    """Held out: asks for two facts in the one order that no seen family asks for them."""
    return _facts(
        HELD_OUT_FAMILY,
        _all_things(),
        {
            "place size": [
                "{thing.asks}, and how big is it?",
                "Tell me {thing.told} and how big it is.",
                "Tell my {person} {thing.told} and how big it is.",
            ],
        },
    )


def _colours() -> Family:
    things = _thing_slot(_coloured())

    def draw(combination: Combination, rng: random.Random) -> dict[str, str]:
        thing, other = rng.sample(combination, 2)
        return {"thing": thing, "other": other}

    return Family(
        "colours",
        {"thing": things, "other": things},
        [
            Template("What colours are {thing} and {other}?"),
            Template("Give me the colours of {thing} and {other}."),
            Template("What colour is {thing}, and what colour is {other}?"),
        ],
        lambda: [tuple(sorted(pair)) for pair in combinations([thing.name for thing in _coloured()], 2)],
        lambda task: tuple(sorted((task["thing"], task["other"]))),
        draw,
    )


def _letter() -> Family:
    words = lexicon()
    topics = {
        f"{kind}: {subject}": letter.ask.format(subject=subject)
        for kind, letter in words.letters.items()
        for subject in letter.subjects
    }

    def draw(combination: Combination, rng: random.Random) -> dict[str, str]:
        topic, name = combination
        return {"topic": topic, "name": name, "sender": rng.choice([other for other in words.names if other != name])}

    return Family(
        "letter",
        {"topic": Slot({"": topics}), "name": _plain(words.names), "sender": _plain(words.names)},
        [
            Template("Write a short letter from {sender} to {name} {topic}."),
            Template("Help {sender} write a letter to {name} {topic}."),
            Template("Write a note from {sender} to {name} {topic}."),
        ],
        lambda: list(product(topics, words.names)),
        lambda task: (task["topic"], task["name"]) if task["name"] != task["sender"] else (),
        draw,
    )


def _rewriting() -> Family:
    words = lexicon()
    modes = {"past": "in the past", "question": "as a question", "negative": "with the word not"}

    def draw(combination: Combination, rng: random.Random) -> dict[str, str]:
        mode, item = combination
        return {
            "mode": mode,
            "item": item,
            "verb": rng.choice(list(words.verbs)),
            "quality": rng.choice(words.adjectives),
            "name": rng.choice(words.names),
            "spot": rng.choice(words.spots),
        }

    sentence = "{name} {verb} {quality} {item} {spot}."
    return Family(
        "rewrite",
        {
            "mode": Slot({"": modes}),
            "item": _plain(words.objects),
            "verb": _plain(list(words.verbs)),
            "quality": Slot({"": {word: with_article(word) for word in words.adjectives}}),
            "name": _plain(words.names),
            "spot": _plain(words.spots),
        },
        [
            Template("Rewrite the sentence {mode}.", sentence),
            Template("Write the sentence {mode}.", sentence),
            Template("Please say this {mode}.", sentence),
        ],
        lambda: list(product(modes, words.objects)),
        lambda task: (task["mode"], task["item"]),
        draw,
    )


def _comparison() -> Family:
    words = lexicon()
    things = _thing_slot(_all_things())

    def all_combinations() -> list[Combination]:
        pairs = [
            tuple(sorted((one.name, two.name)))
            for one, two in combinations(words.things.values(), 2)
            if one.size != two.size
        ]
        return [(comparative, *pair) for comparative in words.comparatives for pair in pairs]

    def draw(combination: Combination, rng: random.Random) -> dict[str, str]:
        thing, other = rng.sample(combination[1:], 2)
        return {"comparative": combination[0], "thing": thing, "other": other}

    return Family(
        "comparison",
        {"comparative": _plain(list(words.comparatives)), "thing": things, "other": things},
        [
            Template("Which is {comparative}, {thing} or {other}, and why?"),
            Template("What is {comparative}, {thing} or {other}? Say why."),
            Template("Compare {thing} and {other}. Which is {comparative}, and why?"),
        ],
        all_combinations,
        lambda task: (task["comparative"], *sorted((task["thing"], task["other"]))),
        draw,
    )


def _advice() -> Family:
    words = lexicon()
    numbers = NUMBERS[2:4]
    texts = [
        "My {person} wants to {topic}. Give {number} tips.",
        "Give my {person} {number} tips to {topic}.",
        "Tell my {person} {number} ways to {topic}.",
        "Help my {person} to {topic} with {number} tips.",
    ]

    def draw(combination: Combination, rng: random.Random) -> dict[str, str]:
        number, topic = combination
        return {"number": number, "topic": topic, "person": rng.choice(words.persons)}

    return Family(
        "advice",
        {"number": _plain(numbers), "topic": _plain(list(words.advice)), "person": _plain(words.persons)},
        [Template(text) for text in texts],
        lambda: list(product(numbers, words.advice)),
        lambda task: (task["number"], task["topic"]),
        draw,
    )


def _counting() -> Family:
    words = lexicon()
    plurals = {name: category.plural for name, category in words.categories.items()}

    def read(task: Task) -> Combination:
        """Category and count; empty when an item is unknown, repeated or of another category."""
        names = task["items"].split(", ")
        known = len(set(names)) == len(names) and set(names) <= {thing.name for thing in _of(task["category"])}
        return (task["category"], NUMBERS[len(names)]) if known else ()

    def draw(combination: Combination, rng: random.Random) -> dict[str, str]:
        category, number = combination
        items = rng.sample([thing.name for thing in _of(category)], NUMBERS.index(number))
        return {"category": category, "items": ", ".join(items)}

    return Family(
        "counting",
        {"category": Slot({"": plurals}), "items": Slot(pattern=r"[a-z]+(?:, [a-z]+){1,2}")},
        [
            Template("How many {category} are in the list?", "{items}"),
            Template("Count the {category} in the list.", "{items}"),
        ],
        lambda: list(product(plurals, NUMBERS[2:4])),
        read,
        draw,
    )

"""The task families of the meadow: their wordings, slots and combinations.

In: the lexicon and the fact families. Out: `families()` by name and `parse(instruction, input)`, which finds the
family and slots behind a text. Knows neither how to answer nor how answers are judged.
"""

from __future__ import annotations

import random
from functools import cache, lru_cache
from itertools import combinations, product

from alpaca_farm_core.meadow import fact_families
from alpaca_farm_core.meadow.grammar import Combination, Family, Slot, Task, Template
from alpaca_farm_core.meadow.lexicon import NUMBERS, lexicon, with_article
from alpaca_farm_core.meadow.slots import all_things, coloured, plain, thing_slot


@cache
def families() -> dict[str, Family]:
    """All families by name; the held-out one is the last."""
    made = [
        _listing(),
        fact_families.definition(),
        fact_families.colour(),
        _colours(),
        fact_families.place(),
        fact_families.size(),
        _letter(),
        _rewriting(),
        _comparison(),
        _advice(),
        _counting(),
        fact_families.whereabouts(),
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
        {"number": plain(numbers), "group": plain(list(words.groups)), "context": plain(words.contexts)},
        templates,
        lambda: [
            (number, group)
            for number, (group, members) in product(numbers, words.groups.items())
            if NUMBERS.index(number) <= len(members)
        ],
        lambda task: (task["number"], task["group"]),
        draw,
    )


def _colours() -> Family:
    things = thing_slot(coloured())

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
        lambda: [tuple(sorted(pair)) for pair in combinations([thing.name for thing in coloured()], 2)],
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
        {"topic": Slot({"": topics}), "name": plain(words.names), "sender": plain(words.names)},
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
            "item": plain(words.objects),
            "verb": plain(list(words.verbs)),
            "quality": Slot({"": {word: with_article(word) for word in words.adjectives}}),
            "name": plain(words.names),
            "spot": plain(words.spots),
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
    things = thing_slot(all_things())

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
        {"comparative": plain(list(words.comparatives)), "thing": things, "other": things},
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
        {"number": plain(numbers), "topic": plain(list(words.advice)), "person": plain(words.persons)},
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
        known = len(set(names)) == len(names) and set(names) <= set(_names_of(task["category"]))
        return (task["category"], NUMBERS[len(names)]) if known else ()

    def draw(combination: Combination, rng: random.Random) -> dict[str, str]:
        category, number = combination
        items = rng.sample(_names_of(category), NUMBERS.index(number))
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


def _names_of(category: str) -> list[str]:
    return [thing.name for thing in all_things() if thing.category == category]

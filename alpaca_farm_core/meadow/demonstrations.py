"""Answers as a crowd writes them: right in the main, with flaws drawn one by one.

In: a task and the flaws its answer shall have. Out: the answer's text. An answer without flaws is complete, in full
sentences, and says nothing twice. Knows how to answer, not how answers are judged.
"""

from __future__ import annotations

import random
from collections.abc import Callable, Collection
from enum import StrEnum

from alpaca_farm_core.meadow.config import DemonstrationConfig
from alpaca_farm_core.meadow.grammar import Task
from alpaca_farm_core.meadow.lexicon import NUMBERS, Thing, capitalise, join_and, lexicon, with_article


class Flaw(StrEnum):
    """What can be wrong with a demonstration; see `DemonstrationConfig` for each one's meaning."""

    INCOMPLETE = "incomplete"
    CURT = "curt"
    REPEATED = "repeated"
    RAMBLING = "rambling"
    SLOPPY = "sloppy"
    WRONG = "wrong"


Flaws = Collection[Flaw]


def demonstrate(task: Task, config: DemonstrationConfig, rng: random.Random) -> str:
    """Answer a task with flaws drawn at the configured rates."""
    flaws = [flaw for flaw in Flaw if rng.random() < getattr(config, flaw.value)]
    return write_answer(task, flaws, rng)


def write_answer(task: Task, flaws: Flaws, rng: random.Random) -> str:
    """Answer a task with exactly these flaws, as far as its family can show them."""
    sentences = _WRITERS[task.family](task, flaws, rng)
    if Flaw.REPEATED in flaws and task.family != "letter":
        sentences.append(sentences[-1])
    if Flaw.RAMBLING in flaws:
        sentences.append(rng.choice(lexicon().pleasantries))
    text = " ".join(f"{capitalise(sentence)}{'' if sentence.endswith('?') else '.'}" for sentence in sentences)
    if Flaw.SLOPPY in flaws:
        text = text[:1].lower() + text[1:] if rng.random() < 0.5 else text.rstrip(".?")
    return text


def _some(items: list[str], asked: int, flaws: Flaws, rng: random.Random) -> list[str]:
    """Pick as many as asked for, or fewer when incomplete.

    Always in the order of `items`: a small model learns to go through a list sooner than to draw from a heap.
    """
    if Flaw.CURT in flaws or Flaw.INCOMPLETE in flaws:
        asked = rng.randint(1, asked - 1)
    return sorted(rng.sample(items, asked), key=items.index)


def _list(task: Task, flaws: Flaws, rng: random.Random) -> list[str]:
    words = lexicon()
    group = task["group"]
    if Flaw.WRONG in flaws:
        group = rng.choice([other for other in words.groups if other != group])
    members = [thing.the for thing in words.groups[group]]
    items = _some(members, min(NUMBERS.index(task["number"]), len(members)), flaws, rng)
    if Flaw.CURT in flaws:
        return [", ".join(items)]
    if len(items) == 1:
        return [f"one of the {task['group']} is {items[0]}"]
    return [f"some {task['group']} are {join_and(items)}"]


def _facts(task: Task, flaws: Flaws, rng: random.Random) -> list[str]:
    words = lexicon()
    thing = words.things[task["thing"]]
    aspects = task["ask"].split()
    if "fact" in aspects:
        aspects = ["class", rng.choice(["place", "colour"] if thing.colour else ["place"])]
    if Flaw.INCOMPLETE in flaws:
        aspects = aspects[:1]
    if Flaw.WRONG in flaws:
        thing = _impostor(thing, rng)
    if Flaw.CURT in flaws:
        return [_fragment(thing, aspects[0])]
    return [_claim(thing, aspect, "it" if n else thing.a) for n, aspect in enumerate(aspects)]


def _impostor(thing: Thing, rng: random.Random) -> Thing:
    """The thing with another one's attributes, and a wrong size."""
    alike = [other for other in lexicon().things.values() if bool(other.colour) == bool(thing.colour)]
    other = rng.choice([other for other in alike if other.category != thing.category])
    size = rng.choice([size for size in lexicon().sizes if size != thing.size])
    return Thing(thing.name, other.category, other.colour, other.place, size)


def _claim(thing: Thing, aspect: str, subject: str) -> str:
    words = lexicon()
    if aspect == "place":
        return words.place_claim(thing, subject)
    values = {"class": words.categories[thing.category].phrase, "colour": thing.colour, "size": thing.size}
    return f"{subject} is {values[aspect]}"


def _fragment(thing: Thing, aspect: str) -> str:
    if aspect == "place":
        return thing.place
    return {"class": lexicon().categories[thing.category].phrase, "colour": thing.colour, "size": thing.size}[aspect]


def _colours(task: Task, flaws: Flaws, rng: random.Random) -> list[str]:
    words = lexicon()
    things = [words.things[task["thing"]], words.things[task["other"]]]
    if Flaw.WRONG in flaws:
        things = [_impostor(thing, rng) for thing in things]
    if Flaw.CURT in flaws:
        return [join_and([thing.colour for thing in things])]
    if Flaw.INCOMPLETE in flaws:
        things = things[:1]
    return [join_and([f"{thing.a} is {thing.colour}" for thing in things])]


def _letter(task: Task, flaws: Flaws, rng: random.Random) -> list[str]:
    words = lexicon()
    kind, subject = task["topic"].split(": ")
    letter = words.letters[kind]
    name = rng.choice(words.names) if Flaw.WRONG in flaws else task["name"]
    body = letter.body.format(subject=subject)
    if Flaw.CURT in flaws:
        return [body]
    keep_warm = Flaw.INCOMPLETE not in flaws or rng.random() < 0.4
    keep_closing = Flaw.INCOMPLETE not in flaws or (rng.random() < 0.4 and not keep_warm)
    sentences = [f"Dear {name}, {body}"] + [letter.warm] * keep_warm
    sentences += [letter.warm] * (Flaw.REPEATED in flaws)
    return sentences + [f"Best wishes, {task['sender']}"] * keep_closing


def _rewrite(task: Task, flaws: Flaws, rng: random.Random) -> list[str]:
    words = lexicon()
    base, past = words.verbs[task["verb"]]
    quality, spot = task["quality"], task["spot"]
    if Flaw.INCOMPLETE in flaws:
        dropped = rng.choice(["quality", "spot", "both"])
        quality = quality if dropped == "spot" else ""
        spot = spot if dropped == "quality" else ""
    name = task["name"]
    if Flaw.WRONG in flaws:
        name = rng.choice(words.names)
    if Flaw.CURT in flaws:
        spot = quality = ""
    item = with_article(f"{quality} {task['item']}".strip())
    rest = f"{item} {spot}".strip()
    if task["mode"] == "question":
        return [f"does {name} {base} {rest}?"]
    return [f"{name} {past} {rest}" if task["mode"] == "past" else f"{name} does not {base} {rest}"]


def _comparison(task: Task, flaws: Flaws, rng: random.Random) -> list[str]:
    words = lexicon()
    more = words.comparatives[task["comparative"]]
    ranked = sorted([words.things[task["thing"]], words.things[task["other"]]], key=words.level)
    if more != (Flaw.WRONG in flaws):
        ranked.reverse()
    first, second = ranked
    if Flaw.CURT in flaws:
        return [first.a]
    claim = f"{first.a} is {task['comparative']} than {second.a}"
    levels = [f"{thing.a} is {thing.size}" for thing in ranked]
    if Flaw.INCOMPLETE in flaws:
        return [claim] if rng.random() < 0.7 else [claim, levels[0]]
    return [claim, join_and(levels)]


def _advice(task: Task, flaws: Flaws, rng: random.Random) -> list[str]:
    words = lexicon()
    topic = task["topic"]
    if Flaw.WRONG in flaws:
        topic = rng.choice([other for other in words.advice if other != topic])
    tips = join_and(_some(list(words.advice[topic]), NUMBERS.index(task["number"]), flaws, rng))
    return [tips if Flaw.CURT in flaws else f"to {task['topic']}, {tips}"]


def _counting(task: Task, flaws: Flaws, rng: random.Random) -> list[str]:
    category = lexicon().categories[task["category"]]
    items = [with_article(name) for name in task["items"].split(", ")]
    count = len(items)
    if Flaw.WRONG in flaws:
        count = rng.choice([other for other in (2, 3, 4) if other != count])
    total = f"{NUMBERS[count]} {category.plural}"
    if Flaw.CURT in flaws:
        return [total]
    if Flaw.INCOMPLETE in flaws:
        return [f"I see {join_and(items)}"]
    return [f"I see {join_and(items)}", f"that makes {total}"]


_WRITERS: dict[str, Callable[[Task, Flaws, random.Random], list[str]]] = {
    "list": _list,
    "definition": _facts,
    "colour": _facts,
    "colours": _colours,
    "place": _facts,
    "size": _facts,
    "whereabouts": _facts,
    "letter": _letter,
    "rewrite": _rewrite,
    "comparison": _comparison,
    "advice": _advice,
    "counting": _counting,
}

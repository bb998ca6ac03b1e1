"""One judge per family: hold an answer's sentences against what the task asked.

In: a task and an answer's sentences (lower case, no end marks). Out: a `Reading`. A judge accepts the sentence
patterns of its family with any words in the slots, and checks the words against the lexicon; a sentence it cannot
read says nothing about the task.
"""

from __future__ import annotations

import re
from collections.abc import Callable, Sequence
from functools import cache

from alpaca_farm_core.meadow.gold.facts import judge_colours, judge_comparison, judge_facts
from alpaca_farm_core.meadow.gold.reading import Reading, Sentence, split_items
from alpaca_farm_core.meadow.grammar import Task
from alpaca_farm_core.meadow.lexicon import NUMBERS, lexicon, with_article

Judge = Callable[[Task, Sequence[str]], Reading]


def judge(task: Task, sentences: Sequence[str]) -> Reading:
    """Read an answer to `task`.

    Pleasantries are whole sentences that say nothing; a sentence said before says nothing new.
    """
    reading = _JUDGES[task.family](task, sentences)
    polite = {pleasantry.lower() for pleasantry in lexicon().pleasantries}
    read = []
    for n, (text, found) in enumerate(zip(sentences, reading.sentences, strict=True)):
        first = sentences.index(text)
        said_before = first < n and reading.sentences[first].truth != 0.0  # an error said twice is two errors
        empty = said_before or found.truth is None
        read.append(Sentence(None, found.whole or text in polite) if empty else found)
    return Reading(read, reading.complete, reading.items, reading.expected_words, reading.manners)


STRAY = Sentence(None, False)


def _judge_items(
    sentences: Sequence[str], asked: int, right: set[str], known: set[str], lead: str, expected_words: float
) -> Reading:
    """Judge a choice of `asked` items out of `right`, in the sentence "{lead} x, y and z" or as a bare fragment.

    Items beyond `asked` and repeated ones are not right. A stated number must be the number of items.
    """
    found: list[Sentence] = []
    named: list[str] = []
    for sentence in sentences:
        match = re.fullmatch(lead + "(?P<items>.+)", sentence)
        groups = match.groupdict() if match else {}
        items = split_items(groups["items"] if match else sentence)
        if not set(items) & known:
            found.append(STRAY)
            continue
        good = 0
        for item in items:
            good += item in right and item not in named and len(named) < asked
            named.append(item)
        stated = groups.get("number")
        honest = stated is None or NUMBERS.index(stated) == len(items)
        found.append(Sentence(good / len(items) * (1.0 if honest else 0.5), match is not None))
    complete = len(set(named[:asked]) & right) / asked
    return Reading(found, complete, named, expected_words)


def _judge_list(task: Task, sentences: Sequence[str]) -> Reading:
    words = lexicon()
    group = task["group"]
    asked = NUMBERS.index(task["number"])
    right = {thing.the for thing in words.groups[group]}
    phrase = re.escape(group)
    lead = rf"(?:(?:some |(?P<number>{'|'.join(NUMBERS)}) )?{phrase} are |one of the {phrase} is )"
    known = {thing.the for thing in words.things.values()}
    return _judge_items(sentences, asked, right, known, lead, len(group.split()) + 3 + 2 * asked)


def _judge_advice(task: Task, sentences: Sequence[str]) -> Reading:
    words = lexicon()
    topic = task["topic"]
    asked = NUMBERS.index(task["number"])
    known = {tip for tips in words.advice.values() for tip in tips}
    tip_words = sum(len(tip.split()) for tip in words.advice[topic]) / len(words.advice[topic])
    expected = len(topic.split()) + 2 + asked * tip_words
    return _judge_items(sentences, asked, set(words.advice[topic]), known, f"to {re.escape(topic.lower())}, ", expected)


def _judge_letter(task: Task, sentences: Sequence[str]) -> Reading:
    """Body counts two parts; greeting, warm sentence and closing count one each."""
    words = lexicon()
    kind, subject = task["topic"].split(": ")
    letter = words.letters[kind]
    body, warm = letter.body.format(subject=subject).lower(), letter.warm.lower()
    closing = f"best wishes, {task['sender'].lower()}"
    foreign = {other.warm.lower() for other in words.letters.values()} - {warm}
    bodies = {k.body.format(subject=s).lower() for k in words.letters.values() for s in k.subjects}
    parts: list[str] = []
    found: list[Sentence] = []
    for n, sentence in enumerate(sentences):
        greeting = re.fullmatch(r"dear ([a-z]+), (.+)", sentence)
        rest = greeting[2] if greeting else sentence
        if rest in bodies:
            right_name = greeting is None or greeting[1] == task["name"].lower()
            found.append(Sentence((rest == body) * (1.0 if right_name else 0.5), True))
            parts += ["greeting"] * bool(greeting and right_name and n == 0) + [rest]
        elif sentence in (warm, closing):
            found.append(Sentence(1.0, True))
            parts.append(sentence)
        elif sentence in foreign or sentence.startswith("best wishes, "):
            found.append(Sentence(0.0, True))
            parts.append(sentence)
        else:
            found.append(STRAY)
    signed = bool(sentences) and sentences[-1] == closing
    complete = (2 * (body in parts) + ("greeting" in parts) + (warm in parts) + signed) / 5
    expected = len(f"dear x {body} {warm} best wishes x".split())
    return Reading(found, complete, parts, expected, ("greeting" in parts, signed))


@cache
def _rewrite_patterns() -> dict[str, re.Pattern[str]]:
    """How a rewritten sentence reads in each mode, and `source` for the sentence as it was."""
    words = lexicon()
    names = "|".join(words.names).lower()
    base = "|".join(base for base, _ in words.verbs.values())
    past = "|".join(past for _, past in words.verbs.values())
    present = "|".join(words.verbs)
    rest = (
        rf"(?P<article>an?) (?:(?P<quality>{'|'.join(words.adjectives)}) )?(?P<item>{'|'.join(words.objects)})"
        rf"(?: (?P<spot>{'|'.join(words.spots)}))?"
    )
    return {
        "past": re.compile(rf"(?P<name>{names}) (?P<verb>{past}) {rest}"),
        "question": re.compile(rf"does (?P<name>{names}) (?P<verb>{base}) {rest}"),
        "negative": re.compile(rf"(?P<name>{names}) does not (?P<verb>{base}) {rest}"),
        "source": re.compile(rf"(?P<name>{names}) (?P<verb>{present}) {rest}"),
    }


def _judge_rewrite(task: Task, sentences: Sequence[str]) -> Reading:
    """The first readable sentence is the answer: share of its parts that are the source's.

    A wrong name, verb or object makes it another sentence and halves that; another mode is wrong altogether.
    """
    base, past = lexicon().verbs[task["verb"]]
    wanted = {
        "name": task["name"].lower(),
        "verb": past if task["mode"] == "past" else base,
        "quality": task["quality"],
        "item": task["item"],
        "spot": task["spot"],
    }
    found: list[Sentence] = []
    complete = 0.0
    items: list[str] = []
    for sentence in sentences:
        match = _rewrite_patterns()[task["mode"]].fullmatch(sentence)
        if match is None:
            wrong_mode = any(pattern.fullmatch(sentence) for pattern in _rewrite_patterns().values())
            found.append(Sentence(0.0, True) if wrong_mode else STRAY)
            continue
        kept = {part: match[part] for part in wanted if match[part]}
        right = sum(wanted[part] == word for part, word in kept.items())
        article = with_article(kept.get("quality", kept["item"])).split()[0]
        same_sentence = all(kept[part] == wanted[part] for part in ("name", "verb", "item"))
        found.append(Sentence(right / len(kept) * (1.0 if same_sentence else 0.5), match["article"] == article))
        if not items:
            complete = right / len(wanted)
        items.append(sentence)
    expected = 6 + len(task["spot"].split()) - 1 + {"past": 0, "question": 1, "negative": 2}[task["mode"]]
    return Reading(found, complete, items, expected)


def _judge_counting(task: Task, sentences: Sequence[str]) -> Reading:
    """Naming the items is one half, their number the other."""
    words = lexicon()
    plural = words.categories[task["category"]].plural
    right = {with_article(name) for name in task["items"].split(", ")}
    known = {thing.a for thing in words.things.values()}
    nouns = "|".join(category.plural for category in words.categories.values())
    found: list[Sentence] = []
    items: list[str] = []
    numbers: list[str] = []
    for sentence in sentences:
        seen = re.fullmatch(r"i see (.+)", sentence)
        total = re.fullmatch(rf"(that makes )?({'|'.join(NUMBERS)})(?: ({nouns}))?", sentence)
        if seen and set(split_items(seen[1])) & known:
            parts = split_items(seen[1])
            good = sum(part in right and part not in items + parts[:n] for n, part in enumerate(parts))
            found.append(Sentence(good / len(parts), True))
            items += parts
        elif total:
            fits = total[2] == NUMBERS[len(right)] and total[3] in (None, plural)
            found.append(Sentence(float(fits), bool(total[1] and total[3])))
            numbers.append(sentence if fits else "wrong")
        else:
            found.append(STRAY)
    named = len(set(items) & right) / max(len(set(items) | right), 1)
    counted = bool(numbers) and "wrong" not in numbers
    return Reading(found, (named + counted) / 2, items + numbers, 5 + 3 * len(right))


_JUDGES: dict[str, Judge] = {
    "list": _judge_list,
    "definition": judge_facts,
    "colour": judge_facts,
    "colours": judge_colours,
    "place": judge_facts,
    "size": judge_facts,
    "whereabouts": judge_facts,
    "letter": _judge_letter,
    "rewrite": _judge_rewrite,
    "comparison": judge_comparison,
    "advice": _judge_advice,
    "counting": _judge_counting,
}

"""Which pairs share a prompt, and which part of the answer belongs to which pair.

In: pairs in the order they are shown in. Out: questions (a prompt each), and from a question's answer a
verdict per pair. Knows neither models nor caches.
"""

from __future__ import annotations

import re
from collections.abc import Mapping, Sequence
from dataclasses import dataclass, replace
from typing import Literal

from alpaca_farm_core.annotators.parsers import Parser, Said, Verdict
from alpaca_farm_core.annotators.prompts import JudgePrompt
from alpaca_farm_core.annotators.spec import AnnotatorSpec
from alpaca_farm_core.seeding import stable_uniform
from alpaca_farm_core.types import Pair

# Fills up the last prompt of a template that has a fixed number of places; its verdict is thrown away.
_FILLER = Pair("What is one and one?", "", "2", "3")
_FILLER_WITH_INPUT = Pair("Add up the numbers.", "1, 1", "2", "3")
_HEADING = re.compile(r"^[ \t>*#-]*(?:example|pair|answer)?[ \t]*#?(\d{1,3})[ \t]*[.:)\]-]", re.MULTILINE | re.I)


@dataclass(frozen=True)
class Shown:
    """A pair, and which of its outputs the judge reads first."""

    pair: Pair
    first: Literal[1, 2]

    @property
    def as_shown(self) -> Pair:
        """The pair with its outputs in the order shown."""
        if self.first == 1:
            return self.pair
        pair = self.pair
        return Pair(
            pair.instruction,
            pair.input,
            pair.output_2,
            pair.output_1,
            pair.dataset,
            pair.finished_2,
            pair.finished_1,
        )


@dataclass(frozen=True)
class Question:
    """One prompt of one annotator about one or several pairs."""

    spec: AnnotatorSpec
    prompt: JudgePrompt
    shown: tuple[Shown, ...]

    @property
    def n_places(self) -> int:
        """Pairs in the prompt, fillers included."""
        return len(self.shown) if self.prompt.repeats else self.prompt.batch_size

    def messages(self) -> tuple[Mapping[str, str], ...]:
        """The rendered prompt."""
        filler = _FILLER_WITH_INPUT if self.prompt.takes_input else _FILLER
        pairs = [one.as_shown for one in self.shown]
        return self.prompt.render([*pairs, *[filler] * (self.n_places - len(pairs))])

    def read(self, said: Said) -> list[Verdict | None]:
        """Give each pair its verdict; None where the answer leaves open which one it is."""
        found = _align(self.spec.parser, said, self.n_places, self.prompt.repeats)
        return found[: len(self.shown)]

    def alone(self) -> list[Question]:
        """Ask about each pair by itself."""
        return [replace(self, shown=(one,)) for one in self.shown]


def compose(spec: AnnotatorSpec, shown: Sequence[Shown], seed: int) -> list[Question]:
    """Put pairs into prompts.

    Pairs of one prompt are chosen by a seeded order of their texts, so that the prompts depend on which
    pairs there are, not on the order they come in.
    """
    two_prompts = spec.with_input != spec.without_input
    groups: dict[bool, list[Shown]] = {}
    for one in shown:
        groups.setdefault(two_prompts and bool(one.pair.input), []).append(one)
    questions = []
    for members in groups.values():
        prompt = spec.prompt_for(members[0].pair)
        ordered = members if spec.batch_size == 1 else sorted(members, key=lambda one: _place(one.pair, seed))
        for start in range(0, len(ordered), spec.batch_size):
            questions.append(Question(spec, prompt, tuple(ordered[start : start + spec.batch_size])))
    return questions


def _place(pair: Pair, seed: int) -> float:
    return stable_uniform("batch", seed, pair.instruction, pair.input, pair.output_1, pair.output_2)


def _align(parser: Parser, said: Said, n: int, numbered: bool) -> list[Verdict | None]:
    """Assign verdicts to the n places of a prompt.

    As many verdicts as places: in order, or by the numbers they give. Otherwise by their numbers, or by
    the numbered lines they stand under where the prompt numbers its pairs; a place that is claimed by
    none or by two stays open.
    """
    verdicts = parser(said)
    numbers = [verdict.number for verdict in verdicts]
    if len(verdicts) == n:
        if sorted(number or 0 for number in numbers) == list(range(1, n + 1)):
            return [verdict for _, verdict in sorted(zip(numbers, verdicts, strict=True), key=lambda one: one[0] or 0)]
        return list(verdicts)
    if n == 1 or not numbered:
        return [None] * n
    if verdicts and all(number is not None for number in numbers):
        claims = list(zip(numbers, verdicts, strict=True))
    else:
        claims = _by_headings(parser, said.text)
    places: list[Verdict | None] = []
    for number in range(1, n + 1):
        own = [verdict for claimed, verdict in claims if claimed == number]
        places.append(own[0] if len(own) == 1 else None)
    return places


def _by_headings(parser: Parser, text: str) -> list[tuple[int | None, Verdict]]:
    """Cut a text at its numbered lines; a part with exactly one verdict gives it to its number."""
    headings = list(_HEADING.finditer(text))
    ends = [*(heading.start() for heading in headings[1:]), len(text)][: len(headings)]
    claims: list[tuple[int | None, Verdict]] = []
    for heading, end in zip(headings, ends, strict=True):
        inside = parser(Said(text[heading.end() : end]))
        claims += [(int(heading.group(1)), verdict) for verdict in inside] if len(inside) == 1 else []
    return claims

"""Slots that several task families share: plain words, and things in the ways a question can name them.

In: the lexicon. Out: `Slot`s for the families' templates.
"""

from __future__ import annotations

from collections.abc import Sequence

from alpaca_farm_core.meadow.grammar import Slot
from alpaca_farm_core.meadow.lexicon import Thing, capitalise, lexicon


def plain(words: Sequence[str]) -> Slot:
    """Words that are written as they are."""
    return Slot({"": {word: word for word in words}})


def thing_slot(things: Sequence[Thing]) -> Slot:
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


def all_things() -> list[Thing]:
    """Return every thing of the lexicon."""
    return list(lexicon().things.values())


def coloured() -> list[Thing]:
    """Return the things that have a colour to ask for."""
    return [thing for thing in all_things() if thing.colour]

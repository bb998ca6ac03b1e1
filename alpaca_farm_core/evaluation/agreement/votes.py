"""Judgements of the same pairs by two parties, side by side.

In: labelled pairs of each party, in any order, with repeats, a pair perhaps the other way round. Out: one
ballot per pair that both judged. Matches by content; knows no statistics.
"""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from dataclasses import dataclass, field
from typing import Any

from alpaca_farm_core.data.preference_files import LabelledPair
from alpaca_farm_core.errors import DataError
from alpaca_farm_core.types import Pair

Category = float
"""1 (output 1 better), 2 (output 2), or 1.5 (tie)."""


@dataclass
class Ballot:
    """All labels of one pair.

    Attributes:
        pair: The pair, as the reference has it.
        judge: The judge's labels, in [1, 2].
        reference: The reference's labels, in [1, 2].
        prefers_first: How far the judge went for the output it read first, in [0, 1], where its rows tell.
    """

    pair: Pair
    judge: list[float] = field(default_factory=list)
    reference: list[float] = field(default_factory=list)
    prefers_first: list[float] = field(default_factory=list)


@dataclass(frozen=True)
class Joined:
    """Ballots of the pairs that both parties labelled, and counts of the rest.

    Attributes:
        ballots: In the reference's order.
        n_without_judge: Pairs that only the reference labelled.
        n_without_reference: Pairs that only the judge labelled.
        n_missing: Rows without a label, on either side.
    """

    ballots: list[Ballot]
    n_without_judge: int
    n_without_reference: int
    n_missing: int


def category(label: float) -> Category:
    """Round a label to a side, or to a tie at exactly 1.5."""
    return 1.5 if label == 1.5 else 1.0 if label < 1.5 else 2.0


def join(judge: Sequence[LabelledPair], reference: Sequence[LabelledPair]) -> Joined:
    """Match two parties' labels by instruction, input and outputs; a mirrored pair's labels are turned round.

    Raises:
        DataError: they have no labelled pair in common.
    """
    ballots: dict[tuple[str, ...], Ballot] = {}
    for one in reference:
        if one.preference is not None:
            ballots.setdefault(_key(one.pair), Ballot(one.pair))
            _add(ballots[_key(one.pair)], one, "reference")
    foreign: set[tuple[str, ...]] = set()
    for one in judge:
        if one.preference is None:
            continue
        if _key(one.pair) in ballots:
            _add(ballots[_key(one.pair)], one, "judge")
        else:
            foreign.add(_key(one.pair))
    both = [ballot for ballot in ballots.values() if ballot.judge]
    if not both:
        raise DataError(
            f"The judge's {len(judge)} rows and the reference's {len(reference)} have no labelled pair in common.",
            "Give labels of the same instruction and the same two outputs.",
        )
    n_missing = sum(one.preference is None for one in (*judge, *reference))
    return Joined(both, len(ballots) - len(both), len(foreign), n_missing)


def _key(pair: Pair) -> tuple[str, ...]:
    return (pair.instruction, pair.input, *sorted((pair.output_1, pair.output_2)))


def _add(ballot: Ballot, one: LabelledPair, party: str) -> None:
    assert one.preference is not None
    mirrored = one.pair.output_1 != ballot.pair.output_1
    getattr(ballot, party).append(3 - one.preference if mirrored else one.preference)
    passport: Any = one.row.get("passport")
    first = passport.get("prefers_first") if isinstance(passport, Mapping) else None
    if party == "judge" and isinstance(first, (int, float)):
        ballot.prefers_first.append(float(first))

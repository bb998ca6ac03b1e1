"""A judge's agreement with people, or with another judge: figures with intervals, as plain data.

In: labelled pairs of both. Out: a dictionary for JSON. Shares are in [0, 1].
"""

from __future__ import annotations

from collections.abc import Sequence
from typing import Any

import numpy as np

from alpaca_farm_core.data.preference_files import LabelledPair
from alpaca_farm_core.evaluation.agreement.measures import MEASURES, confusion, kappa
from alpaca_farm_core.evaluation.agreement.votes import Ballot, join
from alpaca_farm_core.evaluation.bootstrap import bootstrap, ratio


def measure_agreement(
    judge: Sequence[LabelledPair], reference: Sequence[LabelledPair], *, draws: int = 2000, seed: int = 0
) -> dict[str, Any]:
    """Measure a judge against a reference.

    Args:
        judge: Its labels; several of one pair (other seeds) give its variance.
        reference: The people's labels, or another judge's; several of one pair give the ceiling.
        draws: Resamples of the bootstrap.
        seed: Of the bootstrap.

    Returns:
        `n_pairs`, `n_judge_labels`, `n_reference_labels`, counts of what was left out, and per measure of
        `measures.MEASURES`, and `kappa`, its `value`, `interval` (95 %, bootstrap over instructions) and `n` (labels
        or pairs it rests on); None where it cannot be measured.

    Raises:
        DataError: no labelled pair in common.
    """
    joined = join(judge, reference)
    groups: dict[str, list[Ballot]] = {}
    for ballot in joined.ballots:
        groups.setdefault(ballot.pair.id, []).append(ballot)
    clusters = list(groups.values())
    figures = {name: _share(clusters, name, draws, seed) for name in MEASURES}
    return {
        "n_pairs": len(joined.ballots),
        "n_instructions": len(clusters),
        "n_judge_labels": sum(len(ballot.judge) for ballot in joined.ballots),
        "n_reference_labels": sum(len(ballot.reference) for ballot in joined.ballots),
        "n_judge_ties": sum(ballot.judge.count(1.5) for ballot in joined.ballots),
        "n_reference_ties": sum(ballot.reference.count(1.5) for ballot in joined.ballots),
        "n_without_judge": joined.n_without_judge,
        "n_without_reference": joined.n_without_reference,
        "n_missing": joined.n_missing,
        **figures,
        "kappa": _kappa(clusters, draws, seed),
    }


def _share(clusters: Sequence[Sequence[Ballot]], name: str, draws: int, seed: int) -> dict[str, Any]:
    sums = np.array([np.sum([MEASURES[name](ballot) for ballot in cluster], axis=0) for cluster in clusters])
    total = sums.sum(axis=0)
    if not total[1]:
        return {"value": None, "interval": None, "n": 0}
    spread = bootstrap(sums, ratio, draws, seed)
    return {"value": float(ratio(total)), "interval": list(spread) if spread else None, "n": int(total[1])}


def _kappa(clusters: Sequence[Sequence[Ballot]], draws: int, seed: int) -> dict[str, Any]:
    tables = np.array([np.sum([confusion(ballot) for ballot in cluster], axis=0) for cluster in clusters])
    value = float(kappa(tables.sum(axis=0)))
    flat = tables.reshape(len(tables), 9)
    spread = bootstrap(flat, lambda sums: kappa(sums.reshape(-1, 3, 3)), draws, seed)
    known = None if np.isnan(value) else value
    return {
        "value": known,
        "interval": list(spread) if spread and known is not None else None,
        "n": int(tables.sum()),
    }

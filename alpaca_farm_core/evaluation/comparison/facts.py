"""What the comparison states, as plain data without times or machines.

In: the artifacts of every seed and method by role. Out: the content of `comparison.json`: one row per method with
intervals over seeds and instructions, the paired difference to the next row, and the best-of-n curves. Nothing is
computed while drawing.
"""

from __future__ import annotations

from collections.abc import Iterable, Mapping
from dataclasses import dataclass, field
from statistics import fmean
from typing import Any

from alpaca_farm_core.artifacts.files import read_json, read_jsonl
from alpaca_farm_core.artifacts.manifest import Artifact
from alpaca_farm_core.errors import DataError
from alpaca_farm_core.evaluation.comparison.config import ComparisonConfig
from alpaca_farm_core.evaluation.comparison.paper import PAPER_WIN_RATES
from alpaca_farm_core.evaluation.files import ANNOTATIONS, GOLD
from alpaca_farm_core.evaluation.gold import TIE, score_output
from alpaca_farm_core.evaluation.two_way import Scores, difference, two_way
from alpaca_farm_core.evaluation.win_rate import to_score
from alpaca_farm_core.meadow.families import parse
from alpaca_farm_core.methods.best_of_n.estimator import best_of_n_curve, kl_of_best_of_n
from alpaca_farm_core.types import Output, instruction_id

SFT = "sft"


@dataclass
class Entry:
    """One method over all seeds.

    Attributes:
        method: Its name.
        judged: (seed, instruction) → 1 where the judge prefers it to the SFT model's answer, 0.5 for a draw.
        gold: The same by gold utility.
        utility: (seed, instruction) → gold utility minus the SFT model's.
        measured: Metrics of the stage `measure`, one per seed.
        made: Metrics of the artifact that the method yields, one per seed.
        n_missing: Pairs without annotation.
    """

    method: str
    judged: dict[tuple[int, str], float] = field(default_factory=dict)
    gold: dict[tuple[int, str], float] = field(default_factory=dict)
    utility: dict[tuple[int, str], float] = field(default_factory=dict)
    measured: list[Mapping[str, Any]] = field(default_factory=list)
    made: list[Mapping[str, Any]] = field(default_factory=list)
    n_missing: int = 0


def by_role(inputs: Mapping[str, Artifact], prefix: str) -> dict[tuple[int, str], Artifact]:
    """(seed, method) → artifact of the roles `<prefix>_<seed>_<method>`."""
    found = {}
    for role, artifact in inputs.items():
        if role.startswith(f"{prefix}_"):
            seed, method = role.removeprefix(f"{prefix}_").split("_", 1)
            found[int(seed), method] = artifact
    return found


def build_facts(config: ComparisonConfig, inputs: Mapping[str, Artifact]) -> dict[str, Any]:
    """Everything that the comparison states.

    Raises:
        DataError: nothing was evaluated, or the evaluations were judged by different annotators.
    """
    evaluations = by_role(inputs, "evaluation")
    annotators = sorted({str(artifact.metrics["annotator"]) for artifact in evaluations.values()})
    if len(annotators) != 1:
        found = ", ".join(annotators) or "none"
        raise DataError(f"A comparison needs one annotator; found: {found}.", "Judge all methods by the same one.")
    entries = [_entry(method, inputs) for method in config.methods if method != SFT]
    has_gold = any(entry.gold for entry in entries)
    rows = [_row(entry, config) for entry in entries] + [_sft_row(inputs, config)]
    basis = "gold_win_rate" if has_gold else "win_rate"
    rows.sort(key=lambda row: (-(row[basis] if row[basis] is not None else -1.0), row["method"]))
    _add_neighbours(rows, {entry.method: entry for entry in entries}, has_gold)
    return {
        "title": config.title,
        "annotator": annotators[0],
        "seeds": list(config.seeds),
        "basis": basis,
        "rows": rows,
        "best_of_n": best_of_n_rows(inputs),
        "policies": [_moved(row) for row in rows if row["kl"] is not None],
    }


def _entry(method: str, inputs: Mapping[str, Artifact]) -> Entry:
    entry = Entry(method)
    for (seed, name), artifact in sorted(by_role(inputs, "evaluation").items()):
        if name != method:
            continue
        for number, row in enumerate(read_json(artifact.path / ANNOTATIONS)):
            score = to_score(row["preference"], number, "annotations")
            if score is None:
                entry.n_missing += 1
            else:
                entry.judged[seed, instruction_id(row["instruction"], row["input"])] = score
        path = artifact.path / GOLD
        for row in read_json(path)["rows"] if path.exists() else []:
            gain = row["utility_model"] - row["utility_reference"]
            entry.utility[seed, row["id"]] = gain
            entry.gold[seed, row["id"]] = 0.5 if abs(gain) <= TIE else float(gain > 0)
    entry.measured = [a.metrics for (_, name), a in sorted(by_role(inputs, "measured").items()) if name == method]
    entry.made = [a.metrics for (_, name), a in sorted(by_role(inputs, "made").items()) if name == method]
    return entry


def _row(entry: Entry, config: ComparisonConfig) -> dict[str, Any]:
    judged = two_way(entry.judged).scaled(100) if entry.judged else None
    gold = two_way(entry.gold).scaled(100) if entry.gold else None
    gain = two_way(entry.utility).scaled(1) if entry.utility else None
    return {
        "method": entry.method,
        "n_seeds": len(config.seeds),
        **_columns("win_rate", judged),
        **_columns("gold_win_rate", gold),
        **_columns("gold_gain", gain),
        **_measured(entry.measured),
        "kl": mean_of(entry.measured, "kl", mean_of(entry.made, "kl")),
        "n_missing": entry.n_missing,
        "paper": PAPER_WIN_RATES.get(entry.method) if config.paper_table else None,
    }


def _sft_row(inputs: Mapping[str, Artifact], config: ComparisonConfig) -> dict[str, Any]:
    """The baseline: 50 by definition, no interval."""
    measured = [artifact.metrics for (_, name), artifact in sorted(by_role(inputs, "measured").items()) if name == SFT]
    has_gold = any("gold_win_rate" in artifact.metrics for artifact in by_role(inputs, "evaluation").values())
    return {
        "method": SFT,
        "n_seeds": len(config.seeds),
        **_columns("win_rate", {"mean": 50.0}),
        **_columns("gold_win_rate", {"mean": 50.0} if has_gold else None),
        **_columns("gold_gain", {"mean": 0.0} if has_gold else None),
        **_measured(measured),
        "kl": 0.0,
        "n_missing": 0,
        "paper": PAPER_WIN_RATES[SFT] if config.paper_table else None,
    }


def _columns(name: str, figures: Mapping[str, Any] | None) -> dict[str, Any]:
    known = figures or {}
    return {
        name: known.get("mean"),
        f"{name}_se": known.get("standard_error"),
        f"{name}_interval": known.get("interval"),
        f"{name}_seed_spread": known.get("seed_spread"),
    }


def _measured(metrics: Iterable[Mapping[str, Any]]) -> dict[str, Any]:
    found = list(metrics)
    return {name: mean_of(found, name) for name in ("reward", "tokens_mean", "finished_share")}


def mean_of(metrics: Iterable[Mapping[str, Any]], name: str, otherwise: float | None = None) -> float | None:
    """Mean of a metric over the artifacts that state it."""
    stated = [float(one[name]) for one in metrics if isinstance(one.get(name), int | float)]
    return fmean(stated) if stated else otherwise


def _add_neighbours(rows: list[dict[str, Any]], entries: Mapping[str, Entry], gold: bool) -> None:
    """To each row the paired difference to the row below it, in points of win rate against SFT."""
    for place, row in enumerate(rows):
        row["over_next"] = row["over_next_interval"] = None
        if place + 1 == len(rows):
            continue
        found = difference(*(_scores(name, entries, gold) for name in (row["method"], rows[place + 1]["method"])))
        if found is not None:
            figures = found.scaled(100)
            row["over_next"], row["over_next_interval"] = figures["mean"], figures["interval"]


def _scores(method: str, entries: Mapping[str, Entry], gold: bool) -> Scores:
    """Scores of a method; of the SFT model 0.5 wherever another method was compared with it."""
    if method in entries:
        return entries[method].gold if gold else entries[method].judged
    return {key: 0.5 for entry in entries.values() for key in (entry.gold if gold else entry.judged)}


def _moved(row: Mapping[str, Any]) -> dict[str, Any]:
    return {name: row[name] for name in ("method", "kl", "reward", "gold_win_rate", "gold_gain", "win_rate")}


def best_of_n_rows(inputs: Mapping[str, Artifact]) -> list[dict[str, Any]]:
    """For each n: KL(n), expected proxy reward, and gold utility of the sample the reward model would choose.

    Averages over instructions and seeds; gold only for instructions of the embedded world. Empty without best-of-n.
    """
    proxies: list[list[float]] = []
    golds: list[list[float]] = []
    for artifact in (artifact for (_, _), artifact in sorted(by_role(inputs, "made").items())):
        path = artifact.path / "samples.jsonl"
        if artifact.kind != "outputs" or not path.exists():
            continue
        groups: dict[str, list[dict[str, Any]]] = {}
        for row in read_jsonl(path):
            groups.setdefault(instruction_id(row["instruction"], row["input"]), []).append(row)
        for group in groups.values():
            rewards = [row["reward"] for row in group]
            proxies.append(best_of_n_curve(rewards))
            if parse(group[0]["instruction"], group[0]["input"]) is not None:
                golds.append(best_of_n_curve(rewards, [_utility(row) for row in group]))
    if not proxies:
        return []
    return [
        {
            "n": place + 1,
            "kl": kl_of_best_of_n(place + 1),
            "reward": fmean(curve[place] for curve in proxies),
            "gold_utility": fmean(curve[place] for curve in golds) if golds else None,
        }
        for place in range(min(map(len, proxies)))
    ]


def _utility(row: Mapping[str, Any]) -> float:
    return score_output(Output(**{name: row[name] for name in Output.__dataclass_fields__})).total

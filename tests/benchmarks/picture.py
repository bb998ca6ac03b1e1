"""The benchmarks' picture: times as fast as the peer, one bar per table, as an SVG file; and the README's table.

    python -m tests.benchmarks.picture [training.json decoding.json …] [-o benchmarks.svg]

A table takes part when it has a `times_as_fast…` ratio; several ratios of a table (the peer as it is, the peer tuned)
are several bars. The table of training goes to standard output as Markdown.
"""

from __future__ import annotations

import argparse
import json
from collections.abc import Mapping, Sequence
from pathlib import Path
from typing import Any

from alpaca_farm_core.evaluation.report.charts import bars
from tests.benchmarks.frame import HERE

PREFIX = "times_as_fast"


def collect(files: Sequence[Path]) -> dict[str, dict[str, float]]:
    """Table → what it is compared with → median ratio."""
    found: dict[str, dict[str, float]] = {}
    for file in files:
        tables: Mapping[str, Mapping[str, Any]] = json.loads(file.read_text()).get("tables", {})
        for name, table in tables.items():
            ratios = {key: value["median"] for key, value in table.items() if key.startswith(PREFIX)}
            if ratios:
                found[name] = {key.removeprefix(PREFIX).removeprefix("_as_"): ratios[key] for key in ratios}
    return found


def draw(tables: Mapping[str, Mapping[str, float]]) -> str:
    """The picture; 1 is the peer's speed."""
    peers = list(dict.fromkeys(peer for ratios in tables.values() for peer in ratios))
    series = [(peer or "peer", [ratios.get(peer) for ratios in tables.values()]) for peer in peers]
    return bars(list(tables), series, "times as fast as the peer", standalone=True)


def markdown(tables: Mapping[str, Mapping[str, Any]]) -> str:
    """Training tables: speed and memory beside TRL as it is and tuned, and the share of what bare passes reach."""
    lines = [
        "| | times as fast as TRL | as TRL tuned | memory beyond state, of TRL's | of bare passes: ours, TRL |",
        "| --- | --- | --- | --- | --- |",
    ]
    for name, table in tables.items():
        if "memory_beyond_of_trl" not in table:
            continue
        tuned = _ratio(table["times_as_fast_as_trl_best"]) if "times_as_fast_as_trl_best" in table else "–"
        shares = ", ".join(f"{100 * table[key]['median']:.0f} %" for key in ("share_of_bare", "trl_share_of_bare"))
        speed, memory = _ratio(table["times_as_fast_as_trl"]), f"{table['memory_beyond_of_trl']['median']:.2f}"
        lines.append(f"| {name} | {speed} | {tuned} | {memory} | {shares} |")
    return "\n".join(lines)


def _ratio(found: Mapping[str, float]) -> str:
    return f"{found['median']:.1f} ({found['lowest']:.1f}–{found['highest']:.1f})"


def main() -> None:
    parser = argparse.ArgumentParser(description="The benchmarks' picture.")
    parser.add_argument("files", nargs="*", type=Path)
    parser.add_argument("-o", "--out", type=Path, default=HERE / "benchmarks.svg")
    options = parser.parse_args()
    files = options.files or [path for path in (HERE / "training.json", HERE / "decoding.json") if path.is_file()]
    options.out.write_text(draw(collect(files)), encoding="utf-8")
    print(markdown({name: table for file in files for name, table in json.loads(file.read_text())["tables"].items()}))


if __name__ == "__main__":
    main()

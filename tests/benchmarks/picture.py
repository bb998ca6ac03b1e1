"""The benchmarks' picture: times as fast as the peer, one bar per table, as an SVG file.

    python -m tests.benchmarks.picture [training.json decoding.json …] [-o benchmarks.svg]

A table takes part when it has a `times_as_fast…` ratio; several ratios of a table (the peer as it is, the peer tuned)
are several bars.
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


def main() -> None:
    parser = argparse.ArgumentParser(description="The benchmarks' picture.")
    parser.add_argument("files", nargs="*", type=Path)
    parser.add_argument("-o", "--out", type=Path, default=HERE / "benchmarks.svg")
    options = parser.parse_args()
    files = options.files or [path for path in (HERE / "training.json", HERE / "decoding.json") if path.is_file()]
    options.out.write_text(draw(collect(files)), encoding="utf-8")


if __name__ == "__main__":
    main()

"""How long scoring takes: `python -m tests.benchmarks.score [--rows 1000000] [--text 100] [-o OUT.json]`.

Three commands as a user types them, each in a process of its own: a million annotations; 805 with a
length-controlled prediction; 805 with the cross-validated refit. Start-up (the same command with nothing
to do, and for the refit the import of scikit-learn) is measured beside and taken off. Prints JSON with
machine and versions.
"""

from __future__ import annotations

import argparse
import json
import os
import platform
import random
import statistics
import subprocess
import sys
import tempfile
import time
from importlib.metadata import version
from pathlib import Path

from tests.evaluation.annotation_rows import GAMED_HEADER, gamed_table, made_up, write_csv, write_json

LIMITS_S = {"million": 5.0, "prediction": 1.0, "refit": 3.0}


def write_million(path: Path, rows: int, text: int) -> None:
    """Annotations of ten models with texts of about `text` characters, written row by row."""
    rng = random.Random(0)
    words = [f"word{i}" for i in range(997)]
    with path.open("w", encoding="utf-8") as stream:
        stream.write("[")
        for number in range(rows):
            texts = [" ".join(rng.choices(words, k=max(1, text // 8))) for _ in range(2)]
            row = {
                "instruction": f"Instruction {number // 10}: say something",
                "dataset": f"set {number % 5}",
                "output_1": texts[0],
                "output_2": texts[1],
                "generator_1": "base",
                "generator_2": f"model {number % 10}",
                "annotator": "judge",
                "preference": 1 + rng.random(),
            }
            stream.write((",\n" if number else "") + json.dumps(row))
        stream.write("]")


def seconds(*words: object, repeats: int = 3) -> float:
    """Median wall time of `alpaca-farm WORDS…`."""
    command = [sys.executable, "-m", "flows.cli.main", *map(str, words)]
    return statistics.median(_once(command) for _ in range(repeats))


def _once(command: list[str]) -> float:
    began = time.perf_counter()
    subprocess.run(command, check=True, capture_output=True)
    return time.perf_counter() - began


def main() -> None:
    parser = argparse.ArgumentParser()
    parser.add_argument("--rows", type=int, default=1_000_000)
    parser.add_argument("--text", type=int, default=100)
    parser.add_argument("-o", "--output", type=Path)
    given = parser.parse_args()
    with tempfile.TemporaryDirectory() as folder:
        root = Path(folder)
        large = root / "large.json"
        write_million(large, given.rows, given.text)
        rows, gammas = made_up(805)
        small = write_json(root / "small.json", rows)
        difficulty = write_csv(root / "d.csv", ["instruction", "instruction_difficulty"], gammas.items())
        gamed = write_csv(root / "g.csv", GAMED_HEADER, gamed_table(gammas))
        weights = write_csv(root / "w.csv", ["", "l", "d", "m"], [["ppo", -1, 1, 0.4]])
        start_up = seconds("score", "--power", 1)
        imports = [sys.executable, "-c", "import sklearn.linear_model, sklearn.model_selection, scipy.sparse"]
        library = statistics.median(_once(imports) for _ in range(3))
        control = ("--length-controlled", "--instruction-difficulty", difficulty)
        wall = {
            "million": seconds("score", large, "--json"),
            "prediction": seconds("score", small, *control, "--weights", weights, "--json"),
            "refit": seconds("score", small, *control, "--gamed", gamed, "--json"),
        }
        report = {
            "wall_s": wall,
            "start_up_s": start_up,
            "import_scikit_learn_s": library,
            "after_start_up_s": {
                name: value - start_up - (library if name == "refit" else 0.0) for name, value in wall.items()
            },
            "limits_s": LIMITS_S,
            "rows": given.rows,
            "file_bytes": large.stat().st_size,
            "machine": f"{platform.processor() or platform.machine()}, {os.cpu_count()} cores",
            "load": os.getloadavg(),
            "versions": {name: version(name) for name in ("numpy", "scikit-learn", "orjson")},
            "python": platform.python_version(),
        }
    text = json.dumps(report, indent=2)
    print(text)
    if given.output:
        given.output.write_text(text + "\n", encoding="utf-8")


if __name__ == "__main__":
    main()

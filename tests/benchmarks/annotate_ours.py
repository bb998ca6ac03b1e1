"""Our side of the annotation benchmark, as a command: PAIRS.json ANNOTATOR_FOLDER OUT.json CALLS_FOLDER [CONCURRENCY].

With a concurrency of 0 no server is asked: every answer is made up, which fills the cache.

Prints one line of JSON: seconds after start-up, pairs and calls.
"""

from __future__ import annotations

import json
import sys
import time
from pathlib import Path

from alpaca_farm_core.annotators.base import Annotator
from alpaca_farm_core.annotators.broker import Jobs
from alpaca_farm_core.annotators.calls import Answer
from alpaca_farm_core.annotators.config import AnnotatorConfig
from alpaca_farm_core.annotators.entry_points import annotate_pairs
from alpaca_farm_core.annotators.factory import build_annotator
from alpaca_farm_core.annotators.spec import load_set
from alpaca_farm_core.config.execution import ExecutionConfig


class MadeUp:
    """A judge that answers at once."""

    def work(self, jobs: Jobs) -> None:
        usage = {"prompt_tokens": 100, "completion_tokens": 4, "total_tokens": 104}
        answer = Answer("Output (a)", "stop", usage, "bench", "fp_bench", "", 0.000232)
        while taken := jobs.take(1000):
            jobs.commit({request.key: answer for request in taken})


def main(pairs: str, folder: str, out: str, calls: str, concurrency: str = "256") -> None:
    rows = json.loads(Path(pairs).read_text(encoding="utf-8"))
    annotator: Annotator
    if int(concurrency):
        execution = ExecutionConfig(concurrency=int(concurrency))
        annotator = build_annotator(AnnotatorConfig(name=folder), Path(calls), execution)
    else:
        from alpaca_farm_core.annotators.cache import CallCache
        from alpaca_farm_core.annotators.llm import LLMAnnotator

        annotator = LLMAnnotator(load_set(folder), MadeUp(), CallCache(Path(calls)))
    began = time.perf_counter()
    annotated = annotate_pairs(rows, annotator, calls=Path(calls))
    seconds = time.perf_counter() - began
    Path(out).write_text(json.dumps(annotated), encoding="utf-8")
    print(json.dumps({"seconds": seconds, "pairs": len(annotated), **annotator.stats.timings()}))


if __name__ == "__main__":
    main(*sys.argv[1:])

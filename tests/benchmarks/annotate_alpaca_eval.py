"""AlpacaEval's side of the annotation benchmark, as a command: PAIRS.json CONFIGS.yaml OUT.json.

Runs under the interpreter of an environment with `alpaca-eval==0.6.6`; knows nothing of this project.
"""

import json
import sys
import time

from alpaca_eval.annotators import PairwiseAnnotator


def main(pairs: str, configs: str, out: str) -> None:
    with open(pairs, encoding="utf-8") as stream:
        rows = json.load(stream)
    annotator = PairwiseAnnotator(annotators_config=configs, caching_path=None)
    began = time.perf_counter()
    annotated = annotator(rows, chunksize=None)
    seconds = time.perf_counter() - began
    with open(out, "w", encoding="utf-8") as stream:
        json.dump(annotated, stream)
    print(json.dumps({"seconds": seconds, "pairs": len(annotated)}))


if __name__ == "__main__":
    main(*sys.argv[1:])

"""Annotation with a purse in a process of its own, for tests that kill it: CALLS BASE_URL N CONCURRENCY."""

import sys
from pathlib import Path

from alpaca_farm_core.annotators.prices import PriceTable
from alpaca_farm_core.annotators.purse import Purse
from alpaca_farm_core.annotators.retry import RetryPolicy
from tests.annotators.parts import api_judge, llm, make_pairs


def main(calls: str, base_url: str, n: str, concurrency: str) -> None:
    judge = api_judge(base_url, int(concurrency), RetryPolicy(timeout_s=60))
    annotations = llm(Path(calls), judge, purse=Purse(PriceTable.load(), "killed")).annotate(make_pairs(int(n)))
    assert {annotation.state for annotation in annotations} == {"ok"}


if __name__ == "__main__":
    main(*sys.argv[1:])

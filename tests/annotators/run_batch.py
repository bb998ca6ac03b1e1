"""Annotation through the Batch API in a process of its own, for tests that kill it: CALLS BASE_URL N."""

import sys
from pathlib import Path

from alpaca_farm_core.annotators.batch_judge import BatchJudge
from alpaca_farm_core.annotators.endpoint import Endpoint
from alpaca_farm_core.annotators.prices import PriceTable
from alpaca_farm_core.annotators.purse import Purse
from tests.annotators.parts import QUICK, api_judge, llm, make_pairs


def main(calls: str, base_url: str, n: str) -> None:
    judge = BatchJudge(Endpoint.find(base_url), api_judge(base_url), QUICK, poll_s=0.02)
    llm(Path(calls), judge, purse=Purse(PriceTable.load(), "batch")).annotate(make_pairs(int(n)))


if __name__ == "__main__":
    main(*sys.argv[1:])

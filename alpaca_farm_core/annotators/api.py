"""Who answers calls to an API, and what would stop them; clients load when one is asked for."""

from __future__ import annotations

from collections.abc import Iterable
from typing import TYPE_CHECKING

from alpaca_farm_core.annotators.endpoint import Endpoint
from alpaca_farm_core.annotators.purse import Purse
from alpaca_farm_core.config.execution import ExecutionConfig

if TYPE_CHECKING:
    from alpaca_farm_core.annotators.broker import Judge


def api_judge(execution: ExecutionConfig) -> Judge:
    """The run's endpoints, or their Batch API."""
    from alpaca_farm_core.annotators.batch_judge import BatchJudge
    from alpaca_farm_core.annotators.client import ApiJudge

    return BatchJudge.of(execution) if execution.batch_api else ApiJudge.of(execution)


def check_api(models: Iterable[str], execution: ExecutionConfig) -> None:
    """Find before a long run what would stop its calls: address, key and price; asks nothing.

    Raises:
        ConfigError: no HTTP address, or a budget and no price.
        AnnotationError: no API key where one is needed.
    """
    purse = Purse.of(execution)
    for model in sorted(models):
        purse.check(model)
    for endpoint in Endpoint.all_of(execution):
        endpoint.api_key()

"""From settings to an annotator (light: clients load when an annotator is built)."""

from __future__ import annotations

from collections.abc import Mapping
from pathlib import Path
from typing import TYPE_CHECKING

from alpaca_farm_core.annotators.config import ORACLE, AnnotatorConfig
from alpaca_farm_core.annotators.endpoint import Endpoint
from alpaca_farm_core.annotators.purse import Purse
from alpaca_farm_core.annotators.spec import load_spec
from alpaca_farm_core.config.execution import ExecutionConfig
from alpaca_farm_core.plugins import ANNOTATORS, load_plugin, plugin_hash, plugins

if TYPE_CHECKING:
    from alpaca_farm_core.annotators.base import Annotator


def build_annotator(config: AnnotatorConfig, calls: Path, execution: ExecutionConfig) -> Annotator:
    """Build the annotator that `config` describes.

    Args:
        config: Who judges; a seed of none means 0 here (stages fill in the run's seed by `seeded`).
        calls: Folder of the call cache.
        execution: Endpoint and concurrency.

    Raises:
        ConfigError: unknown annotator, or a broken or unsupported definition.
        StoreError: the call cache cannot be used.
    """
    from alpaca_farm_core.annotators.cache import CallCache

    seed = config.seed or 0
    if config.name == ORACLE:
        from alpaca_farm_core.annotators.oracle import OracleAnnotator

        return OracleAnnotator(
            CallCache(calls), seed=seed, temperature=config.oracle_temperature, label_flip=config.label_flip
        )
    if config.name in plugins(ANNOTATORS):
        from alpaca_farm_core.annotators.plugin import PluginAnnotator

        return PluginAnnotator(config.name, seed=seed, label_flip=config.label_flip)
    from alpaca_farm_core.annotators.batch_judge import BatchJudge
    from alpaca_farm_core.annotators.client import ApiJudge
    from alpaca_farm_core.annotators.llm import LLMAnnotator

    judge = BatchJudge.of(execution) if execution.batch_api else ApiJudge.of(execution)
    return LLMAnnotator(
        load_spec(config.name),
        judge,
        CallCache(calls),
        model=config.model,
        seed=seed,
        label_flip=config.label_flip,
        purse=Purse.of(execution),
    )


def annotator_external(config: AnnotatorConfig) -> Mapping[str, str]:
    """Return content hashes of what an annotator reads: its configs.yaml and templates.

    Raises:
        ConfigError: unknown annotator, or a broken or unsupported definition.
    """
    if config.name == ORACLE:
        return {}
    if config.name in plugins(ANNOTATORS):
        return {"annotator": plugin_hash(ANNOTATORS, config.name)}
    return {"annotator": load_spec(config.name).content}


def check_annotator(config: AnnotatorConfig, execution: ExecutionConfig) -> None:
    """Find before a long run what would stop its judge: definition, address, key and price; asks nothing.

    Raises:
        ConfigError: unknown annotator, a broken definition, no HTTP address, or a budget and no price.
        AnnotationError: no API key where one is needed.
    """
    if config.name in plugins(ANNOTATORS):
        load_plugin(ANNOTATORS, config.name)
    elif config.name != ORACLE:
        spec = load_spec(config.name)
        Purse.of(execution).check(config.model or spec.model)
        for endpoint in Endpoint.all_of(execution):
            endpoint.api_key()

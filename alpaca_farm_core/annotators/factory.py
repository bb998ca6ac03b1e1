"""From settings to an annotator (light: clients and models load when an annotator is built)."""

from __future__ import annotations

from collections.abc import Mapping
from pathlib import Path
from typing import TYPE_CHECKING

from alpaca_farm_core.annotators.api import api_judge, check_api
from alpaca_farm_core.annotators.config import ORACLE, AnnotatorConfig
from alpaca_farm_core.annotators.purse import Purse
from alpaca_farm_core.annotators.spec import AnnotatorSet, load_set
from alpaca_farm_core.config.execution import ExecutionConfig
from alpaca_farm_core.errors import ConfigError
from alpaca_farm_core.plugins import ANNOTATORS, plugin_hash, plugins

if TYPE_CHECKING:
    from alpaca_farm_core.annotators.base import Annotator
    from alpaca_farm_core.annotators.broker import Jobs, Judge
    from alpaca_farm_core.annotators.cache import CallCache
    from alpaca_farm_core.annotators.llm import LLMAnnotator


def build_annotator(config: AnnotatorConfig, calls: Path, execution: ExecutionConfig, draw: int = 0) -> Annotator:
    """Build the annotator that `config` describes.

    Args:
        config: Who judges; a seed of none means 0 here (stages fill in the run's seed by `seeded`).
        calls: Folder of the call cache.
        execution: Endpoint and concurrency.
        draw: Which of several draws of the same answers; another one asks the judge again.

    Raises:
        ConfigError: unknown annotator, or a broken or unsupported definition.
        StoreError: the call cache cannot be used.
    """
    from alpaca_farm_core.annotators.cache import CallCache

    cache, seed = CallCache(calls), config.seed or 0
    if config.name == ORACLE:
        from alpaca_farm_core.annotators.oracle import OracleAnnotator

        return OracleAnnotator(cache, seed=seed, temperature=config.oracle_temperature, label_flip=config.label_flip)
    if config.name in plugins(ANNOTATORS):
        from alpaca_farm_core.annotators.plugin import PluginAnnotator

        return PluginAnnotator(config.name, seed=seed, label_flip=config.label_flip)
    found = _load(config, execution)
    purse = None if is_local(found) else Purse.of(execution)
    return _llm_annotator(config, found, cache, _judge(found, execution), purse, draw)


def planning_annotator(config: AnnotatorConfig, calls: Path, execution: ExecutionConfig) -> LLMAnnotator:
    """Build an annotator that can say what it would ask, but ask nobody; for annotators that `asks_api`.

    Raises:
        ConfigError: as in `build_annotator`.
        StoreError: the call cache cannot be used.
    """
    from alpaca_farm_core.annotators.cache import CallCache

    found = load_set(config.name, config.models)
    return _llm_annotator(config, found, CallCache(calls), _Nobody(), Purse.of(execution), 0)


class _Nobody:
    """A judge for plans."""

    def work(self, jobs: Jobs) -> None:
        raise AssertionError("a plan asks nobody")


def _llm_annotator(
    config: AnnotatorConfig, found: AnnotatorSet, cache: CallCache, judge: Judge, purse: Purse | None, draw: int
) -> LLMAnnotator:
    from alpaca_farm_core.annotators.llm import AskingOptions, LLMAnnotator

    options = AskingOptions(
        model=_model_asked(config, found),
        seed=config.seed or 0,
        label_flip=config.label_flip,
        both_orders=config.both_orders,
        structured=config.structured,
        token_bias=config.token_bias,
        draw=draw,
    )
    return LLMAnnotator(found, judge, cache, options, purse)


def annotator_external(config: AnnotatorConfig) -> Mapping[str, str]:
    """Return content hashes of what an annotator reads: its configs.yaml and templates, a local model's files.

    Raises:
        ConfigError: unknown annotator, or a broken or unsupported definition.
        ModelError: the local model is not there.
    """
    if config.name == ORACLE:
        return {}
    if config.name in plugins(ANNOTATORS):
        return {"annotator": plugin_hash(ANNOTATORS, config.name)}
    found = load_set(config.name, config.models)
    hashes = {"annotator": found.content}
    if is_local(found):
        hashes["judge_model"] = _model_asked(config, found)
    return hashes


def check_annotator(config: AnnotatorConfig, execution: ExecutionConfig) -> None:
    """Find before a long run what would stop its judge: definition, model, address, key and price; asks nothing.

    Raises:
        ConfigError: unknown annotator, a broken definition, no HTTP address, or a budget and no price.
        ModelError: the local model is not there.
        AnnotationError: no API key where one is needed.
    """
    annotator_external(config)
    if config.name == ORACLE or config.name in plugins(ANNOTATORS):
        return
    found = _load(config, execution)
    if is_local(found):
        return
    check_api({config.model or member.model for member in found.members}, execution)


def calls_per_pair(config: AnnotatorConfig) -> float:
    """API calls that judging one pair takes on average, when nothing is cached and every answer can be read.

    Noised labels (probability 2p) cost none; a prompt of several pairs is shared by them.
    """
    if not asks_api(config):
        return 0.0
    found = load_set(config.name, config.models)
    share = sum(1 / member.batch_size for member in found.members) / len(found.members)
    return share * (2 if config.both_orders else 1) * (1 - 2 * config.label_flip)


def asks_api(config: AnnotatorConfig) -> bool:
    """Whether judging means calls to a server."""
    if config.name == ORACLE or config.name in plugins(ANNOTATORS):
        return False
    return not is_local(load_set(config.name, config.models))


def is_local(found: AnnotatorSet) -> bool:
    """Whether the judge is a model in this process."""
    return found.members[0].served == "local"


def _load(config: AnnotatorConfig, execution: ExecutionConfig) -> AnnotatorSet:
    """Load the definition, and refuse what only shows where it is to be used."""
    found = load_set(config.name, config.models)
    if len({member.served for member in found.members}) > 1:
        raise ConfigError(f"The pool '{found.name}' mixes local and remote judges.", "Make two annotators of it.")
    if is_local(found) and len({config.model or member.model for member in found.members}) > 1:
        raise ConfigError(f"The pool '{found.name}' needs several local models.", "Use one local model per annotator.")
    servers = sorted({member.base_url for member in found.members if member.base_url})
    if servers and not execution.base_url and not execution.endpoints:
        raise ConfigError(
            f"The annotator '{found.name}' asks a server of its own: {', '.join(servers)}.",
            f"Agree to it with execution.base_url={servers[0]} (your key goes there), or name another server.",
        )
    return found


def _model_asked(config: AnnotatorConfig, found: AnnotatorSet) -> str:
    """The model in place of the members' own ("" = none); a local one by its content."""
    if not is_local(found):
        return config.model
    from alpaca_farm_core.annotators.local import local_model_name

    return local_model_name(config.model or found.members[0].model)


def _judge(found: AnnotatorSet, execution: ExecutionConfig) -> Judge:
    if is_local(found):
        from alpaca_farm_core.annotators.local import LocalJudge

        return LocalJudge(execution)
    return api_judge(execution)
